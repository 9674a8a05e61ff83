/*
 * Discrete events: a heap of what happens next, rank 0's inbox, and a file system that readers share evenly. Rank 0 serves one
 * message after another; while ranks are few it computes between them, as the farm does.
 */

#include "simulate.h"

#include <stdlib.h>

enum { RECORD_HEADER = 24, EAGER_BYTES = 4096 };

typedef enum event_kind { READ_DONE, COMPUTED, ARRIVED, SERVE, LEASED, RECEIVED } event_kind;

typedef struct event {
  double time;
  uint64_t order; /* of equal times, the first that was made; what reading and rank 0's computing put off is known by it */
  event_kind kind;
  int32_t rank;
  int64_t unit;
} event;

typedef struct heap {
  event *items;
  size_t count, room;
} heap;

typedef enum rank_state { IDLE, READING, COMPUTING, BLOCKED } rank_state;

typedef struct rank {
  mg_leases leases;
  rank_state state;
  int64_t unit;
  int32_t context;
  bool sending;                /* a message that rank 0 has not received yet */
  double speed, since, cached; /* bytes of the unit that the node has */
} rank;

typedef struct sim {
  const sim_machine *m;
  const sim_job *job;
  int ranks;
  mg_queue *queue;
  rank *of;
  heap events, reading; /* reading: by the share of the disk at which each is done */
  uint64_t order;
  double now, finished, busy, serving;
  double share, share_at; /* bytes every reader has had since the beginning; when that was */
  uint64_t read_event, own_event;
  double own_end;
  event *inbox;
  size_t inbox_first, inbox_count, inbox_room;
  uint64_t inbox_bytes;
  double synced;
  uint64_t unsynced;
  bool *seen; /* [nodes, contexts]: a rank of the node has read it */
  bool serving_now, failed;
  sim_outcome out;
} sim;

double sim_draw(uint64_t a, uint64_t b) { /* splitmix64 */
  uint64_t x = a * UINT64_C(0x9E3779B97F4A7C15) + b * UINT64_C(0xD1342543DE82EF95) + 0x1234567;
  x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
  x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
  return (double)((x ^ x >> 31) >> 11) * 0x1p-52 - 1;
}

/* ---- the heap ---- */

static bool earlier(const event *a, const event *b) { return a->time < b->time || (a->time <= b->time && a->order < b->order); }

static void push(sim *s, heap *h, event e) {
  if (h->count == h->room) {
    const size_t room = 2 * h->room + 64;
    event *grown = reallocarray(h->items, room, sizeof *grown);
    s->failed |= grown == NULL;
    if (grown == NULL) return;
    h->items = grown;
    h->room = room;
  }
  size_t at = h->count++;
  for (; at > 0 && earlier(&e, &h->items[(at - 1) / 2]); at = (at - 1) / 2) h->items[at] = h->items[(at - 1) / 2];
  h->items[at] = e;
}

static event pop(heap *h) {
  const event first = h->items[0], last = h->items[--h->count];
  size_t at = 0;
  for (size_t child = 1; child < h->count; child = 2 * at + 1) {
    if (child + 1 < h->count && earlier(&h->items[child + 1], &h->items[child])) child++;
    if (!earlier(&h->items[child], &last)) break;
    h->items[at] = h->items[child];
    at = child;
  }
  h->items[at] = last;
  return first;
}

static uint64_t at(sim *s, double time, event_kind kind, int of, int64_t unit) {
  push(s, &s->events, (event){.time = time, .order = ++s->order, .kind = kind, .rank = of, .unit = unit});
  return s->order;
}

/* ---- the file system: everyone gets the same share, at most what one rank can take ---- */

static double share_rate(const sim *s) {
  const double even = s->m->read_all / (double)s->reading.count;
  return even < s->m->read_one ? even : s->m->read_one;
}

static void advance_reading(sim *s) {
  if (s->reading.count > 0) s->share += (s->now - s->share_at) * share_rate(s);
  s->share_at = s->now;
}

static void expect_reader(sim *s) {
  if (s->reading.count == 0) return;
  const double left = s->reading.items[0].time - s->share;
  s->read_event = at(s, s->now + (left > 0 ? left / share_rate(s) : 0), READ_DONE, s->reading.items[0].rank, 0);
}

static void begin_reading(sim *s, int of, double bytes) {
  advance_reading(s);
  push(s, &s->reading, (event){.time = s->share + bytes, .order = ++s->order, .rank = of});
  s->out.read_bytes += bytes;
  expect_reader(s);
}

/* ---- a rank at work ---- */

static void begin_computing(sim *s, int of) {
  rank *r = &s->of[of];
  const double noise = 1 + s->m->noise * sim_draw((uint64_t)r->unit, 7);
  const double end = s->now + s->job->unit[r->unit].seconds * r->speed * noise + r->cached / s->m->cached;
  r->state = COMPUTING;
  const uint64_t made = at(s, end, COMPUTED, of, r->unit);
  if (of == 0) s->own_event = made, s->own_end = end;
}

static void begin_unit(sim *s, int of, int64_t unit) {
  rank *r = &s->of[of];
  const sim_unit *u = &s->job->unit[unit];
  double bytes = u->read_bytes;
  r->cached = 0;
  if (u->context != r->context && s->job->switch_bytes > 0) {
    bool *seen = &s->seen[(int64_t)(of / s->m->node) * s->job->contexts + u->context];
    if (*seen)
      r->cached = s->job->switch_bytes;
    else
      bytes += s->job->switch_bytes;
    *seen = true;
  }
  r->unit = unit;
  r->context = u->context;
  r->since = s->now;
  if (bytes > 0) {
    r->state = READING;
    begin_reading(s, of, bytes);
  } else {
    begin_computing(s, of);
  }
}

static void look_for_work(sim *s, int worker) {
  int64_t unit;
  rank *r = &s->of[worker];
  r->state = IDLE;
  if (mg_leases_next(&r->leases, &unit)) begin_unit(s, worker, unit);
}

static void reader_done(sim *s, const event *e) {
  if (e->order != s->read_event) return; /* others came or went since */
  advance_reading(s);
  const int of = pop(&s->reading).rank;
  expect_reader(s);
  begin_computing(s, of);
}

/* The payload is on its way; a large one is sent when rank 0 takes it. */
static void send_result(sim *s, int worker, int64_t unit) {
  const double bytes = s->job->unit[unit].payload_bytes;
  rank *r = &s->of[worker];
  r->sending = bytes > EAGER_BYTES;
  at(s, s->now + s->m->latency + bytes / s->m->bandwidth, ARRIVED, worker, unit);
  look_for_work(s, worker);
}

static void received(sim *s, int worker) {
  rank *r = &s->of[worker];
  r->sending = false;
  if (r->state == BLOCKED) send_result(s, worker, r->unit);
}

static void leased(sim *s, int worker, int64_t unit) {
  s->failed |= !mg_leases_add(&s->of[worker].leases, unit);
  if (s->of[worker].state == IDLE) look_for_work(s, worker);
}

/* ---- rank 0 ---- */

static void top_up(sim *s, int worker, double *time) {
  int64_t unit;
  while (mg_queue_deal(s->queue, worker, &unit)) {
    *time += s->m->message;
    /* an idle worker notices within its wait, half of it in the mean */
    at(s, *time + s->m->latency + s->m->idle_wait / 2, LEASED, worker, unit);
  }
}

/* Seconds of writing down and adding up a unit, which is then taken. */
static double take(sim *s, int of, int64_t unit) {
  const sim_unit *u = &s->job->unit[unit];
  bool wanted;
  s->failed |= mg_queue_returned(s->queue, of, unit, &wanted) != MG_OK || !wanted;
  if (s->job->take != NULL) s->job->take(s->job->context, unit);
  const uint64_t written = u->payload_bytes + (uint64_t)RECORD_HEADER * u->records;
  double seconds =
      s->m->decide + u->records * s->m->record + (double)written * s->m->record_byte + u->sum_bytes * s->m->sum_byte;
  s->out.journal_bytes += written;
  s->unsynced += written;
  if (s->now - s->synced >= s->m->sync_every) {
    seconds += s->m->sync + (double)s->unsynced * s->m->sync_byte;
    s->synced = s->now;
    s->unsynced = 0;
  }
  return seconds;
}

static void try_own(sim *s) {
  int64_t unit;
  if (s->of[0].state == IDLE && mg_queue_own(s->queue, &unit)) begin_unit(s, 0, unit);
}

static void arrived(sim *s, const event *e) {
  if (s->inbox_count == s->inbox_room) { /* never: workers have at most two results out */
    s->failed = true;
    return;
  }
  s->inbox[(s->inbox_first + s->inbox_count++) % s->inbox_room] = *e;
  s->inbox_bytes += s->job->unit[e->unit].payload_bytes;
  if (s->inbox_count > s->out.waiting) s->out.waiting = s->inbox_count;
  if (s->inbox_bytes > s->out.waiting_bytes) s->out.waiting_bytes = s->inbox_bytes;
  if (s->serving_now) return;
  s->serving_now = true;
  at(s, s->now + (s->of[0].state == IDLE ? s->m->idle_wait : s->m->poll) / 2, SERVE, 0, 0);
}

static void serve(sim *s) {
  if (s->inbox_count == 0) {
    s->serving_now = false;
    try_own(s);
    return;
  }
  const event e = s->inbox[s->inbox_first];
  s->inbox_first = (s->inbox_first + 1) % s->inbox_room;
  s->inbox_count--;
  const double bytes = s->job->unit[e.unit].payload_bytes;
  s->inbox_bytes -= s->job->unit[e.unit].payload_bytes;
  double end = s->now + s->m->message + bytes * s->m->message_byte;
  at(s, end, RECEIVED, e.rank, e.unit);
  end += take(s, e.rank, e.unit);
  top_up(s, e.rank, &end);
  s->out.messages++;
  s->serving += end - s->now;
  s->finished = end;
  if (s->of[0].state == COMPUTING) {
    s->own_end += end - s->now;
    s->own_event = at(s, s->own_end, COMPUTED, 0, s->of[0].unit);
    s->of[0].since += end - s->now;
  }
  at(s, end, SERVE, 0, 0);
}

static void computed(sim *s, const event *e) {
  rank *r = &s->of[e->rank];
  if (e->rank == 0 && e->order != s->own_event) return; /* messages came between */
  s->busy += s->now - r->since;
  if (e->rank > 0) {
    if (r->sending)
      r->state = BLOCKED;
    else
      send_result(s, e->rank, e->unit);
    return;
  }
  r->state = IDLE;
  const double seconds = take(s, 0, e->unit);
  s->serving += seconds;
  s->finished = s->now + seconds;
  if (!s->serving_now) {
    s->serving_now = true;
    at(s, s->now + seconds, SERVE, 0, 0);
  }
}

static void handle(sim *s, const event *e) {
  s->now = e->time;
  switch (e->kind) {
  case READ_DONE:
    reader_done(s, e);
    break;
  case COMPUTED:
    computed(s, e);
    break;
  case ARRIVED:
    arrived(s, e);
    break;
  case SERVE:
    serve(s);
    break;
  case LEASED:
    leased(s, e->rank, e->unit);
    break;
  case RECEIVED:
    received(s, e->rank);
    break;
  }
}

/* Goodbyes: a message to every worker and one from each. */
static void end(sim *s, sim_outcome *outcome) {
  const double byes = 2 * s->m->message * (s->ranks - 1) + (s->ranks > 1 ? 2 * s->m->latency + s->m->idle_wait : 0);
  *outcome = s->out;
  outcome->makespan = s->finished + byes;
  outcome->idle = outcome->makespan > 0 ? 1 - s->busy / (s->ranks * outcome->makespan) : 0;
  outcome->master = outcome->makespan > 0 ? (s->serving + byes) / outcome->makespan : 0;
}

bool sim_run(const sim_machine *machine, const sim_job *job, int ranks, sim_outcome *outcome) {
  sim s = {.m = machine, .job = job, .ranks = ranks, .inbox_room = (size_t)ranks * (MG_LEASES_AHEAD + 1)};
  s.of = calloc((size_t)ranks, sizeof *s.of);
  s.inbox = calloc(s.inbox_room, sizeof *s.inbox);
  s.seen = calloc((size_t)(ranks / machine->node + 1), (size_t)job->contexts + 1);
  s.failed = s.of == NULL || s.inbox == NULL || s.seen == NULL || mg_queue_create(job->units, ranks, &s.queue) != MG_OK;
  for (int k = 0; k < ranks && !s.failed; k++)
    s.of[k] = (rank){.context = -1, .speed = 1 + machine->spread * sim_draw((uint64_t)k, 3)};
  if (!s.failed) {
    for (int worker = 1; worker < ranks; worker++) top_up(&s, worker, &s.serving);
    s.serving_now = true;
    at(&s, s.serving, SERVE, 0, 0);
  }
  while (s.events.count > 0 && !s.failed) {
    const event e = pop(&s.events);
    handle(&s, &e);
  }
  if (!s.failed) {
    s.failed = !mg_queue_over(s.queue) || mg_queue_status(s.queue) != MG_OK;
    end(&s, outcome);
  }
  mg_queue_destroy(&s.queue);
  free(s.of), free(s.inbox), free(s.seen), free(s.events.items), free(s.reading.items);
  return !s.failed;
}
