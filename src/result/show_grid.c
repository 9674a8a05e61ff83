/* The grid for people: methods against plain similarity, the best recipe of each target, cells. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid_view_impl.h"
#include "mergegrid/log.h"
#include "mergegrid/text.h"

/* A text in so many columns, UTF-8 as it is counted by characters. */
static void print_text(const char *text, int width) {
  int columns = 0;
  for (const char *c = text; *c != '\0'; c++) columns += (*c & 0xC0) != 0x80;
  printf("%s%*s", text, columns < width ? width - columns : 0, "");
}

/* What may have several lines, in one. */
static void print_line(const char *text) {
  for (; *text != '\0'; text++) putchar(*text == '\n' ? ' ' : *text);
  putchar('\n');
}

static void print_setting(const mg_grid_table *t, const char *method, const char *parameters, int width) {
  mg_text text = {0};
  mg_setting_text(t, method, parameters, &text);
  print_text(text.data != NULL ? text.data : method, width);
  mg_text_free(&text);
}

static int setting_width(const mg_grid_table *t, const mg_result_method *methods, size_t count) {
  size_t width = sizeof "method" - 1;
  for (size_t k = 0; k < count; k++) {
    mg_text text = {0};
    mg_setting_text(t, methods[k].method, methods[k].parameters, &text);
    if (text.size > width) width = text.size;
    mg_text_free(&text);
  }
  return (int)width;
}

/* "+0.0123 [-0.0010, +0.0250]", or as many blanks. */
static void print_interval(double estimate, double low, double high) {
  if (isnan(estimate))
    printf("%26s", "");
  else
    printf("%+.4f [%+.4f, %+.4f]", estimate, low, high);
}

static void print_p(double p) {
  if (isnan(p))
    printf("%8s", "");
  else if (p < 0.0001)
    printf("%8s", "<0.0001");
  else
    printf("%8.4f", p);
}

/* ---- methods ---- */

static void print_method(const mg_grid_table *t, const mg_result_method *m, int width) {
  printf("  ");
  print_setting(t, m->method, m->parameters, width);
  printf(" %6lld", (long long)m->cells);
  if (isnan(m->accuracy))
    printf("  %8s", "");
  else
    printf("  %8.4f", m->accuracy);
  printf("   ");
  print_interval(m->delta, m->delta_low, m->delta_high);
  printf("  ");
  print_p(m->p_holm);
  if (m->pairs > 0) printf("   %lld/%lld/%lld", (long long)m->wins, (long long)m->losses, (long long)m->draws);
  if (m->failed > 0) printf("   %lld failed", (long long)m->failed);
  printf("\n");
}

static void print_methods(const mg_grid_view *v) {
  const size_t count = v->shown.method_count;
  const int width = setting_width(&v->table, v->shown.methods, count);
  const mg_result_method **sorted = mg_sorted_methods(v);
  if (sorted == NULL || count == 0) {
    free(sorted);
    return;
  }
  printf("\nmethods: mean accuracy over their cells, and the difference to plain similarity in the same cells\n");
  printf("  %-*s %6s  %8s   %-26s  %8s   %s\n", width, "method", "cells", "accuracy", "difference, 95% interval", "p (Holm)",
         "won/lost/drawn");
  for (size_t k = 0; k < count; k++) print_method(&v->table, sorted[k], width);
  free(sorted);
}

/* ---- targets ---- */

static void print_best(const mg_grid_view *v) {
  const mg_grid_table *t = &v->table;
  int width = sizeof "recipe" - 1;
  if (v->shown.best_count == 0) return;
  for (size_t k = 0; k < v->shown.best_count; k++) {
    const mg_result_cell *c = &t->cells[v->shown.best[k].cell];
    const int mine = setting_width(t, &(mg_result_method){.method = c->method, .parameters = c->parameters}, 1);
    if (mine > width) width = mine;
  }
  printf("\nbest recipe of each target: chosen on %s, reported on %s, beside the single source that is best on %s\n"
         "  (not the target's own, unless the recipe may use it)\n",
         v->select, t->partition, v->select);
  printf("  %-10s %-*s %-10s %3s  %8s   %-26s  %8s   %s\n", "target", width, "recipe", "similarity", "n", "accuracy",
         "difference, 95% interval", "p", "cell");
  for (size_t k = 0; k < v->shown.best_count; k++) {
    const mg_result_best *b = &v->shown.best[k];
    const mg_result_cell *c = &t->cells[b->cell];
    printf("  ");
    print_text(b->locale, 11);
    print_setting(t, c->method, c->parameters, width + 1);
    print_text(c->similarity_type, 11);
    printf("%3d  %8.4f   ", c->num_sources, b->accuracy);
    print_interval(b->delta_vs_best_source, b->low, b->high);
    printf("  ");
    print_p(b->p);
    printf("   %.8s\n", c->key);
  }
}

/* ---- cells ---- */

static void print_failures(const mg_grid_view *v) {
  enum { NAMED = 3 };
  size_t seen = 0;
  for (size_t k = 0; k < v->listed; k++) {
    const mg_result_cell *c = &v->table.cells[v->order[k]];
    if (strcmp(c->status, "failed") != 0 || seen++ >= NAMED) continue;
    printf("  failed: %s %s ", c->key, c->locale);
    print_setting(&v->table, c->method, c->parameters, 0);
    printf(": ");
    print_line(c->error);
  }
  if (seen > NAMED) printf("  … and %zu more (--where status=failed)\n", seen - NAMED);
}

/* How far a grid is that is still computed. What waits for its end is named, so that nobody looks for it in vain. */
static void print_incomplete(const mg_grid_view *v) {
  const size_t cells = v->table.cell_count;
  printf("not complete: %zu of %zu cells are finished so far", v->finished, v->all);
  if (v->all < cells) printf(" (not counted: %zu that this run leaves out)", cells - v->all);
  printf(
      "\nthe best recipe of each target, what methods differ by and how significant that is are known once all are finished\n");
}

void mg_grid_print(const mg_grid_view *v) {
  const mg_grid_table *t = &v->table;
  printf("\ngrid: %zu cells", t->cell_count);
  if (v->matching != t->cell_count) printf(", %zu of them match", v->matching);
  printf(": %zu completed, %zu failed, %zu planned; scored on %s, sources chosen on %s%s\n", v->counts[0], v->counts[1],
         v->counts[2], t->partition, t->selected_on_partition ? t->partition : v->select,
         t->selected_on_partition ? " (the texts they are scored on)" : "");
  if (v->incomplete) print_incomplete(v);
  print_failures(v);
  print_best(v);
  print_methods(v); /* last, since it is what is looked for */
}

void mg_grid_print_cells(const mg_grid_view *v, size_t most) {
  const mg_grid_table *t = &v->table;
  const size_t shown = most < v->listed ? most : v->listed;
  int width = sizeof "method" - 1;
  for (size_t k = 0; k < shown; k++) {
    const mg_result_cell *c = &t->cells[v->order[k]];
    const int mine = setting_width(t, &(mg_result_method){.method = c->method, .parameters = c->parameters}, 1);
    if (mine > width) width = mine;
  }
  printf("\n%-16s %-10s %-*s %-10s %3s  %8s  %8s  %s\n", "cell", "target", width, "method", "similarity", "n", "accuracy",
         "delta", "sources");
  for (size_t k = 0; k < shown; k++) {
    const mg_result_cell *c = &t->cells[v->order[k]];
    printf("%-16s ", c->key);
    print_text(c->locale, 11);
    print_setting(t, c->method, c->parameters, width + 1);
    print_text(c->similarity_type, 11);
    printf("%3d  ", c->num_sources);
    if (isnan(c->accuracy))
      printf("%8s  ", c->status);
    else
      printf("%8.4f  ", c->accuracy);
    if (isnan(c->delta_vs_similarity))
      printf("%8s", "");
    else
      printf("%+8.4f", c->delta_vs_similarity);
    printf("  %s\n", c->sources);
  }
  if (shown < v->listed) printf("… and %zu more (--top)\n", v->listed - shown);
}

mg_status mg_grid_print_csv(const mg_grid_view *v, size_t most) {
  mg_text text = {0};
  mg_cell_csv_names(&text, &v->table.swept);
  mg_text_append(&text, "\n");
  for (size_t k = 0; k < v->listed && k < most; k++) {
    mg_cell_csv(&text, &v->table, v->order[k], &v->table.swept);
    mg_text_append(&text, "\n");
  }
  const mg_status status = text.failed ? mg_fail(MG_ERR_NOMEM, "out of memory") : MG_OK;
  if (status == MG_OK) fputs(text.data, stdout);
  /* a table of rows has no place to say so itself */
  if (v->incomplete) mg_info("note: not complete: %zu of %zu cells are finished so far", v->finished, v->all);
  mg_text_free(&text);
  return status;
}
