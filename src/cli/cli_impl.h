#ifndef MERGEGRID_CLI_IMPL_H
#define MERGEGRID_CLI_IMPL_H

#include <stdint.h>
#include <stdio.h>

#include "mergegrid/cli.h"
#include "mergegrid/text.h"

typedef enum mg_verb {
  MG_VERB_HELP,
  MG_VERB_VERSION,
  MG_VERB_INIT,
  MG_VERB_PACK,
  MG_VERB_PLAN,
  MG_VERB_RUN,
  MG_VERB_GATHER,
  MG_VERB_MERGE,
  MG_VERB_SHOW,
  MG_VERB_EXPLAIN,
  MG_VERB_SEARCH,
  MG_VERB_EXPORT,
  MG_VERB_VERIFY,
  MG_VERB_DIFF,
  MG_VERB_COUNT
} mg_verb;

struct mg_command {
  mg_text line; /* all arguments: ranks must have been given the same */
  mg_verb verb;
  mg_verb help_of;     /* HELP: of which verb, or HELP itself */
  bool help_config;    /* --help config */
  bool help_methods;   /* --help methods */
  char *config;        /* -c */
  mg_strings settings; /* --set */
  mg_strings files;    /* positional */
  mg_strings stages;
  char *base, *sources, *similarity, *texts, *from; /* init */
  char *output;                                     /* -o */
  char *where, *sort;                               /* show, run */
  mg_strings cells;                                 /* --cell */
  char *best;                                       /* merge */
  char *locale, *weights;                           /* search */
  mg_strings by;
  int64_t part[2]; /* --part I/N; 0: not given */
  int64_t ranks, top, num_languages, candidates, parts;
  double max_hours;
  bool json, csv, yaml, include_target, quiet, verbose, rehash, fresh, resume, compute_missing, merginguriel;
};

void mg_command_help(const mg_command *command, FILE *out);
mg_status mg_command_version(FILE *out);

#endif
