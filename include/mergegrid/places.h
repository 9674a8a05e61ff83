#ifndef MERGEGRID_PLACES_H
#define MERGEGRID_PLACES_H

/** What each rank of each node computes with, in words. Not collective; schedule.h gathers it. */

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>

#include "mergegrid/text.h"

typedef struct mg_place {
  int rank, node; /**< node: the lowest rank there */
  int threads;
  int online; /**< processors of the host, whoever may use them */
  char host[64];
  char device[128]; /**< "": none */
  cpu_set_t processors;
} mg_place;

/** This process's: host, processors. */
void mg_place_here(mg_place *place);
/** Appends "0-3,8". */
void mg_processors_text(const cpu_set_t *processors, mg_text *text);
/**
 * Appends one node's ranks [count], by rank, in a line: "node n01: ranks 0-3, 4 threads each, on processors 0-3; 4-7; 8-11;
 * 12-15". What all have in common is said once.
 */
void mg_places_line(const mg_place *places, size_t count, mg_text *text);
/**
 * Are ranks of a node [count] bound so that threads have to share processors? Appends which ranks, threads and processors.
 * Ranks that may use the whole host are not bound.
 */
bool mg_places_crowded(const mg_place *places, size_t count, mg_text *text);

#endif
