#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "cli_impl.h"

void mg_prepare_launch(void) {
  extern char **environ;
  const char *size = getenv("OMPI_COMM_WORLD_SIZE"), *local = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
  /* Probing for fabrics costs Open MPI a quarter of a second, which on one node finds nothing of use. */
  if (size != NULL ? local == NULL || strcmp(size, local) != 0 : getenv("SLURM_PROCID") != NULL || getenv("PMIX_RANK") != NULL)
    return;
  for (char **variable = environ; *variable != NULL; variable++)
    if (strncmp(*variable, "OMPI_MCA_pml", 12) == 0 || strncmp(*variable, "OMPI_MCA_btl", 12) == 0) return;
  setenv("OMPI_MCA_pml", "ob1", 0);
  setenv("OMPI_MCA_btl", "self,vader", 0);
}

/* Of files and of other sockets the option is refused, and nothing happens. */
void mg_disable_nagle(void) {
  const int on = 1;
  DIR *list = opendir("/proc/self/fd");
  if (list == NULL) return;
  for (const struct dirent *entry = readdir(list); entry != NULL; entry = readdir(list))
    if (entry->d_name[0] != '.') setsockopt(atoi(entry->d_name), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  closedir(list);
}
