/* The one table of verbs and options: parser and help are read from it. */

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_impl.h"
#include "mergegrid/config.h"

#define OF(verb)      (1u << MG_VERB_##verb)
#define OF_CONFIGURED (OF(PACK) | OF(PLAN) | OF(RUN) | OF(GATHER))
#define OF_ALL        (OF(INIT) | OF_CONFIGURED | OF(MERGE) | OF(SHOW) | OF(EXPLAIN) | OF(SEARCH) | OF(EXPORT) | OF(VERIFY) | OF(DIFF))

typedef enum option_kind { FLAG, TEXT, LIST, COUNT, PART, HOURS, LAYOUT } option_kind;

typedef struct option {
  const char *name;
  char letter; /* 0: none */
  option_kind kind;
  size_t field;
  unsigned verbs;
  const char *value, *help;
} option;

static const option OPTIONS[] = {
    {"config", 'c', TEXT, offsetof(mg_command, config), OF_CONFIGURED, "FILE", "the configuration (YAML); required"},
    {"config", 'c', TEXT, offsetof(mg_command, config), OF(MERGE), "FILE", "the configuration (YAML) whose recipe is merged"},
    {"set", 0, LIST, offsetof(mg_command, settings), OF_CONFIGURED, "KEY=VALUE",
     "replaces a value of the configuration (repeatable); VALUE in YAML"},
    {"set", 0, LIST, offsetof(mg_command, settings), OF(MERGE), "KEY=VALUE",
     "replaces a value of the configuration, FILE's or RESULT's (whose paths are then relative to here); repeatable"},
    {"rehash", 0, FLAG, offsetof(mg_command, rehash), OF(PACK), NULL,
     "compare contents even where no file changed by size, time and inode"},
    {"ranks", 'n', COUNT, offsetof(mg_command, ranks), OF(PLAN), "RANKS", "plan for this many ranks (default 1)"},
    {"stages", 0, LIST, offsetof(mg_command, stages), OF(RUN) | OF(GATHER), "STAGE",
     "only this stage of the configuration's (repeatable)"},
    {"resume", 0, FLAG, offsetof(mg_command, resume), OF(RUN), NULL, "only continue: fail if nothing was begun"},
    {"fresh", 0, FLAG, offsetof(mg_command, fresh), OF(RUN), NULL, "start over: removes the result and its journal"},
    {"part", 0, PART, offsetof(mg_command, part), OF(RUN), "I/N",
     "compute only the I-th of N shares, into RESULT.part-I-of-N.*; gather then writes the result"},
    {"part", 0, PART, offsetof(mg_command, part), OF(PLAN), "I/N",
     "also what the I-th of N parts of a divided run takes, and which part takes longest"},
    {"parts", 0, COUNT, offsetof(mg_command, parts), OF(GATHER), "N",
     "how many parts there are (default: as many as are found)"},
    {"compute-missing", 0, FLAG, offsetof(mg_command, compute_missing), OF(GATHER), NULL,
     "compute here what the parts have not (default: name those that lack something, exit code 75)"},
    {"max-hours", 0, HOURS, offsetof(mg_command, max_hours), OF(RUN) | OF(GATHER), "H",
     "stop cleanly after H hours (exit code 75; run again to continue)"},
    {"locale", 0, TEXT, offsetof(mg_command, locale), OF(SEARCH), "TARGET",
     "the target that sources are searched for; required"},
    {"num-languages", 'k', COUNT, offsetof(mg_command, num_languages), OF(SEARCH), "K", "sources of a subset; required"},
    {"similarity", 0, TEXT, offsetof(mg_command, similarity), OF(SEARCH), "NAME|CSV|nxn",
     "a matrix of the result's grid (default: its first), a file, or the accuracies on the texts sources are chosen by"},
    {"candidates", 0, COUNT, offsetof(mg_command, candidates), OF(SEARCH), "N", "only the N most similar sources"},
    {"include-target", 0, FLAG, offsetof(mg_command, include_target), OF(SEARCH), NULL, "the target's own source may be one"},
    {"weights", 0, TEXT, offsetof(mg_command, weights), OF(SEARCH), "similarity|equal",
     "what task vectors are weighed by in a merge (default similarity)"},
    {"by", 0, LIST, offsetof(mg_command, by), OF(SEARCH), "SCORE",
     "list the best by similarity, compatibility, cka or interference (repeatable; default: each)"},
    {"top", 0, COUNT, offsetof(mg_command, top), OF(SEARCH), "N", "subsets a list (default 5, of one list alone 20)"},
    {"max-hours", 0, HOURS, offsetof(mg_command, max_hours), OF(SEARCH), "H",
     "refuse what would take longer, by the rate measured (default 1)"},
    {"csv", 0, FLAG, offsetof(mg_command, csv), OF(SEARCH), NULL, "print CSV"},
    {"csv", 0, FLAG, offsetof(mg_command, csv), OF(SHOW), NULL, "print the cells as CSV, with all their columns"},
    {"yaml", 0, FLAG, offsetof(mg_command, yaml), OF(SEARCH), NULL, "print a section grid that sweeps the subsets listed"},
    {"where", 0, TEXT, offsetof(mg_command, where), OF(RUN) | OF(GATHER) | OF(SHOW), "COLUMN=VALUE,...",
     "only cells of the grid that match: method=ties|average,locale=sw-KE"},
    {"sort", 0, TEXT, offsetof(mg_command, sort), OF(SHOW), "COLUMN", "cells by a column, falling with - in front: -accuracy"},
    {"top", 0, COUNT, offsetof(mg_command, top), OF(SHOW), "N",
     "cells to list (default 20, in JSON and CSV all), the most accurate first; without a grid: closest and farthest pairs "
     "(default 5)"},
    {"cell", 0, LIST, offsetof(mg_command, cells), OF(EXPLAIN) | OF(MERGE), "KEY",
     "a cell's key, or a prefix that no other cell's has"},
    {"best", 0, TEXT, offsetof(mg_command, best), OF(MERGE), "COLUMN=VALUE,...",
     "the merge that is most accurate on the texts recipes are chosen by: locale=sw-KE,method=ties; no baseline, no vote"},
    {"top", 0, COUNT, offsetof(mg_command, top), OF(DIFF), "N", "changes to list (default 10), least p first"},
    {"json", 0, FLAG, offsetof(mg_command, json), OF(PLAN) | OF(SHOW) | OF(SEARCH) | OF(DIFF), NULL, "print JSON"},
    {"output", 'o', TEXT, offsetof(mg_command, output), OF(EXPORT) | OF(MERGE), "DIR", "where to write; required"},
    {"layout", 0, LAYOUT, offsetof(mg_command, merginguriel), OF(EXPORT), "flat|merginguriel",
     "merginguriel: in the folders where the Python tools look"},
    {"base", 0, TEXT, offsetof(mg_command, base), OF(INIT), "DIR",
     "the base checkpoint; required, as --sources, without --from"},
    {"sources", 0, TEXT, offsetof(mg_command, sources), OF(INIT), "PATTERN",
     "the sources' directories, with {locale} for what differs"},
    {"from", 0, TEXT, offsetof(mg_command, from), OF(INIT), "ABLATION.yaml",
     "an ablation file of merginguriel's, as the section grid"},
    {"similarity", 0, TEXT, offsetof(mg_command, similarity), OF(INIT), "CSV",
     "a similarity matrix, to see which of its labels have no checkpoint"},
    {"texts", 0, TEXT, offsetof(mg_command, texts), OF(INIT), "PATTERN",
     "text files, with {locale}, to see which have no checkpoint"},
    {"quiet", 'q', FLAG, offsetof(mg_command, quiet), OF_ALL, NULL, "no progress, no notes; warnings and errors only"},
    {"verbose", 'v', FLAG, offsetof(mg_command, verbose), OF_ALL, NULL, "say more"},
};

typedef struct verb {
  const char *name, *arguments, *summary;
  int least_files, most_files;
} verb;

static const verb VERBS[MG_VERB_COUNT] = {
    [MG_VERB_HELP] = {"help", "[COMMAND | config | methods]",
                      "this text, a command's options, the configuration's keys, or the merge methods", 0, 1},
    [MG_VERB_VERSION] = {"version", "", "version, build, backends built in and usable here", 0, 0},
    [MG_VERB_INIT] = {"init", "--base DIR --sources PATTERN",
                      "print a commented run.yaml for what is there, or for an ablation file", 0, 0},
    [MG_VERB_PACK] = {"pack", "-c run.yaml", "checkpoints to shards", 0, 0},
    [MG_VERB_PLAN] = {"plan", "-c run.yaml", "bytes, FLOPs, memory and hours of a run; refuses what cannot fit", 0, 0},
    [MG_VERB_RUN] = {"run", "-c run.yaml", "pack what is missing, run the stages; continues what was interrupted", 0, 0},
    [MG_VERB_GATHER] = {"gather", "-c run.yaml", "write the result of a run that was divided with run --part", 0, 0},
    [MG_VERB_MERGE] = {"merge", "-c run.yaml | RESULT -o DIR",
                       "write a recipe, or a result's cell (--cell, --best), as a checkpoint", 0, 1},
    [MG_VERB_SHOW] = {"show", "RESULT", "print what a result holds, or what a run under way has finished so far", 1, 1},
    [MG_VERB_EXPLAIN] = {"explain", "RESULT --cell KEY [KEY]", "how a cell came about, with numbers; or why two cells differ",
                         1, 3},
    [MG_VERB_SEARCH] = {"search", "RESULT --locale TARGET -k K", "score every subset of K sources from the result's matrices",
                        1, 1},
    [MG_VERB_EXPORT] = {"export", "RESULT... -o DIR", "write CSV, JSON and SQLite files of the Python tools, and tables", 1,
                        1 << 30},
    [MG_VERB_DIFF] = {"diff", "OLD NEW", "what changed between two results, and which accuracies beyond paired noise", 2, 2},
    [MG_VERB_VERIFY] = {"verify", "FILE|DIR...", "check shards and results against their checksums", 1, 1 << 30},
};

enum { OPTION_COUNT = sizeof OPTIONS / sizeof *OPTIONS };

/* ---- help ---- */

static void print_options(unsigned verbs, FILE *out) {
  for (size_t k = 0; k < OPTION_COUNT; k++) {
    const option *o = &OPTIONS[k];
    char left[64];
    if ((o->verbs & verbs) == 0) continue;
    snprintf(left, sizeof left, "%c%c%s--%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ', o->letter ? ", " : "  ",
             o->name, o->value ? " " : "", o->value ? o->value : "");
    fprintf(out, "  %-34s %s\n", left, o->help);
  }
  fprintf(out, "  %-34s %s\n", "    --help", "this text");
}

static const char THEIRS[] =
    "\nThe numbers of merginguriel: `preset: merginguriel` says how sources are chosen, what a merge starts from, the head, "
    "and\n"
    "lambda_rule. Parameters of methods stay at the defaults above, of which these are others there:\n"
    "  ties                     {ties: {trim: global, zeros: majority}}\n"
    "  ties, dare_drop_rate p   {ties: {trim: global, zeros: majority, dare_drop_rate: p}}\n"
    "  task_arithmetic, p       {task_arithmetic: {dare_drop_rate: p}}\n"
    "  slerp                    {slerp: {share: merginguriel}}\n"
    "  regmean                  similarity, which is what it computed\n"
    "Nothing brings back what was drawn at random (the heads of ties, task_arithmetic and slerp, without a seed; what DARE "
    "drops),\n"
    "evaluation in bf16, and votes that count the target's own source as 1 before weights are scaled.\n";

void mg_command_help(const mg_command *command, FILE *out) {
  if (command->help_config) {
    fputs("Keys of the configuration (YAML); paths are relative to the file.\n\n", out);
    mg_config_help(out);
    return;
  }
  if (command->help_methods) {
    fputs("Methods and their parameters, as in `recipe: {method: {ties: {density: 0.2}}, sources: {fr-FR: 0.5, sw-KE: "
          "0.5}}`.\n\n",
          out);
    mg_method_help(out);
    fputs(THEIRS, out);
    return;
  }
  if (command->help_of != MG_VERB_HELP) {
    const verb *v = &VERBS[command->help_of];
    fprintf(out, "mergegrid %s %s\n%s\n\n", v->name, v->arguments, v->summary);
    print_options(1u << command->help_of, out);
    return;
  }
  fputs("mergegrid measures which fine-tuned models merge well: checkpoints in, one HDF5 result out.\n\nusage:\n", out);
  for (int k = 0; k < MG_VERB_COUNT; k++) {
    char left[64];
    snprintf(left, sizeof left, "mergegrid %s %s", VERBS[k].name, VERBS[k].arguments);
    fprintf(out, "  %-48s %s\n", left, VERBS[k].summary);
  }
  fputs("\npack, run and gather work alone or under mpirun and srun. Options of a command: mergegrid COMMAND --help; keys of "
        "the\n"
        "configuration: mergegrid --help config.\n\n"
        "exit codes: 0 done; 1 a failure that repeating will not mend; 2 usage; 3 finished, some cells, setups or\n"
        "            sources on targets failed; 75 stopped on a signal or a budget, or parts are missing: run again.\n"
        "            RESULT.state says the same in its first line.\n",
        out);
}

/* ---- parsing ---- */

static mg_status usage(const mg_command *command, const char *what, const char *word) {
  const char *verb_name = command->verb != MG_VERB_HELP ? VERBS[command->verb].name : NULL;
  return mg_fail(MG_ERR_USAGE, "%s%s%s; see mergegrid %s%s--help", what, word ? " " : "", word ? word : "",
                 verb_name ? verb_name : "", verb_name ? " " : "");
}

static mg_status unknown_option(const mg_command *command, const char *name) {
  const char *names[OPTION_COUNT];
  size_t count = 0;
  for (size_t k = 0; k < OPTION_COUNT; k++)
    if (OPTIONS[k].verbs & (1u << command->verb)) names[count++] = OPTIONS[k].name;
  const char *nearest = mg_nearest(name, names, count);
  return mg_fail(MG_ERR_USAGE, "mergegrid %s has no option --%s%s%s%s; see mergegrid %s --help", VERBS[command->verb].name,
                 name, nearest ? " (--" : "", nearest ? nearest : "", nearest ? " is meant?)" : "", VERBS[command->verb].name);
}

static mg_status parse_count(const option *o, const char *value, int64_t *out) {
  char *end = NULL, letter[] = {' ', '(', '-', o->letter, ')', '\0'};
  errno = 0;
  const long long number = strtoll(value, &end, 10);
  if (errno != 0 || end == value || *end != '\0' || number < 1 || number > 1000000)
    return mg_fail(MG_ERR_USAGE, "--%s%s: '%s' is not a whole number from 1 to 1000000", o->name, o->letter ? letter : "",
                   value);
  *out = number;
  return MG_OK;
}

/* "2/3" */
static mg_status parse_part(const option *o, const char *value, int64_t part[2]) {
  int first = 0, all = 0, end = 0;
  if (sscanf(value, "%7d/%7d%n", &first, &all, &end) != 2 || value[end] != '\0' || first < 1 || first > all || all > 1000000)
    return mg_fail(MG_ERR_USAGE, "--%s: '%s' is not I/N, the I-th part of N, as 2/3", o->name, value);
  part[0] = first;
  part[1] = all;
  return MG_OK;
}

static mg_status parse_hours(const option *o, const char *value, double *out) {
  char *end = NULL;
  const double number = strtod(value, &end);
  if (end == value || *end != '\0' || !(number > 0) || isinf(number))
    return mg_fail(MG_ERR_USAGE, "--%s: '%s' is not a number of hours above 0", o->name, value);
  *out = number;
  return MG_OK;
}

static mg_status set_option(mg_command *command, const option *o, const char *value) {
  void *field = (char *)command + o->field;
  switch (o->kind) {
  case FLAG:
    *(bool *)field = true;
    return MG_OK;
  case TEXT:
    free(*(char **)field);
    *(char **)field = mg_strdup(value);
    return *(char **)field != NULL ? MG_OK : MG_ERR_NOMEM;
  case LIST:
    return mg_strings_add(field, value);
  case COUNT:
    return parse_count(o, value, field);
  case PART:
    return parse_part(o, value, field);
  case HOURS:
    return parse_hours(o, value, field);
  case LAYOUT:
    if (strcmp(value, "flat") != 0 && strcmp(value, "merginguriel") != 0)
      return mg_fail(MG_ERR_USAGE, "--layout: '%s' is neither flat nor merginguriel", value);
    *(bool *)field = value[0] == 'm';
    return MG_OK;
  }
  return MG_ERR_INTERNAL;
}

static const option *find_option(const mg_command *command, const char *name, size_t length, char letter) {
  for (size_t k = 0; k < OPTION_COUNT; k++) {
    const option *o = &OPTIONS[k];
    if ((o->verbs & (1u << command->verb)) == 0) continue;
    if (letter != 0 ? o->letter == letter : strlen(o->name) == length && strncmp(o->name, name, length) == 0) return o;
  }
  return NULL;
}

/* One argument that begins with '-': --name, --name=value, --name value, -l value. Moves *at past what it takes. */
static mg_status parse_option(mg_command *command, int argc, char **argv, int *at) {
  const char *argument = argv[*at];
  const bool is_long = argument[1] == '-';
  const char *name = argument + (is_long ? 2 : 1), *value = is_long ? strchr(name, '=') : NULL;
  const size_t length = value != NULL ? (size_t)(value - name) : strlen(name);
  if (!is_long && length != 1) return usage(command, "options of one letter stand alone, unlike", argument);
  const option *o = find_option(command, name, length, is_long ? 0 : name[0]);
  if (o == NULL) {
    char *plain = strndup(name, length);
    const mg_status status = plain ? unknown_option(command, plain) : mg_fail(MG_ERR_NOMEM, "out of memory");
    free(plain);
    return status;
  }
  if (value != NULL) value++;
  if (o->kind == FLAG && value != NULL) return usage(command, "no value is taken by", argument);
  if (o->kind != FLAG && value == NULL) {
    if (*at + 1 >= argc) return usage(command, "a value is missing behind", argument);
    value = argv[++*at];
  }
  return set_option(command, o, value);
}

static mg_status find_verb(const char *word, mg_verb *found) {
  const char *names[MG_VERB_COUNT];
  for (int k = 0; k < MG_VERB_COUNT; k++) {
    names[k] = VERBS[k].name;
    if (strcmp(word, VERBS[k].name) == 0) {
      *found = (mg_verb)k;
      return MG_OK;
    }
  }
  const char *nearest = mg_nearest(word, names, MG_VERB_COUNT);
  return mg_fail(MG_ERR_USAGE, "'%s' is no command%s%s%s; see mergegrid --help", word, nearest ? " ('" : "",
                 nearest ? nearest : "", nearest ? "' is meant?)" : "");
}

/* The recipe of a configuration, or one cell of a result. */
static mg_status check_merge(const mg_command *command) {
  const bool cell = command->cells.count > 0 || command->best != NULL;
  if (command->config == NULL && command->files.count == 0) return usage(command, "-c FILE or a RESULT is missing", NULL);
  if (command->config != NULL && command->files.count > 0)
    return usage(command, "-c FILE and a result exclude each other:", command->files.items[0]);
  if (command->config != NULL && cell) return usage(command, "--cell and --best are about a RESULT, not about -c FILE", NULL);
  if (command->files.count > 0 && !cell)
    return usage(command, "which cell? --cell KEY or --best COLUMN=VALUE,... is missing behind", command->files.items[0]);
  if (command->cells.count + (command->best != NULL) > 1)
    return usage(command, "one cell can be merged: one --cell KEY, or --best", NULL);
  return MG_OK;
}

static mg_status check_search(const mg_command *command) {
  const char *weights = command->weights;
  if (command->locale == NULL) return usage(command, "--locale TARGET is missing", NULL);
  if (command->num_languages == 0) return usage(command, "-k K is missing: how many sources", NULL);
  if (weights != NULL && strcmp(weights, "similarity") != 0 && strcmp(weights, "equal") != 0)
    return mg_fail(MG_ERR_USAGE, "--weights: '%s' is neither similarity nor equal", weights);
  if (command->json + command->csv + command->yaml > 1)
    return usage(command, "--json, --csv and --yaml exclude each other", NULL);
  return MG_OK;
}

static mg_status check_complete(const mg_command *command) {
  const verb *v = &VERBS[command->verb];
  const int files = (int)command->files.count;
  if (files < v->least_files) return usage(command, "an argument is missing: mergegrid", v->name);
  const bool unnamed = (OF_CONFIGURED & (1u << command->verb)) && command->config == NULL;
  if (unnamed && v->most_files == 0 && files == 1) return usage(command, "-c is missing in front of", command->files.items[0]);
  if (files > v->most_files) return usage(command, "one argument too many:", command->files.items[v->most_files]);
  if (unnamed) return usage(command, "-c FILE is missing", NULL);
  if (command->verb == MG_VERB_MERGE && check_merge(command) != MG_OK) return MG_ERR_USAGE;
  if (command->verb == MG_VERB_SEARCH && check_search(command) != MG_OK) return MG_ERR_USAGE;
  if (command->verb == MG_VERB_SHOW && command->json && command->csv)
    return usage(command, "--json and --csv exclude each other", NULL);
  if ((command->verb == MG_VERB_EXPORT || command->verb == MG_VERB_MERGE) && command->output == NULL)
    return usage(command, "-o DIR is missing", NULL);
  const bool family = command->base != NULL || command->sources != NULL;
  if (command->verb == MG_VERB_INIT && (command->from == NULL || family) && (command->base == NULL || command->sources == NULL))
    return usage(command, "--base DIR and --sources PATTERN are both needed", NULL);
  if (command->verb == MG_VERB_EXPLAIN && command->cells.count + (size_t)files - 1 < 1)
    return usage(command, "a cell is missing: --cell KEY", NULL);
  if (command->verb == MG_VERB_EXPLAIN && command->cells.count + (size_t)files - 1 > 2)
    return usage(command, "one cell or two can be explained, not more", NULL);
  if (command->fresh && command->resume) return usage(command, "--fresh and --resume exclude each other", NULL);
  if (command->quiet && command->verbose) return usage(command, "--quiet and --verbose exclude each other", NULL);
  return MG_OK;
}

static mg_status parse_help_topic(mg_command *command, const char *topic) {
  command->verb = MG_VERB_HELP;
  if (topic == NULL) return MG_OK;
  command->help_config = strcmp(topic, "config") == 0;
  command->help_methods = strcmp(topic, "methods") == 0;
  if (command->help_config || command->help_methods) return MG_OK;
  return find_verb(topic, &command->help_of);
}

static mg_status parse_arguments(int argc, char **argv, mg_command *command) {
  mg_status status = MG_OK;
  if (argc < 2) return usage(command, "a command is missing", NULL);
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
    return parse_help_topic(command, argc > 2 ? argv[2] : NULL);
  if (strcmp(argv[1], "--version") == 0) {
    command->verb = MG_VERB_VERSION;
    return MG_OK;
  }
  MG_TRY(find_verb(argv[1], &command->verb), done);
  for (int at = 2; at < argc; at++) {
    if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
      command->help_of = command->verb;
      command->verb = MG_VERB_HELP;
      return MG_OK;
    }
    if (argv[at][0] == '-' && argv[at][1] != '\0')
      MG_TRY(parse_option(command, argc, argv, &at), done);
    else
      MG_TRY(mg_strings_add(&command->files, argv[at]), done);
  }
  MG_TRY(check_complete(command), done);
done:
  return status;
}

mg_status mg_command_parse(int argc, char **argv, mg_command **out) {
  mg_command *command = mg_alloc_zero(1, sizeof *command);
  if (command == NULL) return MG_ERR_NOMEM;
  command->ranks = 1;
  mg_status status = parse_arguments(argc, argv, command);
  for (int k = 1; k < argc && status == MG_OK; k++) mg_text_append(&command->line, "%s%s", k > 1 ? " " : "", argv[k]);
  if (command->line.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status != MG_OK) {
    mg_command_free(&command);
    return status;
  }
  *out = command;
  return MG_OK;
}

void mg_command_free(mg_command **command) {
  if (*command == NULL) return;
  mg_command *c = *command;
  mg_strings_free(&c->settings);
  mg_strings_free(&c->files);
  mg_strings_free(&c->stages);
  mg_strings_free(&c->cells);
  mg_strings_free(&c->by);
  mg_text_free(&c->line);
  free(c->config), free(c->base), free(c->sources), free(c->similarity), free(c->texts), free(c->from), free(c->output);
  free(c->where), free(c->sort), free(c->best), free(c->locale), free(c->weights);
  free(c);
  *command = NULL;
}
