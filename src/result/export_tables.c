/* Methods against plain similarity, as tables for papers and pages: Markdown and LaTeX. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export_grid_impl.h"

static void append_rounded(mg_text *text, const char *format, double value, const char *none) {
  char number[32];
  snprintf(number, sizeof number, format, value);
  mg_text_append(text, "%s", isnan(value) ? none : number);
}

static void append_p(mg_text *text, double p, const char *below, const char *none) {
  if (p < 0.0001)
    mg_text_append(text, "%s", below);
  else
    append_rounded(text, "%.4f", p, none);
}

static void append_setting(mg_text *text, const mg_grid_table *t, const mg_result_method *m, const char *special) {
  mg_text setting = {0};
  mg_setting_text(t, m->method, m->parameters, &setting);
  for (const char *c = setting.data != NULL ? setting.data : ""; *c != '\0'; c++)
    mg_text_append(text, strchr(special, *c) != NULL ? "\\%c" : "%c", *c);
  mg_text_free(&setting);
}

/* ---- Markdown ---- */

static void append_markdown(mg_text *text, const mg_export_result *r) {
  const mg_grid_view *v = &r->view;
  const mg_result_method **methods = mg_sorted_methods(v);
  if (methods == NULL) {
    text->failed = true;
    return;
  }
  mg_text_append(
      text,
      "\n## %s\n\n%zu cells (%zu completed, %zu failed, %zu planned), scored on %s, sources chosen on %s. The difference "
      "is to plain similarity in the same cells, over all texts.\n\n",
      r->path, v->table.cell_count, v->counts[0], v->counts[1], v->counts[2], v->table.partition,
      v->table.selected_on_partition ? v->table.partition : v->select);
  mg_text_append(text, "| method | cells | accuracy | difference | 95%% interval | p (Holm) | wins | losses | draws |\n"
                       "| :-- | --: | --: | --: | :-: | --: | --: | --: | --: |\n");
  for (size_t k = 0; k < v->shown.method_count; k++) {
    const mg_result_method *m = methods[k];
    mg_text_append(text, "| ");
    append_setting(text, &v->table, m, "|\\`*");
    mg_text_append(text, " | %lld | ", (long long)m->cells);
    append_rounded(text, "%.4f", m->accuracy, "");
    mg_text_append(text, " | ");
    append_rounded(text, "%+.4f", m->delta, "");
    mg_text_append(text, " | ");
    if (!isnan(m->delta)) mg_text_append(text, "[%+.4f, %+.4f]", m->delta_low, m->delta_high);
    mg_text_append(text, " | ");
    append_p(text, m->p_holm, "< 0.0001", "");
    mg_text_append(text, " | %lld | %lld | %lld |\n", (long long)m->wins, (long long)m->losses, (long long)m->draws);
  }
  free(methods);
}

/* ---- LaTeX ---- */

static void append_latex(mg_text *text, const mg_export_result *r) {
  const mg_grid_view *v = &r->view;
  const mg_result_method **methods = mg_sorted_methods(v);
  if (methods == NULL) {
    text->failed = true;
    return;
  }
  mg_text_append(text, "\n%% %s, scored on %s\n\\begin{tabular}{lrrrcrl}\n\\toprule\n", r->path, v->table.partition);
  mg_text_append(text,
                 "Method & Cells & Accuracy & $\\Delta$ & 95\\%% interval & $p$ (Holm) & Won/lost/drawn \\\\\n\\midrule\n");
  for (size_t k = 0; k < v->shown.method_count; k++) {
    const mg_result_method *m = methods[k];
    append_setting(text, &v->table, m, "_%&#${}");
    mg_text_append(text, " & %lld & ", (long long)m->cells);
    append_rounded(text, "%.4f", m->accuracy, "--");
    mg_text_append(text, " & ");
    append_rounded(text, "$%+.4f$", m->delta, "--");
    mg_text_append(text, " & ");
    if (isnan(m->delta))
      mg_text_append(text, "--");
    else
      mg_text_append(text, "$[%+.4f, %+.4f]$", m->delta_low, m->delta_high);
    mg_text_append(text, " & ");
    append_p(text, m->p_holm, "$<0.0001$", "--");
    if (m->pairs > 0)
      mg_text_append(text, " & %lld/%lld/%lld \\\\\n", (long long)m->wins, (long long)m->losses, (long long)m->draws);
    else
      mg_text_append(text, " & -- \\\\\n");
  }
  mg_text_append(text, "\\bottomrule\n\\end{tabular}\n");
  free(methods);
}

mg_status mg_export_tables(const char *dir, const mg_export *export) {
  mg_status status = MG_OK;
  mg_text markdown = {0}, latex = {0};
  mg_text_append(&markdown, "# Merge methods compared\n");
  mg_text_append(&latex, "%% Merge methods compared; needs \\usepackage{booktabs}.\n");
  for (size_t r = 0; r < export->count; r++) {
    append_markdown(&markdown, &export->results[r]);
    append_latex(&latex, &export->results[r]);
  }
  MG_TRY(mg_export_text(dir, "comparison.md", &markdown), cleanup);
  MG_TRY(mg_export_text(dir, "comparison.tex", &latex), cleanup);
cleanup:
  mg_text_free(&markdown), mg_text_free(&latex);
  return status;
}
