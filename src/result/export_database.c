/*
 * experiments.db: the tables of merginguriel's experiment tracking, so that its queries run on a grid. Made beside its place
 * and renamed when whole.
 */

#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "export_grid_impl.h"
#include "mergegrid/io.h"
#include "mergegrid/log.h"

static const char SCHEMA[] =
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
    "CREATE TABLE experiments (id INTEGER PRIMARY KEY AUTOINCREMENT, ablation_name TEXT, started_at TEXT, completed_at TEXT,"
    " locale TEXT NOT NULL, method TEXT NOT NULL, similarity_type TEXT, num_languages INTEGER, include_target INTEGER,"
    " model_family TEXT, experiment_type TEXT DEFAULT 'merging', accuracy REAL, status TEXT DEFAULT 'planned', results_dir "
    "TEXT,"
    " error_message TEXT, config_json TEXT, notes TEXT, created_at TEXT DEFAULT CURRENT_TIMESTAMP);"
    "CREATE INDEX idx_locale ON experiments(locale); CREATE INDEX idx_method ON experiments(method);"
    "CREATE INDEX idx_status ON experiments(status); CREATE INDEX idx_ablation ON experiments(ablation_name);"
    "CREATE INDEX idx_experiment_type ON experiments(experiment_type);"
    "CREATE TABLE layer_ablation (id INTEGER PRIMARY KEY AUTOINCREMENT, ablation_name TEXT NOT NULL, holdout_locale TEXT NOT "
    "NULL,"
    " remaining_sources TEXT, ablation_point TEXT NOT NULL, exclude_layers TEXT, best_source_locale TEXT,"
    " best_source_accuracy REAL, accuracy REAL, baseline_accuracy REAL, delta REAL, transfer_interpretation TEXT,"
    " status TEXT DEFAULT 'planned', error_message TEXT, started_at TEXT, completed_at TEXT, config_json TEXT,"
    " created_at TEXT DEFAULT CURRENT_TIMESTAMP);"
    "CREATE INDEX idx_layer_ablation_name ON layer_ablation(ablation_name);"
    "CREATE INDEX idx_layer_holdout ON layer_ablation(holdout_locale);"
    "CREATE INDEX idx_layer_point ON layer_ablation(ablation_point);"
    "CREATE INDEX idx_layer_status ON layer_ablation(status);";

static const char INSERT_EXPERIMENT[] =
    "INSERT INTO experiments (ablation_name, started_at, completed_at, locale, method, similarity_type, num_languages,"
    " include_target, model_family, experiment_type, accuracy, status, results_dir, error_message, config_json, notes, "
    "created_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

static const char INSERT_LAYERS[] =
    "INSERT INTO layer_ablation (ablation_name, holdout_locale, remaining_sources, ablation_point, exclude_layers,"
    " best_source_locale, best_source_accuracy, accuracy, baseline_accuracy, delta, transfer_interpretation, status,"
    " error_message, started_at, completed_at, config_json, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
    "?, ?)";

typedef struct database {
  const char *path;
  sqlite3 *db;
  sqlite3_stmt *experiment, *layers;
} database;

static mg_status refused(const database *d) {
  return mg_fail(MG_ERR_IO, "%s: %s", d->path, d->db != NULL ? sqlite3_errmsg(d->db) : "SQLite can't make it");
}

static mg_status check(const database *d, int code) { return code == SQLITE_OK ? MG_OK : refused(d); }

/* ---- a row: values are bound one after another ---- */

typedef struct row {
  sqlite3_stmt *statement;
  int next;
} row;

static void put_text(row *r, const char *text) {
  if (text == NULL || text[0] == '\0')
    sqlite3_bind_null(r->statement, r->next++);
  else
    sqlite3_bind_text(r->statement, r->next++, text, -1, SQLITE_TRANSIENT);
}

static void put_number(row *r, double number) {
  if (isnan(number))
    sqlite3_bind_null(r->statement, r->next++);
  else
    sqlite3_bind_double(r->statement, r->next++, number);
}

static void put_whole(row *r, int number) { sqlite3_bind_int(r->statement, r->next++, number); }

static void put_json(row *r, json_t *json) {
  char *text = json_dumps(json, 0);
  put_text(r, text);
  free(text);
  json_decref(json);
}

static mg_status insert(const database *d, row *r) {
  const bool done = sqlite3_step(r->statement) == SQLITE_DONE;
  const mg_status status = done ? MG_OK : refused(d);
  sqlite3_reset(r->statement);
  return status;
}

/* A study is a phase of the grid; without phases it is the result: its name without directory and ending. */
static void put_study(row *r, const mg_export_result *result, const mg_result_cell *c) {
  const char *slash = strrchr(result->path, '/'), *name = slash != NULL ? slash + 1 : result->path;
  const size_t length = strlen(name);
  const bool ending = length > 3 && strcmp(name + length - 3, ".h5") == 0;
  if (c->phase[0] != '\0')
    put_text(r, c->phase);
  else
    sqlite3_bind_text(r->statement, r->next++, name, (int)(ending ? length - 3 : length), SQLITE_TRANSIENT);
}

static mg_status insert_experiment(const database *d, const mg_export_result *result, size_t cell) {
  const mg_result_cell *c = &result->view.table.cells[cell];
  const bool planned = strcmp(c->status, "planned") == 0;
  row r = {d->experiment, 1};
  put_study(&r, result, c);
  put_text(&r, planned ? "" : result->m.started);
  put_text(&r, planned ? "" : result->m.finished);
  put_text(&r, c->locale);
  put_text(&r, c->method);
  put_text(&r, c->similarity_type);
  put_whole(&r, c->num_languages);
  put_whole(&r, c->include_target);
  put_text(&r, mg_export_family(result));
  put_text(&r, result->types.items[cell]);
  put_number(&r, c->accuracy);
  put_text(&r, c->status);
  put_text(&r, result->folders.items[cell]);
  put_text(&r, c->error);
  put_text(&r, c->terms);
  put_text(&r, c->note);
  put_text(&r, result->m.finished);
  return insert(d, &r);
}

/* ---- cells that leave layers out ---- */

static const char *const LAYER_METHODS[] = {"exclude_layers", "include_layers", "layer_swap"};

static bool is_layer_study(const char *method) {
  for (size_t k = 0; k < sizeof LAYER_METHODS / sizeof *LAYER_METHODS; k++)
    if (strcmp(method, LAYER_METHODS[k]) == 0) return true;
  return false;
}

/* The whole numbers in a parameter `layers`, however it is written; of none an empty list. */
static json_t *layers_of(const mg_result_cell *c) {
  json_t *parameters = json_loads(c->parameters, 0, NULL), *layers = json_array();
  char *text = json_dumps(json_object_get(parameters, "layers"), JSON_ENCODE_ANY);
  for (char *at = text; at != NULL && *at != '\0';) {
    char *end = at + 1;
    if (*at >= '0' && *at <= '9') json_array_append_new(layers, json_integer(strtoll(at, &end, 10)));
    at = end;
  }
  free(text);
  json_decref(parameters);
  return layers;
}

/* Of the encoder's layers those that are not in the list, which is released. */
static json_t *other_layers(const mg_export_result *result, json_t *some) {
  json_int_t count = 0;
  json_t *others = json_array();
  for (size_t k = 0; k < result->m.layers.count; k++) { /* "roberta.encoder.layer.11" */
    const char *dot = strrchr(result->m.layers.items[k], '.');
    const json_int_t number = dot != NULL ? strtoll(dot + 1, NULL, 10) : 0;
    if (number >= count) count = number + 1;
  }
  for (json_int_t layer = 0; layer < count; layer++) {
    bool among = false;
    for (size_t k = 0; k < json_array_size(some); k++) among = among || json_integer_value(json_array_get(some, k)) == layer;
    if (!among) json_array_append_new(others, json_integer(layer));
  }
  json_decref(some);
  return others;
}

static bool keeps_best(const mg_result_cell *c) {
  json_t *parameters = json_loads(c->parameters, 0, NULL);
  const char *elsewhere = json_string_value(json_object_get(parameters, "elsewhere"));
  const bool best = elsewhere != NULL && strcmp(elsewhere, "best_source") == 0;
  json_decref(parameters);
  return best;
}

/* "exclude_layer_5"; of twelve layers the lower, middle and upper four are groups; otherwise the numbers. */
static void append_point(mg_text *point, const char *method, const json_t *layers) {
  static const char *const groups[] = {"bottom", "middle", "top"};
  const size_t count = json_array_size(layers);
  const json_int_t first = json_integer_value(json_array_get(layers, 0));
  bool run = count == 4 && first % 4 == 0 && first < 12;
  for (size_t k = 0; k < count; k++) run = run && json_integer_value(json_array_get(layers, k)) == first + (json_int_t)k;
  const char *verb = strcmp(method, "include_layers") == 0 ? "include" : strcmp(method, "layer_swap") == 0 ? "swap" : "exclude";
  mg_text_append(point, run ? "%s_group" : count == 1 ? "%s_layer" : "%s_layers", verb);
  if (run) mg_text_append(point, "_%s", groups[first / 4]);
  for (size_t k = 0; !run && k < count; k++)
    mg_text_append(point, "_%lld", (long long)json_integer_value(json_array_get(layers, k)));
}

/* Leaving layers out costs where they help: their transfer is positive. */
static const char *interpret(double delta) {
  const double neutral = 0.005;
  if (isnan(delta)) return "";
  return delta < -neutral ? "positive_transfer" : delta > neutral ? "interference" : "neutral";
}

static mg_status insert_layers(const database *d, const mg_export_result *result, size_t cell) {
  const mg_grid_table *t = &result->view.table;
  const mg_result_cell *c = &t->cells[cell];
  const double baseline = c->matched >= 0 ? t->cells[c->matched].accuracy : NAN;
  const bool planned = strcmp(c->status, "planned") == 0;
  double accuracy;
  const ptrdiff_t best = mg_export_best(result, cell, false, &accuracy);
  json_t *layers = layers_of(c);
  mg_text point = {0};
  row r = {d->layers, 1};
  append_point(&point, c->method, layers);
  if (strcmp(c->method, "include_layers") == 0) {
    if (keeps_best(c)) mg_text_append(&point, "_on_best_source");
    layers = other_layers(result, layers); /* the column is about those that are left out */
  }
  put_study(&r, result, c);
  put_text(&r, c->locale);
  put_json(&r, mg_export_sources(result, cell, false));
  put_text(&r, point.data);
  put_json(&r, layers);
  put_text(&r, best >= 0 ? result->m.locales.items[best] : "");
  put_number(&r, accuracy);
  put_number(&r, c->accuracy);
  put_number(&r, baseline);
  put_number(&r, c->accuracy - baseline);
  put_text(&r, interpret(c->accuracy - baseline));
  put_text(&r, c->status);
  put_text(&r, c->error);
  put_text(&r, planned ? "" : result->m.started);
  put_text(&r, planned ? "" : result->m.finished);
  put_text(&r, c->terms);
  put_text(&r, result->m.finished);
  mg_text_free(&point);
  return insert(d, &r);
}

/* ---- the file ---- */

static mg_status fill(database *d, const mg_export *export) {
  mg_status status = MG_OK;
  MG_TRY(check(d, sqlite3_open(d->path, &d->db)), done);
  MG_TRY(check(d, sqlite3_exec(d->db, SCHEMA, NULL, NULL, NULL)), done);
  MG_TRY(check(d, sqlite3_prepare_v2(d->db, INSERT_EXPERIMENT, -1, &d->experiment, NULL)), done);
  MG_TRY(check(d, sqlite3_prepare_v2(d->db, INSERT_LAYERS, -1, &d->layers, NULL)), done);
  MG_TRY(check(d, sqlite3_exec(d->db, "BEGIN", NULL, NULL, NULL)), done);
  for (size_t k = 0; k < export->count; k++) {
    const mg_export_result *r = &export->results[k];
    for (size_t c = 0; c < r->view.table.cell_count; c++) {
      MG_TRY(insert_experiment(d, r, c), done);
      if (is_layer_study(r->view.table.cells[c].method)) MG_TRY(insert_layers(d, r, c), done);
    }
  }
  MG_TRY(check(d, sqlite3_exec(d->db, "COMMIT", NULL, NULL, NULL)), done);
done:
  sqlite3_finalize(d->experiment);
  sqlite3_finalize(d->layers);
  if (sqlite3_close(d->db) != SQLITE_OK && status == MG_OK) status = refused(d);
  return status;
}

mg_status mg_export_database(const char *dir, const mg_export *export) {
  mg_status status = MG_OK;
  char *path = mg_path_join(dir, "experiments.db"), *temporary = NULL;
  if (path == NULL || asprintf(&temporary, "%s.tmp.%d", path, (int)getpid()) < 0) {
    free(path);
    return mg_fail(MG_ERR_NOMEM, "out of memory");
  }
  database d = {.path = temporary};
  unlink(temporary);
  MG_TRY(fill(&d, export), cleanup);
  MG_TRY(mg_sync_file(temporary), cleanup);
  if (rename(temporary, path) != 0) {
    status = mg_fail_errno(MG_ERR_IO, "%s", path);
    goto cleanup;
  }
  MG_TRY(mg_sync_dir(dir), cleanup);
  mg_info("wrote %s", path);
cleanup:
  unlink(temporary);
  free(temporary);
  free(path);
  return status;
}
