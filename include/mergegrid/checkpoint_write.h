#ifndef MERGEGRID_CHECKPOINT_WRITE_H
#define MERGEGRID_CHECKPOINT_WRITE_H

/** Writing a safetensors file, tensor after tensor. Not collective. */

#include "mergegrid/family.h"
#include "mergegrid/status.h"

typedef struct mg_safetensors_writer mg_safetensors_writer;

/** Writes the header for all tensors of the table as F32, in its order. path must not exist. */
mg_status mg_safetensors_create(const char *path, const mg_tensor_table *table, mg_safetensors_writer **writer);
/** The next `count` elements: tensors in the table's order, without a gap. */
mg_status mg_safetensors_put(mg_safetensors_writer *writer, const float *values, int64_t count);
/** Syncs and closes; MG_ERR_INTERNAL where elements are missing. Also releases the writer on failure. */
mg_status mg_safetensors_finish(mg_safetensors_writer **writer);
/** Closes what is not finished (the file stays). */
void mg_safetensors_abandon(mg_safetensors_writer **writer);

#endif
