/* The summation tree's books: which nodes are there, and their merging upward in the one shape the tree has. */

#include <stdlib.h>
#include <string.h>

#include "gram_impl.h"
#include "mergegrid/text.h"

typedef struct part {
  struct part *next;
  unsigned level;
  int64_t index;
  double values[];
} part;

struct mg_gram_sum {
  const mg_gram_layout *layout;
  part **parts; /* [block × group]: disjoint maximal nodes, few at a time because siblings merge at once */
  mg_gram_held held;
};

static part **list_of(const mg_gram_sum *sum, size_t block, size_t group) {
  return &sum->parts[block * sum->layout->group_count + group];
}

static size_t part_bytes(size_t values) { return sizeof(part) + values * sizeof(double); }

static void note_more(mg_gram_held *held, size_t bytes) {
  held->parts++;
  held->bytes += bytes;
  if (held->parts > held->most_parts) held->most_parts = held->parts;
  if (held->bytes > held->most_bytes) held->most_bytes = held->bytes;
}

static void note_less(mg_gram_held *held, size_t bytes) {
  held->parts--;
  held->bytes -= bytes;
}

mg_gram_held mg_gram_sum_held(const mg_gram_sum *sum) { return sum->held; }

mg_status mg_gram_sum_create(const mg_gram_layout *layout, mg_gram_sum **out) {
  mg_gram_sum *sum = mg_alloc_zero(1, sizeof *sum);
  if (sum == NULL) return MG_ERR_NOMEM;
  sum->layout = layout;
  sum->parts = mg_alloc_zero(layout->block_count * layout->group_count, sizeof *sum->parts);
  if (sum->parts == NULL) {
    free(sum);
    return MG_ERR_NOMEM;
  }
  *out = sum;
  return MG_OK;
}

void mg_gram_sum_destroy(mg_gram_sum **sum) {
  if (*sum == NULL) return;
  const size_t lists = (*sum)->layout->block_count * (*sum)->layout->group_count;
  for (size_t k = 0; k < lists; k++)
    for (part *p = (*sum)->parts[k], *next; p != NULL; p = next) {
      next = p->next;
      free(p);
    }
  free((*sum)->parts);
  free(*sum);
  *sum = NULL;
}

static bool contains(unsigned level, int64_t index, unsigned inner_level, int64_t inner_index) {
  return level >= inner_level && inner_index >> (level - inner_level) == index;
}

static bool valid_node(const mg_gram_layout *layout, const mg_gram_node *node) {
  if (node->block >= layout->block_count || node->group >= layout->group_count) return false;
  const int64_t leaves = layout->groups[node->group].leaves;
  return leaves > 0 && node->level <= mg_gram_root_level(leaves) && node->index >= 0 &&
         node->index <= (leaves - 1) >> node->level;
}

void mg_gram_sum_covers(const mg_gram_sum *sum, const mg_gram_node *node, bool *covered, bool *partly) {
  *covered = *partly = false;
  for (const part *p = *list_of(sum, node->block, node->group); p != NULL; p = p->next) {
    if (contains(p->level, p->index, node->level, node->index)) *covered = true;
    if (contains(node->level, node->index, p->level, p->index)) *partly = true;
  }
}

/* Takes the node's sibling out of the list, if it is there. */
static part *take(part **list, unsigned level, int64_t index) {
  for (part **link = list; *link != NULL; link = &(*link)->next)
    if ((*link)->level == level && (*link)->index == index) {
      part *found = *link;
      *link = found->next;
      return found;
    }
  return NULL;
}

static void add_values(double *left, const double *right, size_t count) {
  for (size_t k = 0; k < count; k++) left[k] += right[k];
}

mg_status mg_gram_sum_add(mg_gram_sum *sum, const mg_gram_node *node, const double *values) {
  const mg_gram_layout *layout = sum->layout;
  bool covered, partly;
  if (!valid_node(layout, node)) return mg_fail(MG_ERR_INTERNAL, "a partial sum that is no node of this family's tree");
  mg_gram_sum_covers(sum, node, &covered, &partly);
  if (covered || partly) return mg_fail(MG_ERR_INTERNAL, "a partial sum of what was summed before");
  const size_t count = mg_gram_values(layout, node->block);
  part **list = list_of(sum, node->block, node->group);
  part *current = mg_alloc(1, part_bytes(count));
  if (current == NULL) return MG_ERR_NOMEM;
  note_more(&sum->held, part_bytes(count));
  current->level = node->level;
  current->index = node->index;
  memcpy(current->values, values, count * sizeof(double));
  const int64_t leaves = layout->groups[node->group].leaves;
  const unsigned root = mg_gram_root_level(leaves);
  while (current->level < root) {
    const int64_t sibling = current->index ^ 1;
    if (sibling << current->level < leaves) { /* else there is no right child: the left one is the parent */
      part *other = take(list, current->level, sibling);
      if (other == NULL) break;
      part *left = current->index < sibling ? current : other, *right = current->index < sibling ? other : current;
      add_values(left->values, right->values, count);
      free(right);
      note_less(&sum->held, part_bytes(count));
      current = left;
    }
    current->level++;
    current->index >>= 1;
  }
  current->next = *list;
  *list = current;
  return MG_OK;
}

typedef struct node_list {
  mg_gram_node *nodes;
  size_t count, capacity;
} node_list;

static mg_status append_node(node_list *list, const mg_gram_node *node) {
  if (list->count == list->capacity) {
    const size_t capacity = list->capacity ? 2 * list->capacity : 256;
    mg_gram_node *nodes = reallocarray(list->nodes, capacity, sizeof *nodes);
    if (nodes == NULL) return mg_fail(MG_ERR_NOMEM, "out of memory");
    list->nodes = nodes;
    list->capacity = capacity;
  }
  list->nodes[list->count++] = *node;
  return MG_OK;
}

/* Leaves of a group that are asked for. */
typedef struct leaf_span {
  int64_t first, end;
} leaf_span;

static mg_status append_missing(const mg_gram_sum *sum, mg_gram_node node, int64_t largest, leaf_span span, node_list *list) {
  mg_status status = MG_OK;
  bool covered, partly;
  const int64_t leaves = sum->layout->groups[node.group].leaves, size = INT64_C(1) << node.level;
  const int64_t begin = node.index << node.level, end = begin + size < leaves ? begin + size : leaves;
  if (begin >= leaves || end <= span.first || begin >= span.end) return MG_OK;
  mg_gram_sum_covers(sum, &node, &covered, &partly);
  if (covered) return MG_OK;
  if (!partly && size <= largest && begin >= span.first && end <= span.end) return append_node(list, &node);
  node.level--;
  node.index *= 2;
  MG_TRY(append_missing(sum, node, largest, span, list), done);
  node.index++;
  MG_TRY(append_missing(sum, node, largest, span, list), done);
done:
  return status;
}

int64_t mg_gram_leaves(const mg_gram_layout *layout) {
  int64_t leaves = 0;
  for (size_t g = 0; g < layout->group_count; g++) leaves += layout->groups[g].leaves;
  return leaves * (int64_t)layout->block_count;
}

mg_status mg_gram_sum_missing_in(const mg_gram_sum *sum, int64_t leaves, int64_t first, int64_t end, mg_gram_node **nodes,
                                 size_t *count) {
  mg_status status = MG_OK;
  node_list list = {0};
  int64_t before = 0; /* leaves of the groups that were looked at */
  for (size_t b = 0; b < sum->layout->block_count; b++)
    for (size_t g = 0; g < sum->layout->group_count; g++) {
      const int64_t group_leaves = sum->layout->groups[g].leaves;
      if (group_leaves == 0) continue; /* only empty tensors: their Gram is zero */
      const mg_gram_node root = {.block = (uint32_t)b, .group = (uint32_t)g, .level = mg_gram_root_level(group_leaves)};
      const leaf_span span = {.first = first - before, .end = end - before};
      MG_TRY(append_missing(sum, root, leaves > 0 ? leaves : 1, span, &list), cleanup);
      before += group_leaves;
    }
  *nodes = list.nodes;
  *count = list.count;
  list.nodes = NULL;
cleanup:
  free(list.nodes);
  return status;
}

mg_status mg_gram_sum_missing(const mg_gram_sum *sum, int64_t leaves, mg_gram_node **nodes, size_t *count) {
  return mg_gram_sum_missing_in(sum, leaves, 0, mg_gram_leaves(sum->layout), nodes, count);
}

static void scatter_triangle(const mg_pair_block *block, const double *values, size_t n, double *dot, double *base_dot,
                             double *base_norm2) {
  const int rows = block->row1 - block->row0;
  size_t p = 0;
  for (int i = 0; i < rows; i++) {
    const size_t row = (size_t)(block->row0 + i);
    for (int j = i; j < rows; j++, p++) {
      const size_t column = (size_t)(block->col0 + j);
      dot[row * n + column] = dot[column * n + row] = values[p];
    }
    base_dot[row] = values[p++];
  }
  *base_norm2 = values[p]; /* every diagonal block has it, each with the same bits */
}

static void scatter_rectangle(const mg_pair_block *block, const double *values, size_t n, double *dot) {
  for (int i = block->row0; i < block->row1; i++)
    for (int j = block->col0; j < block->col1; j++) {
      const double value = *values++;
      dot[(size_t)i * n + (size_t)j] = dot[(size_t)j * n + (size_t)i] = value;
    }
}

static void gather_triangle(const mg_pair_block *block, const mg_gram *gram, size_t g, double *values) {
  const int rows = block->row1 - block->row0;
  const size_t n = gram->sources;
  const double *dot = gram->dot + g * n * n;
  size_t p = 0;
  for (int i = 0; i < rows; i++) {
    const size_t row = (size_t)(block->row0 + i);
    for (int j = i; j < rows; j++) values[p++] = dot[row * n + (size_t)(block->col0 + j)];
    values[p++] = gram->base_dot[g * n + row];
  }
  values[p] = gram->base_norm2[g];
}

static void gather_rectangle(const mg_pair_block *block, const mg_gram *gram, size_t g, double *values) {
  const size_t n = gram->sources;
  for (int i = block->row0; i < block->row1; i++)
    for (int j = block->col0; j < block->col1; j++) *values++ = gram->dot[g * n * n + (size_t)i * n + (size_t)j];
}

mg_status mg_gram_sum_take(mg_gram_sum *sum, const mg_gram *gram) {
  mg_status status = MG_OK;
  const mg_gram_layout *layout = sum->layout;
  if (gram->groups != layout->group_count || gram->sources != (size_t)layout->sources)
    return mg_fail(MG_ERR_INPUT, "Grams of %zu groups and %zu sources, not %zu and %d", gram->groups, gram->sources,
                   layout->group_count, layout->sources);
  for (size_t b = 0; b < layout->block_count; b++) {
    double *values = mg_alloc(mg_gram_values(layout, b), sizeof *values);
    if (values == NULL) return MG_ERR_NOMEM;
    for (size_t g = 0; g < layout->group_count && status == MG_OK; g++) {
      const int64_t leaves = layout->groups[g].leaves;
      const mg_gram_node root = {.block = (uint32_t)b, .group = (uint32_t)g, .level = mg_gram_root_level(leaves)};
      if (leaves == 0) continue;
      if (mg_gram_is_triangle(&layout->blocks[b]))
        gather_triangle(&layout->blocks[b], gram, g, values);
      else
        gather_rectangle(&layout->blocks[b], gram, g, values);
      status = mg_gram_sum_add(sum, &root, values);
    }
    free(values);
    if (status != MG_OK) return status;
  }
  return MG_OK;
}

mg_status mg_gram_collect(mg_gram_sum *sum, mg_gram *gram) {
  const mg_gram_layout *layout = sum->layout;
  const size_t n = (size_t)layout->sources, groups = layout->group_count;
  *gram = (mg_gram){.groups = groups, .sources = n};
  gram->dot = mg_alloc_zero(groups * n, n * sizeof(double));
  gram->base_dot = mg_alloc_zero(groups * n, sizeof(double));
  gram->base_norm2 = mg_alloc_zero(groups, sizeof(double));
  if (gram->dot == NULL || gram->base_dot == NULL || gram->base_norm2 == NULL) goto out_of_memory;
  for (size_t b = 0; b < layout->block_count; b++)
    for (size_t g = 0; g < groups; g++) {
      if (layout->groups[g].leaves == 0) continue;
      part **list = list_of(sum, b, g), *root = *list;
      if (root == NULL || root->level != mg_gram_root_level(layout->groups[g].leaves)) {
        mg_gram_free(gram);
        return mg_fail(MG_ERR_INTERNAL, "the Gram of %s is not complete", layout->groups[g].name);
      }
      const mg_pair_block *block = &layout->blocks[b];
      if (mg_gram_is_triangle(block))
        scatter_triangle(block, root->values, n, gram->dot + g * n * n, gram->base_dot + g * n, gram->base_norm2 + g);
      else
        scatter_rectangle(block, root->values, n, gram->dot + g * n * n);
      *list = NULL;
      note_less(&sum->held, part_bytes(mg_gram_values(layout, b)));
      free(root);
    }
  return MG_OK;
out_of_memory:
  mg_gram_free(gram);
  return MG_ERR_NOMEM;
}

void mg_gram_free(mg_gram *gram) {
  free(gram->dot);
  free(gram->base_dot);
  free(gram->base_norm2);
  *gram = (mg_gram){0};
}
