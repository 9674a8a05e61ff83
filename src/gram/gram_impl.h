#ifndef MERGEGRID_GRAM_IMPL_H
#define MERGEGRID_GRAM_IMPL_H

#include "mergegrid/gram.h"

/** Level of a group's root: the smallest with 2^level >= leaves. */
unsigned mg_gram_root_level(int64_t leaves);
/** The piece of a tensor that is leaf `leaf` of a group. */
typedef struct mg_gram_leaf {
  size_t tensor;
  int64_t first, count;
} mg_gram_leaf;
mg_gram_leaf mg_gram_leaf_at(const mg_gram_layout *layout, const mg_gram_group *group, int64_t leaf);
static inline bool mg_gram_is_triangle(const mg_pair_block *block) { return block->row0 == block->col0; }
/** Sources that a block's tiles hold: of its rows and, unless they are the same, of its columns. */
static inline int mg_gram_block_sources(const mg_pair_block *block) {
  const int rows = block->row1 - block->row0;
  return mg_gram_is_triangle(block) ? rows : rows + block->col1 - block->col0;
}

#endif
