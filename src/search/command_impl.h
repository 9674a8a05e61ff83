#ifndef MG_SEARCH_COMMAND_IMPL_H
#define MG_SEARCH_COMMAND_IMPL_H

#include "mergegrid/family.h"
#include "mergegrid/result_grid.h"
#include "mergegrid/search.h"
#include "mergegrid/similarity.h"

/* What the command searches: the target's candidates, in the order of the sources, and matrices over them. */
typedef struct mg_search_input {
  const mg_search_command *command;
  mg_result_reader *reader;
  mg_source_list sources;
  const char *matrix; /* the name of the similarity: the result's, `nxn`, or a file; owned by names, or the command's */
  mg_strings names;   /* matrices that the result holds */
  size_t n;
  size_t *source; /* [n] of a candidate */
  double *similarity, *weight, *cosine, *cka, *dot;
  bool by[MG_BY_COUNT];
  mg_search_space space;
} mg_search_input;

extern const char *const mg_search_names[MG_BY_COUNT];

/* Errors are those of mg_search_print. What is left out is warned of. */
mg_status mg_search_input_open(const mg_search_command *command, mg_search_input *input);
void mg_search_input_close(mg_search_input *input);
/* By the matrix that the command names; `name` is set in the input. */
mg_status mg_search_similarity(mg_search_input *input, mg_similarity *similarity);

/* A subset's members as they are told: by falling weight, of equal ones in the order of the sources; shares sum to 1. */
typedef struct mg_search_member {
  const char *id;
  double share;
  uint32_t candidate;
} mg_search_member;
void mg_search_members(const mg_search_input *input, const uint32_t *subset, mg_search_member *members);

const char *mg_search_count_text(double count, char text[32]);

/* Prints what was found. members: room for k. */
void mg_search_print_text(const mg_search_input *input, const mg_search_found *found, mg_search_member *members);
mg_status mg_search_print_json(const mg_search_input *input, const mg_search_found *found, mg_search_member *members);
mg_status mg_search_print_csv(const mg_search_input *input, const mg_search_found *found, mg_search_member *members);
mg_status mg_search_print_yaml(const mg_search_input *input, const mg_search_found *found, mg_search_member *members);

#endif
