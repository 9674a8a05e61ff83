/* L1 norms of what a device holds, and of what stays of it: added up there in whole numbers. */

#include "device.h"

/* What thinning out is told of the one source. */
typedef struct thin_source {
  const float *tau;
  float *out;
  mg_stream stream;
  float scale;
} thin_source;
_Static_assert(sizeof(thin_source) <= MG_DEVICE_ALIGN, "it has room in a counter");

mg_status mg_device_norms_begin(mg_device_store *s, mg_queue *queue, const mg_device_values *values,
                                const mg_device_share *share, bool *able) {
  mg_status status = MG_OK;
  *able = share->part != MG_DEVICE_PART_PACKED || mg_device_thin_most(1, share->row) > 0;
  if (*able && share->part == MG_DEVICE_PART_PACKED) MG_TRY(mg_device_thin_begin(s, able), done);
  if (*able) MG_TRY(mg_device_counter_open(s, values, able), done);
  if (*able) MG_TRY(s->device->ops->zero(queue, s->counter->bins, 2 * MG_L1_BINS * sizeof(uint64_t)), done);
done:
  return status;
}

/* Rows thinned out, some pieces at a time, and added up. */
static mg_status add_ranked(mg_device_store *s, mg_queue *queue, const mg_device_values *values, const mg_device_share *share,
                            mg_device_norms *what) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  thin_source *there = s->counter->source;
  const thin_source told = {
      .tau = s->tau[values->source], .out = mg_device_thin_place(s, 1, 0), .stream = values->stream, .scale = 1};
  const uint32_t all = what->pieces, most = mg_device_thin_most(1, share->row);
  mg_device_thinning thinning = {.sources = 1,
                                 .tau = &there->tau,
                                 .other = what->other,
                                 .stream = &there->stream,
                                 .scale = &there->scale,
                                 .row = (uint32_t)share->row,
                                 .out = &there->out};
  mg_rank_chances(share->formula, share->row, &thinning.least, &thinning.rise);
  MG_TRY(ops->upload_any(queue, there, &told, sizeof told), done);
  what->packed = told.out;
  for (uint32_t at = 0; at < all; at += most) {
    thinning.piece = what->piece;
    thinning.pieces = what->pieces = all - at < most ? all - at : most;
    MG_TRY(ops->thin(queue, &thinning), done);
    MG_TRY(ops->norms(queue, what), done);
    what->piece += most;
  }
done:
  return status;
}

mg_status mg_device_norms_tensor(mg_device_store *s, mg_queue *queue, const mg_device_values *values,
                                 const mg_device_share *share, size_t t) {
  mg_status status = MG_OK;
  const bool ranked = share->part == MG_DEVICE_PART_PACKED;
  mg_device_norms what = {.tau = s->tau[values->source],
                          .other = mg_device_relative(s, values->other),
                          .part = share->part,
                          .threshold = share->threshold,
                          .stream = values->stream,
                          .last_kept = values->last_kept,
                          .bins = s->counter->bins};
  const int64_t most = ranked ? MG_PIECE_ELEMENTS / share->row * share->row : MG_PIECE_ELEMENTS;
  MG_TRY(mg_device_counter_tell(s, queue, t, most, &what.pieces), done);
  what.piece = s->counter->pieces;
  if (what.pieces == 0) goto done;
  s->counter->counted += s->counter->elements;
  if (ranked)
    MG_TRY(add_ranked(s, queue, values, share, &what), done);
  else
    MG_TRY(s->device->ops->norms(queue, &what), done);
done:
  return status;
}

mg_status mg_device_norms_end(mg_device_store *s, mg_queue *queue, mg_l1 *all, mg_l1 *part) {
  mg_status status = MG_OK;
  const mg_device_ops *ops = s->device->ops;
  const uint64_t *fetched = s->counter->fetched;
  MG_TRY(ops->download(queue, s->counter->fetched, s->counter->bins, 2 * MG_L1_BINS * sizeof *fetched), done);
  MG_TRY(ops->finish(queue), done);
  mg_l1_add_counts(all, fetched);
  mg_l1_add_counts(part, fetched + MG_L1_BINS);
done:
  return status;
}
