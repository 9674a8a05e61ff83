/* config.json of an encoder. */

#include "mergegrid/encoder.h"
#include "scratch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[256];
  mg_encoder_shape shape;
  const char *dir = scratch_file("config.json", data, size, path);
  if (mg_encoder_shape_read(dir, &shape) == MG_OK &&
      (shape.hidden % shape.heads != 0 || mg_encoder_position_limit(&shape) < 2 || shape.pad >= shape.vocabulary))
    abort();
  scratch_remove(dir, path);
  return 0;
}
