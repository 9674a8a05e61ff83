/* Finding what drives devices: linked in (tests do), or a module beside the program. */

#include "mergegrid/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/driver.h"
#include "mergegrid/text.h"

typedef mg_status (*open_fn)(const mg_device_terms *terms, mg_device **device);

/* Where the program is; "" if that can't be known. */
static void own_directory(char *path, size_t size) {
  const ssize_t length = readlink("/proc/self/exe", path, size - 1);
  path[length > 0 ? length : 0] = '\0';
  char *slash = strrchr(path, '/');
  if (slash != NULL) *slash = '\0';
}

static mg_status load_module(open_fn *open) {
  char directory[PATH_MAX], path[PATH_MAX + sizeof MG_CUDA_MODULE + 1];
  own_directory(directory, sizeof directory);
  snprintf(path, sizeof path, "%s/" MG_CUDA_MODULE, directory);
  if (access(path, R_OK) != 0)
    return mg_fail(MG_ERR_CONFIG, "cuda is not built into this mergegrid (no %s): it is where CMake finds nvcc", path);
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (module == NULL) return mg_fail(MG_ERR_CONFIG, "cuda can't be used here: %s", dlerror());
  void *symbol = dlsym(module, "mg_cuda_open");
  if (symbol == NULL) return mg_fail(MG_ERR_CONFIG, "%s is not a module of this program: %s", path, dlerror());
  memcpy(open, &symbol, sizeof *open); /* C knows no conversion from object to function pointers */
  return MG_OK;
}

mg_status mg_device_open(const mg_device_terms *terms, mg_device **device) {
  mg_status status = MG_OK;
  open_fn open = mg_cuda_open;
  if (open == NULL) MG_TRY(load_module(&open), done);
  status = open(terms, device);
done:
  return status;
}

/* The driver's files: of Linux, of Windows' Linux, of boards that have processor and device on one chip. */
bool mg_device_likely(void) {
  static const char *const files[] = {"/dev/nvidiactl", "/dev/dxg", "/dev/nvmap"};
  bool any = mg_cuda_open != NULL;
  for (size_t k = 0; k < sizeof files / sizeof *files; k++) any = any || access(files[k], F_OK) == 0;
  return any;
}

void mg_device_close(mg_device **device) {
  if (*device == NULL) return;
  (*device)->ops->close(*device);
  *device = NULL;
}
