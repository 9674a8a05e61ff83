/* Owning a result: attempts, locks, journals cut at every byte, identities, the fence. */
#include "mergegrid/run.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mergegrid/io.h"
#include "mergegrid/result.h"
#include "mergegrid/stop.h"
#include "result/run_impl.h"
#include "unit/scratch.h"

static char result[96];

static int make_place(void **state) {
  if (make_dir(state) != 0) return 1;
  snprintf(result, sizeof result, "%s/sub/r.h5", dir);
  return 0;
}

static char *beside(const char *suffix) {
  char *path = NULL;
  assert_true(asprintf(&path, "%s%s", result, suffix) > 0);
  return path;
}

static void assert_state(const char *expected) {
  mg_text state, all;
  assert_int_equal(mg_run_read_state(result, &state, &all), MG_OK);
  assert_string_equal(state.data, expected);
  mg_text_free(&state);
  mg_text_free(&all);
}

static mg_identity identity_of(const char *source) {
  mg_identity identity = {0};
  assert_int_equal(mg_identity_add(&identity, "numeric mode", "1"), MG_OK);
  assert_int_equal(mg_identity_add(&identity, "source af-ZA", source), MG_OK);
  return identity;
}

static mg_run *begin(mg_run_mode mode, const char *source) {
  mg_run *run = NULL;
  bool complete;
  mg_identity identity = identity_of(source);
  assert_int_equal(mg_run_open(result, mode, &run), MG_OK);
  assert_int_equal(mg_run_check(run, &identity, NULL, NULL, &complete), MG_OK);
  assert_false(complete);
  mg_identity_free(&identity);
  return run;
}

typedef struct seen {
  size_t count;
  uint64_t sum;
  mg_record_place last;
} seen;

static mg_status add_record(void *context, const mg_record *record) {
  seen *s = context;
  uint64_t value = 0;
  assert_int_equal(record->kind, 7);
  memcpy(&value, record->payload, record->size < sizeof value ? record->size : sizeof value);
  s->last = record->place;
  s->count++;
  s->sum += value;
  return MG_OK;
}

static void append(mg_run *run, uint64_t value) { assert_int_equal(mg_run_append(run, 7, &value, sizeof value, NULL), MG_OK); }

static void attempts_follow_each_other(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  assert_state("running");
  assert_int_equal(mg_run_attempt(run), 1);
  for (uint64_t k = 1; k <= 10; k++) append(run, k);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped by signal SIGTERM"));
  assert_state("stopped");
  assert_string_equal(mg_error_message(), "stopped by signal SIGTERM");
  run = begin(MG_RUN_RESUME, "a");
  assert_int_equal(mg_run_attempt(run), 2);
  seen s = {0};
  assert_int_equal(mg_run_replay(run, add_record, &s), MG_OK);
  assert_int_equal(s.count, 10);
  assert_int_equal(s.sum, 55);
  append(run, 100);
  mg_run_close(&run, mg_fail(MG_ERR_IO, "no luck"));
  assert_state("failed");
  s = (seen){0};
  assert_int_equal(mg_journal_replay(result, add_record, &s), MG_OK);
  assert_int_equal(s.sum, 155);
}

static void records_are_read_again(void **state) {
  (void)state;
  mg_record_place here, nowhere = {.attempt = 1, .offset = 3};
  mg_record record;
  uint64_t value = 42;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  append(run, 7);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  run = begin(MG_RUN_CONTINUE, "a");
  seen s = {0};
  assert_int_equal(mg_run_replay(run, add_record, &s), MG_OK);
  assert_int_equal(s.last.attempt, 1);
  assert_int_equal(mg_run_append(run, 7, &value, sizeof value, &here), MG_OK);
  append(run, 43);
  for (int k = 0; k < 2; k++) { /* an earlier attempt's and this one's, in turn */
    assert_int_equal(mg_run_read(run, s.last, &record), MG_OK);
    assert_int_equal(*(const uint64_t *)record.payload, 7);
    assert_int_equal(mg_run_read(run, here, &record), MG_OK);
    assert_int_equal(record.kind, 7);
    assert_int_equal(record.size, sizeof value);
    assert_int_equal(*(const uint64_t *)record.payload, 42);
  }
  assert_int_equal(mg_run_read(run, nowhere, &record), MG_ERR_CORRUPT);
  nowhere.attempt = 99;
  assert_int_equal(mg_run_read(run, nowhere, &record), MG_ERR_IO);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
}

static void other_inputs_are_refused_by_name(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  append(run, 1);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  mg_identity other = identity_of("b");
  bool complete;
  assert_int_equal(mg_run_open(result, MG_RUN_CONTINUE, &run), MG_OK);
  assert_int_equal(mg_run_check(run, &other, NULL, NULL, &complete), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), "source af-ZA"));
  assert_non_null(strstr(mg_error_message(), "--fresh"));
  mg_run_close(&run, MG_ERR_INPUT);
  assert_state("failed");
  /* what was refused has not taken the place of what was there */
  run = begin(MG_RUN_CONTINUE, "a");
  seen s = {0};
  assert_int_equal(mg_run_replay(run, add_record, &s), MG_OK);
  assert_int_equal(s.count, 1);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  run = begin(MG_RUN_FRESH, "b");
  s = (seen){0};
  assert_int_equal(mg_run_replay(run, add_record, &s), MG_OK);
  assert_int_equal(s.count, 0);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  mg_identity_free(&other);
}

static void nothing_to_resume(void **state) {
  (void)state;
  mg_run *run = NULL;
  assert_int_equal(mg_run_open(result, MG_RUN_RESUME, &run), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), result));
}

static void a_killed_owner_frees_the_lock(void **state) {
  (void)state;
  int ready[2];
  assert_int_equal(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    mg_run *run = begin(MG_RUN_CONTINUE, "a");
    append(run, 42);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char byte;
  assert_int_equal(read(ready[0], &byte, 1), 1);
  assert_state("running");
  /* while it lives it can't be had: a child waits for the lock as long as it must, and says who has it */
  const pid_t second = fork();
  if (second == 0) {
    mg_run *run = NULL;
    const mg_status status = mg_run_open(result, MG_RUN_CONTINUE, &run);
    char expected[32];
    snprintf(expected, sizeof expected, "pid %d", (int)child);
    _exit(status == MG_ERR_BUSY && strstr(mg_error_message(), expected) != NULL ? 0 : 1);
  }
  int status;
  waitpid(second, &status, 0);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  seen s = {0};
  assert_int_equal(mg_run_replay(run, add_record, &s), MG_OK);
  assert_int_equal(s.sum, 42);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  close(ready[0]), close(ready[1]);
}

/* A journal cut at any byte gives its whole records and no error; a flipped byte ends it before the record it is in. */
static void torn_and_damaged_journals(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  for (uint64_t k = 1; k <= 3; k++) append(run, 1);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  char *path = beside(".journal/0001/journal"), *data = NULL;
  size_t size;
  assert_int_equal(mg_read_file(path, 1 << 20, &data, &size), MG_OK);
  assert_int_equal(size % 3, 0);
  for (size_t cut = 0; cut <= size; cut++) {
    seen s = {0};
    assert_int_equal(mg_replace_file(path, data, cut), MG_OK);
    assert_int_equal(mg_journal_replay(result, add_record, &s), MG_OK);
    assert_int_equal(s.count, cut / (size / 3));
  }
  for (size_t at = 0; at < size; at++) {
    seen s = {0};
    data[at] ^= 0x10;
    assert_int_equal(mg_replace_file(path, data, size), MG_OK);
    assert_int_equal(mg_journal_replay(result, add_record, &s), MG_OK);
    assert_int_equal(s.count, at / (size / 3));
    data[at] ^= 0x10;
  }
  free(data);
  free(path);
}

static void only_the_owner_publishes(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  char *path = beside(".state");
  assert_int_equal(mg_replace_file(mg_run_temporary(run), "result", 6), MG_OK);
  assert_int_equal(mg_replace_file(path, "running\nattempt 9\n", 18), MG_OK); /* another host took over */
  assert_int_equal(mg_run_publish(run), MG_ERR_BUSY);
  assert_false(mg_path_exists(result));
  mg_run_close(&run, MG_ERR_BUSY);
  assert_state("running"); /* it is not ours to change */
  free(path);
}

static void publishing_cleans_up(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  append(run, 1);
  assert_int_equal(mg_replace_file(mg_run_temporary(run), "result", 6), MG_OK);
  assert_int_equal(mg_run_publish(run), MG_OK);
  mg_run_close(&run, MG_OK);
  assert_state("done");
  char *journal = beside(".journal");
  assert_true(mg_path_exists(result));
  assert_false(mg_path_exists(journal));
  free(journal);
  /* what is there is no result of ours: it is named and left alone */
  mg_identity identity = identity_of("a");
  bool complete;
  assert_int_equal(mg_run_open(result, MG_RUN_CONTINUE, &run), MG_OK);
  assert_int_equal(mg_run_check(run, &identity, NULL, NULL, &complete), MG_ERR_CORRUPT);
  mg_run_close(&run, MG_ERR_CORRUPT);
  assert_true(mg_path_exists(result));
  mg_identity_free(&identity);
}

/* An attempt that another one superseded neither reports nor publishes, however long it goes on. */
static void a_superseded_attempt_does_not_come_back(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  char *path = beside(".state");
  assert_int_equal(mg_run_report(run, "running", "first", "", ""), MG_OK);
  assert_int_equal(mg_replace_file(mg_run_temporary(run), "result", 6), MG_OK);
  assert_int_equal(mg_replace_file(path, "running\nattempt 9\n", 18), MG_OK);
  assert_int_equal(mg_run_report(run, "running", "second", "", ""), MG_ERR_BUSY);
  assert_non_null(strstr(mg_error_message(), "attempt 9"));
  assert_int_equal(mg_run_publish(run), MG_ERR_BUSY);
  assert_false(mg_path_exists(result));
  mg_run_close(&run, MG_ERR_BUSY);
  free(path);
}

/* What a user does whose host is lost with the lock. */
static void break_lock(void) {
  char *path = beside(".lock");
  assert_int_equal(unlink(path), 0);
  free(path);
}

static void assert_attempt(const char *line) {
  mg_text state, all;
  assert_int_equal(mg_run_read_state(result, &state, &all), MG_OK);
  assert_string_equal(state.data, "running");
  assert_non_null(strstr(all.data, line));
  mg_text_free(&state);
  mg_text_free(&all);
}

/* An attempt that goes on after its lock was broken writes into its own journal, and nowhere else. */
static void a_fenced_attempt_disturbs_nobody(void **state) {
  (void)state;
  mg_run *old = begin(MG_RUN_CONTINUE, "a");
  append(old, 1);
  assert_int_equal(mg_replace_file(mg_run_temporary(old), "stale", 5), MG_OK);
  break_lock();
  mg_run *new = begin(MG_RUN_CONTINUE, "a");
  seen s = {0};
  assert_int_equal(mg_run_replay(new, add_record, &s), MG_OK);
  assert_int_equal(s.sum, 1);
  assert_false(mg_path_exists(mg_run_temporary(old))); /* it was about to be renamed */
  append(new, 10);
  append(old, 2);
  char *journal = beside(".journal/0002/journal");
  s = (seen){0};
  assert_int_equal(mg_journal_read(journal, 2, NULL, add_record, &s, NULL), MG_OK);
  assert_int_equal(s.sum, 10);
  free(journal);
  assert_int_equal(mg_run_report(old, "running", "more", "", ""), MG_ERR_BUSY);
  assert_non_null(strstr(mg_error_message(), "attempt 2"));
  assert_int_equal(mg_run_publish(old), MG_ERR_IO); /* what it wrote is gone */
  assert_int_equal(mg_replace_file(mg_run_temporary(old), "stale", 5), MG_OK);
  assert_int_equal(mg_run_publish(old), MG_ERR_BUSY);
  assert_false(mg_path_exists(result));
  assert_int_equal(mg_replace_file(mg_run_temporary(new), "result", 6), MG_OK);
  mg_run_close(&old, MG_ERR_BUSY);
  assert_attempt("attempt 2\n");
  assert_int_equal(mg_run_publish(new), MG_OK);
  mg_run_close(&new, MG_OK);
  assert_state("done");
}

/* Starting over, or removing everything by hand, does not make an old attempt's number good again. */
static void numbers_and_ids_are_not_used_again(void **state) {
  (void)state;
  mg_run *old = begin(MG_RUN_CONTINUE, "a");
  append(old, 1);
  break_lock();
  mg_run *new = begin(MG_RUN_FRESH, "b");
  assert_int_equal(mg_run_attempt(new), 2);
  assert_int_equal(mg_run_report(old, "running", "more", "", ""), MG_ERR_BUSY);
  mg_run_close(&old, MG_ERR_BUSY);
  char *journals = beside(".journal"), *file = beside(".state");
  assert_int_equal(mg_journals_remove(result, 2), MG_OK);
  assert_false(mg_path_exists(journals));
  assert_int_equal(unlink(file), 0);
  break_lock();
  assert_int_equal(mg_run_report(new, "running", "more", "", ""), MG_ERR_BUSY);
  mg_run *first = begin(MG_RUN_CONTINUE, "c"), *again;
  assert_int_equal(mg_run_attempt(first), 1);
  assert_int_equal(mg_journals_remove(result, 2), MG_OK);
  assert_int_equal(unlink(file), 0);
  break_lock();
  again = begin(MG_RUN_CONTINUE, "c");
  assert_int_equal(mg_run_attempt(again), 1);
  assert_int_equal(mg_run_report(first, "running", "more", "", ""), MG_ERR_BUSY);
  assert_int_equal(mg_run_report(again, "running", "more", "", ""), MG_OK);
  mg_run_close(&new, MG_ERR_BUSY);
  mg_run_close(&first, MG_ERR_BUSY);
  assert_attempt("attempt 1\n");
  mg_run_close(&again, mg_fail(MG_STOPPED, "stopped"));
  free(journals);
  free(file);
}

/* One that asked before it was fenced off, and renamed its state afterwards, does not own the result by that. */
static void a_stale_state_is_overwritten(void **state) {
  (void)state;
  mg_run *old = begin(MG_RUN_CONTINUE, "a");
  break_lock();
  mg_run *new = begin(MG_RUN_CONTINUE, "a");
  char *file = beside(".state");
  assert_int_equal(mg_replace_file(file, "running\nattempt 1\n", 18), MG_OK);
  assert_int_equal(mg_run_report(old, "running", "more", "", ""), MG_ERR_BUSY);
  assert_int_equal(mg_run_report(new, "running", "more", "", ""), MG_OK);
  assert_attempt("attempt 2\n");
  mg_run_close(&old, MG_ERR_BUSY);
  mg_run_close(&new, mg_fail(MG_STOPPED, "stopped"));
  free(file);
}

static void other_hosts_see_the_attempt(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  assert_int_equal(mg_run_is_seen(result, mg_run_id(run), 0), MG_OK);
  assert_int_equal(mg_run_is_seen(result, "another", 0), MG_ERR_INPUT);
  assert_int_equal(mg_run_is_seen("/nowhere/r.h5", mg_run_id(run), 0.2), MG_ERR_INPUT);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
}

/* A state of another host: at work if it moves, whatever its clock says; else what a lost host left. */
static void another_hosts_run_is_watched(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  char *file = beside(".state");
  char text[128];
  const pid_t child = fork();
  for (int k = 0; child == 0; k++) {
    const int size = snprintf(text, sizeof text, "running\nattempt 1\nhost elsewhere\npid 1\nprogress %d\n", k);
    if (mg_replace_file(file, text, (size_t)size) != MG_OK) _exit(1);
    usleep(200000);
  }
  usleep(300000);
  assert_int_equal(mg_run_open(result, MG_RUN_CONTINUE, &run), MG_ERR_BUSY);
  assert_non_null(strstr(mg_error_message(), "host elsewhere"));
  int status;
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  run = begin(MG_RUN_CONTINUE, "a");
  assert_attempt("attempt 2\n");
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  free(file);
}

/* Nothing was computed from the first inputs, so nothing stands against other ones. */
static void an_attempt_without_records_binds_nobody(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  run = begin(MG_RUN_CONTINUE, "b");
  append(run, 1);
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  mg_identity other = identity_of("a");
  bool complete;
  assert_int_equal(mg_run_open(result, MG_RUN_CONTINUE, &run), MG_OK);
  assert_int_equal(mg_run_check(run, &other, NULL, NULL, &complete), MG_ERR_INPUT);
  mg_run_close(&run, MG_ERR_INPUT);
  mg_identity_free(&other);
}

static void fresh_spares_what_is_no_result(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
  assert_int_equal(mg_replace_file(result, "somebody's thesis", 17), MG_OK);
  assert_int_equal(mg_run_open(result, MG_RUN_FRESH, &run), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), result));
  assert_true(mg_path_exists(result));
  assert_int_equal(mg_replace_file(result, "MGRESULT cut short", 18), MG_OK);
  run = begin(MG_RUN_FRESH, "b");
  assert_false(mg_path_exists(result));
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
}

/* The wait for a dying attempt ends at once when this one is asked to stop. */
static void a_stop_ends_the_wait(void **state) {
  (void)state;
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  const pid_t child = fork();
  if (child == 0) {
    mg_run *second = NULL;
    mg_stop_install();
    mg_stop_request();
    alarm(4);
    _exit(mg_run_open(result, MG_RUN_CONTINUE, &second) == MG_STOPPED ? 0 : 1);
  }
  int status;
  waitpid(child, &status, 0);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_state("running");
  mg_run_close(&run, mg_fail(MG_STOPPED, "stopped"));
}

/* A part of `result`: one record, then done. */
static void make_part(int part, const char *source, uint64_t value) {
  mg_run *run = NULL;
  bool complete;
  mg_identity identity = identity_of(source);
  char *path = mg_part_path(result, part, 2);
  assert_int_equal(mg_run_open(path, MG_RUN_CONTINUE, &run), MG_OK);
  assert_int_equal(mg_run_be_part(run, result), MG_OK);
  assert_int_equal(mg_run_check(run, &identity, NULL, NULL, &complete), MG_OK);
  append(run, value);
  assert_int_equal(mg_run_end_part(run), MG_OK);
  mg_run_close(&run, MG_OK);
  mg_part_report report;
  assert_int_equal(mg_part_read_report(path, part, &report), MG_OK);
  assert_string_equal(report.state, "done");
  assert_true(report.attempt > 0);
  mg_identity_free(&identity);
  free(path);
}

static void parts_are_gathered(void **state) {
  (void)state;
  int *found = NULL;
  size_t count;
  char *paths[] = {mg_part_path(result, 1, 2), mg_part_path(result, 2, 2)};
  make_part(1, "a", 5);
  make_part(2, "a", 6);
  assert_int_equal(mg_parts_find(result, &found, &count), MG_OK);
  assert_int_equal(count, 1);
  assert_int_equal(found[0], 2);
  free(found);
  mg_run *run = begin(MG_RUN_CONTINUE, "a");
  mg_identity same = identity_of("a"), other = identity_of("b");
  mg_record record;
  seen s = {0};
  for (int k = 0; k < 2; k++) assert_int_equal(mg_run_join(run, k + 1, paths[k], true), MG_OK);
  assert_int_equal(mg_run_replay_joined(run, &same, add_record, &s), MG_OK);
  assert_int_equal(s.count, 2);
  assert_int_equal(s.sum, 11);
  assert_int_equal(s.last.part, 2);
  assert_int_equal(mg_run_read(run, s.last, &record), MG_OK);
  assert_int_equal(*(const uint64_t *)record.payload, 6);
  s.last.part = 3;
  assert_int_equal(mg_run_read(run, s.last, &record), MG_ERR_INTERNAL);
  assert_int_equal(mg_run_replay_joined(run, &other, add_record, &s), MG_ERR_INPUT);
  assert_non_null(strstr(mg_error_message(), ".part-1-of-2 was begun from something else"));
  /* what they left stays until there is a result */
  assert_int_equal(mg_replace_file(mg_run_temporary(run), "result", 6), MG_OK);
  assert_int_equal(mg_run_publish(run), MG_OK);
  mg_run_close(&run, MG_OK);
  assert_int_equal(mg_parts_find(result, &found, &count), MG_OK);
  assert_int_equal(count, 0);
  for (int k = 0; k < 2; k++) free(paths[k]);
  mg_identity_free(&same);
  mg_identity_free(&other);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_place, remove_dir)
  const struct CMUnitTest tests[] = {TEST(attempts_follow_each_other),
                                     TEST(records_are_read_again),
                                     TEST(other_inputs_are_refused_by_name),
                                     TEST(nothing_to_resume),
                                     TEST(a_killed_owner_frees_the_lock),
                                     TEST(torn_and_damaged_journals),
                                     TEST(only_the_owner_publishes),
                                     TEST(publishing_cleans_up),
                                     TEST(a_superseded_attempt_does_not_come_back),
                                     TEST(a_fenced_attempt_disturbs_nobody),
                                     TEST(numbers_and_ids_are_not_used_again),
                                     TEST(a_stale_state_is_overwritten),
                                     TEST(other_hosts_see_the_attempt),
                                     TEST(another_hosts_run_is_watched),
                                     TEST(an_attempt_without_records_binds_nobody),
                                     TEST(fresh_spares_what_is_no_result),
                                     TEST(a_stop_ends_the_wait),
                                     TEST(parts_are_gathered)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
