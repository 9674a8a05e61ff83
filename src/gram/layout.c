/* What fixes the shape of the sums: groups of tensors, their leaves, and blocks of pairs. */

#include <stdlib.h>
#include <string.h>

#include "gram_impl.h"
#include "mergegrid/text.h"

unsigned mg_gram_root_level(int64_t leaves) {
  unsigned level = 0;
  while ((INT64_C(1) << level) < leaves) level++;
  return level;
}

mg_gram_leaf mg_gram_leaf_at(const mg_gram_layout *layout, const mg_gram_group *group, int64_t leaf) {
  size_t low = 0, high = group->tensor_count;
  while (high - low > 1) { /* the last tensor whose first leaf is not behind `leaf`; empty tensors have none */
    const size_t middle = low + (high - low) / 2;
    if (group->first_leaf[middle] <= leaf)
      low = middle;
    else
      high = middle;
  }
  const size_t tensor = group->tensors[low];
  const int64_t first = (leaf - group->first_leaf[low]) * MG_LEAF;
  const int64_t left = layout->table->tensors[tensor].numel - first;
  return (mg_gram_leaf){.tensor = tensor, .first = first, .count = left < MG_LEAF ? left : MG_LEAF};
}

static const char *group_name(const mg_tensor *tensor, bool selected, mg_gram_level level) {
  if (level == MG_GRAM_TENSOR) return tensor->name;
  if (!selected) return "excluded";
  if (tensor->layer[0] == '\0') return "rest";
  return level == MG_GRAM_LAYER ? tensor->layer : "encoder";
}

static mg_gram_group *find_or_add_group(mg_gram_layout *layout, const mg_tensor *tensor, bool selected, mg_gram_level level) {
  const char *name = group_name(tensor, selected, level);
  if (level != MG_GRAM_TENSOR)
    for (size_t g = 0; g < layout->group_count; g++)
      if (strcmp(layout->groups[g].name, name) == 0 && layout->groups[g].selected == selected) return &layout->groups[g];
  mg_gram_group *group = &layout->groups[layout->group_count];
  const bool of_layer = level == MG_GRAM_TENSOR || (level == MG_GRAM_LAYER && selected);
  *group = (mg_gram_group){.name = mg_strdup(name), .layer = mg_strdup(of_layer ? tensor->layer : ""), .selected = selected};
  if (group->name == NULL || group->layer == NULL) {
    free(group->name);
    free(group->layer);
    return NULL;
  }
  layout->group_count++;
  return group;
}

static mg_status make_groups(mg_gram_layout *layout, const bool *selected, mg_gram_level level) {
  const mg_tensor_table *table = layout->table;
  layout->groups = mg_alloc_zero(table->count, sizeof *layout->groups);
  if (layout->groups == NULL) return MG_ERR_NOMEM;
  for (size_t t = 0; t < table->count; t++) {
    mg_gram_group *group = find_or_add_group(layout, &table->tensors[t], selected[t], level);
    if (group == NULL) return MG_ERR_NOMEM;
    size_t *tensors = reallocarray(group->tensors, group->tensor_count + 1, sizeof *tensors);
    if (tensors == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    group->tensors = tensors;
    group->tensors[group->tensor_count++] = t;
  }
  for (size_t g = 0; g < layout->group_count; g++) {
    mg_gram_group *group = &layout->groups[g];
    group->first_leaf = mg_alloc_zero(group->tensor_count + 1, sizeof *group->first_leaf);
    if (group->first_leaf == NULL) return MG_ERR_NOMEM;
    for (size_t k = 0; k < group->tensor_count; k++)
      group->first_leaf[k + 1] = group->first_leaf[k] + (table->tensors[group->tensors[k]].numel + MG_LEAF - 1) / MG_LEAF;
    group->leaves = group->first_leaf[group->tensor_count];
  }
  return MG_OK;
}

static mg_status make_blocks(mg_gram_layout *layout, int block_rows) {
  const int n = layout->sources;
  if (block_rows <= 0 || block_rows > n) block_rows = n;
  const int sides = (n + block_rows - 1) / block_rows;
  layout->blocks = mg_alloc_zero((size_t)sides * (size_t)(sides + 1) / 2, sizeof *layout->blocks);
  if (layout->blocks == NULL) return MG_ERR_NOMEM;
  for (int i = 0; i < sides; i++)
    for (int j = i; j < sides; j++) {
      /* sides of nearly equal length, rather than a short last one */
      layout->blocks[layout->block_count++] = (mg_pair_block){.row0 = (int)((int64_t)n * i / sides),
                                                              .row1 = (int)((int64_t)n * (i + 1) / sides),
                                                              .col0 = (int)((int64_t)n * j / sides),
                                                              .col1 = (int)((int64_t)n * (j + 1) / sides)};
    }
  return MG_OK;
}

mg_status mg_gram_layout_create(const mg_tensor_table *table, const bool *selected, int sources, mg_gram_level level,
                                int block_rows, mg_gram_layout **out) {
  mg_status status = MG_OK;
  mg_gram_layout *layout = mg_alloc_zero(1, sizeof *layout);
  if (layout == NULL) return MG_ERR_NOMEM;
  layout->table = table;
  layout->sources = sources;
  MG_TRY(make_groups(layout, selected, level), cleanup);
  MG_TRY(make_blocks(layout, block_rows), cleanup);
  *out = layout;
  layout = NULL;
cleanup:
  mg_gram_layout_free(&layout);
  return status;
}

void mg_gram_layout_free(mg_gram_layout **layout) {
  if (*layout == NULL) return;
  for (size_t g = 0; g < (*layout)->group_count; g++) {
    mg_gram_group *group = &(*layout)->groups[g];
    free(group->name);
    free(group->layer);
    free(group->tensors);
    free(group->first_leaf);
  }
  free((*layout)->groups);
  free((*layout)->blocks);
  free(*layout);
  *layout = NULL;
}

size_t mg_gram_values(const mg_gram_layout *layout, size_t index) {
  const mg_pair_block *block = &layout->blocks[index];
  const int rows = block->row1 - block->row0;
  if (mg_gram_is_triangle(block)) return mg_pair_count(rows + 1);
  return (size_t)rows * (size_t)(block->col1 - block->col0);
}

int64_t mg_gram_node_elements(const mg_gram_layout *layout, const mg_gram_node *node) {
  const mg_gram_group *group = &layout->groups[node->group];
  int64_t last = (node->index + 1) << node->level, elements = 0;
  if (last > group->leaves) last = group->leaves;
  for (int64_t leaf = node->index << node->level; leaf < last; leaf++) elements += mg_gram_leaf_at(layout, group, leaf).count;
  return elements * mg_gram_block_sources(&layout->blocks[node->block]);
}
