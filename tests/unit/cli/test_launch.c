/* What a launched process does about its connection to the launcher. */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/cli.h"

static int has_no_delay(int fd) {
  int on = 0;
  socklen_t size = sizeof on;
  assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
  return on;
}

static void test_small_messages_leave_at_once(void **state) {
  (void)state;
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof at;
  int pipes[2];
  const int listener = socket(AF_INET, SOCK_STREAM, 0), ours = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(pipe(pipes), 0); /* passed over without harm */
  assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
  assert_int_equal(listen(listener, 1), 0);
  assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &size), 0);
  assert_int_equal(connect(ours, (struct sockaddr *)&at, sizeof at), 0);
  assert_int_equal(has_no_delay(ours), 0);
  mg_disable_nagle();
  assert_int_not_equal(has_no_delay(ours), 0);
  assert_int_equal(write(pipes[1], "x", 1), 1);
  close(listener), close(ours), close(pipes[0]), close(pipes[1]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_small_messages_leave_at_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
