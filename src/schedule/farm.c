/*
 * The master's queue. Rank 0 deals units to workers, up to two to each, and computes beside that. Every message is a header
 * and a payload. An end is always the same: rank 0 sends END to all, every worker answers BYE as its last word, and rank 0
 * takes what still arrives before it; so nothing finished is lost and nobody waits for a message that never comes.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/log.h"
#include "mergegrid/schedule.h"
#include "mergegrid/stop.h"

enum { TAG_TO_MASTER = 11, TAG_TO_WORKER = 12 };
enum { LEASES_AHEAD = 2, LAST_TURNS = 4, MASTER_COMPUTES_UP_TO = 32, IDLE_MICROSECONDS = 200 };
enum { POLL_EVERY_US = 1000, TICK_EVERY_MS = 100 };

typedef enum message_kind { LEASE = 1, END, RESULT, FAILED, BYE } message_kind;

typedef struct header {
  int64_t unit;
  int32_t kind;
  int32_t status; /* of FAILED */
} header;

struct mg_farm_poll {
  MPI_Comm comm;
  int rank, ranks;
  const mg_farm_job *job;
  mg_status status; /* why the job ends; MG_OK while it goes on */
  char *message;    /* of the failure */
  double last_poll, last_tick;
  /* rank 0 */
  int64_t next, taken;
  int *leased; /* [ranks] */
  bool ending;
  int bye;
  /* workers */
  int64_t queue[LEASES_AHEAD];
  int queued;
  bool ended;
  mg_text outgoing; /* belongs to MPI until `request` is complete */
  MPI_Request request;
};

typedef struct mg_farm_poll farm;

static void end_with(farm *f, mg_status status, const char *message) {
  if (f->status != MG_OK && (f->status != MG_STOPPED || status == MG_STOPPED)) return;
  f->status = status;
  free(f->message);
  f->message = strdup(message);
}

static void end_by_signal(farm *f) {
  const char *name = mg_stop_signal() ? sigabbrev_np(mg_stop_signal()) : NULL;
  char text[64] = "stopped";
  if (name != NULL) snprintf(text, sizeof text, "stopped by signal SIG%s", name);
  end_with(f, MG_STOPPED, text);
}

/* Nothing softer is left: the other ranks wait for a message that this one cannot make. */
_Noreturn static void give_up(MPI_Comm comm) {
  MPI_Abort(comm, 1);
  abort();
}

/* ---- rank 0 ---- */

static void send_header(farm *f, int worker, message_kind kind, int64_t unit) {
  const header out = {.unit = unit, .kind = (int32_t)kind};
  MPI_Send(&out, (int)sizeof out, MPI_BYTE, worker, TAG_TO_WORKER, f->comm);
}

/* Towards the end nothing is dealt ahead: what waits behind a long unit is what another rank could do. */
static int leases_ahead(const farm *f) { return f->job->units - f->next > LAST_TURNS * (int64_t)f->ranks ? LEASES_AHEAD : 1; }

static void top_up(farm *f, int worker) {
  while (!f->ending && f->status == MG_OK && f->next < f->job->units && f->leased[worker] < leases_ahead(f)) {
    send_header(f, worker, LEASE, f->next++);
    f->leased[worker]++;
  }
}

static void tick(farm *f, bool now) {
  if (f->job->tick == NULL || (!now && mg_now() - f->last_tick < TICK_EVERY_MS * 1e-3)) return;
  f->last_tick = mg_now();
  const mg_status status = f->job->tick(f->job->context);
  if (status != MG_OK) end_with(f, status, mg_error_message());
}

static void take_result(farm *f, int64_t unit, const void *payload, size_t size) {
  if (f->status != MG_OK && f->status != MG_STOPPED) return;
  const mg_status status = f->job->take(f->job->context, unit, payload, size);
  if (status != MG_OK) end_with(f, status, mg_error_message());
  f->taken++;
  tick(f, false);
}

static void receive_from_worker(farm *f, const MPI_Status *probed) {
  int size = 0;
  const int worker = probed->MPI_SOURCE;
  MPI_Get_count(probed, MPI_BYTE, &size);
  char *buffer = malloc((size_t)size + 1);
  if (buffer == NULL || size < (int)sizeof(header)) give_up(f->comm);
  MPI_Recv(buffer, size, MPI_BYTE, worker, TAG_TO_MASTER, f->comm, MPI_STATUS_IGNORE);
  buffer[size] = '\0';
  header in;
  memcpy(&in, buffer, sizeof in);
  const char *payload = buffer + sizeof in;
  switch ((message_kind)in.kind) {
  case RESULT:
    f->leased[worker]--;
    take_result(f, in.unit, payload, (size_t)size - sizeof in);
    top_up(f, worker);
    break;
  case FAILED:
    end_with(f, (mg_status)in.status, payload);
    break;
  case BYE:
    f->bye++;
    break;
  default:
    give_up(f->comm);
  }
  free(buffer);
}

static bool serve(farm *f) {
  bool any = false;
  for (int there = 1; f->ranks > 1;) {
    MPI_Status probed;
    MPI_Iprobe(MPI_ANY_SOURCE, TAG_TO_MASTER, f->comm, &there, &probed);
    if (!there) break;
    receive_from_worker(f, &probed);
    any = true;
  }
  if (mg_stop_requested()) end_by_signal(f);
  tick(f, false);
  return any;
}

static void compute_here(farm *f) {
  mg_text payload = {0};
  const int64_t unit = f->next++;
  mg_status status = f->job->work(f->job->context, unit, &payload, f);
  if (status == MG_OK && payload.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK)
    take_result(f, unit, payload.data, payload.size);
  else
    end_with(f, status, mg_error_message());
  mg_text_free(&payload);
}

static void run_master(farm *f) {
  const bool computes = f->ranks <= MASTER_COMPUTES_UP_TO;
  for (int worker = 1; worker < f->ranks; worker++) top_up(f, worker);
  while (f->status == MG_OK && f->taken < f->job->units) {
    const bool busy = serve(f);
    if (f->status == MG_OK && computes && f->next < f->job->units)
      compute_here(f);
    else if (!busy)
      usleep(IDLE_MICROSECONDS);
  }
  f->ending = true;
  for (int worker = 1; worker < f->ranks; worker++) send_header(f, worker, END, 0);
  while (f->bye < f->ranks - 1)
    if (!serve(f)) usleep(IDLE_MICROSECONDS);
  /* A stop that came when everything was done already changes nothing. */
  if (f->status == MG_STOPPED && f->taken == f->job->units) f->status = MG_OK;
  tick(f, true);
}

/* ---- workers ---- */

static void listen(farm *f) {
  for (int there = 1;;) {
    header in;
    MPI_Iprobe(0, TAG_TO_WORKER, f->comm, &there, MPI_STATUS_IGNORE);
    if (!there) return;
    MPI_Recv(&in, (int)sizeof in, MPI_BYTE, 0, TAG_TO_WORKER, f->comm, MPI_STATUS_IGNORE);
    if (in.kind == END) f->ended = true;
    if (in.kind == LEASE) f->queue[f->queued++] = in.unit;
  }
}

static void wait_for_send(farm *f) {
  int sent = 0;
  for (;;) {
    MPI_Test(&f->request, &sent, MPI_STATUS_IGNORE);
    if (sent) break;
    listen(f);
    usleep(IDLE_MICROSECONDS / 4);
  }
}

/* Sends header and payload; text (an error's) may be NULL. The previous message must be gone first: one buffer is enough. */
static void send_to_master(farm *f, message_kind kind, int64_t unit, mg_status status, mg_text *payload, const char *text) {
  const header out = {.unit = unit, .kind = (int32_t)kind, .status = (int32_t)status};
  wait_for_send(f);
  f->outgoing.size = 0;
  mg_text_append_bytes(&f->outgoing, &out, sizeof out);
  if (payload != NULL) mg_text_append_bytes(&f->outgoing, payload->data, payload->size);
  if (text != NULL) mg_text_append_bytes(&f->outgoing, text, strlen(text));
  if (f->outgoing.failed) give_up(f->comm);
  MPI_Isend(f->outgoing.data, (int)f->outgoing.size, MPI_BYTE, 0, TAG_TO_MASTER, f->comm, &f->request);
}

static void work_off(farm *f, mg_text *payload) {
  const int64_t unit = f->queue[0];
  memmove(f->queue, f->queue + 1, sizeof f->queue - sizeof *f->queue);
  f->queued--;
  payload->size = 0;
  mg_status status = f->job->work(f->job->context, unit, payload, f);
  if (status == MG_OK && payload->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK) {
    send_to_master(f, RESULT, unit, MG_OK, payload, NULL);
  } else if (!f->ended) {
    end_with(f, status, mg_error_message());
    send_to_master(f, FAILED, unit, f->status, NULL, f->message ? f->message : "out of memory");
  }
}

static void run_worker(farm *f) {
  mg_text payload = {0};
  bool told = false;
  while (!f->ended) {
    listen(f);
    if (f->ended) break;
    if (mg_stop_requested() && !told) {
      told = true;
      end_by_signal(f);
      send_to_master(f, FAILED, -1, f->status, NULL, f->message ? f->message : "stopped");
    }
    if (f->queued > 0 && f->status == MG_OK)
      work_off(f, &payload);
    else
      usleep(IDLE_MICROSECONDS);
  }
  send_to_master(f, BYE, 0, MG_OK, NULL, NULL);
  wait_for_send(f);
  mg_text_free(&payload);
}

/* ---- both ---- */

mg_status mg_farm_poll_now(mg_farm_poll *f) {
  const double now = mg_now();
  if (now - f->last_poll < POLL_EVERY_US * 1e-6) return MG_OK;
  f->last_poll = now;
  if (f->rank == 0) {
    serve(f);
    if (f->status != MG_OK) return mg_fail(f->status, "%s", f->message ? f->message : "stopped");
    return MG_OK;
  }
  listen(f);
  if (f->ended) return mg_fail(MG_STOPPED, "stopped");
  if (mg_stop_requested()) {
    end_by_signal(f);
    return mg_fail(MG_STOPPED, "%s", f->message ? f->message : "stopped");
  }
  return MG_OK;
}

mg_status mg_farm_run(MPI_Comm comm, const mg_farm_job *job) {
  /* A communicator of its own: nothing of other jobs can be taken for this one's messages. */
  farm f = {.job = job, .request = MPI_REQUEST_NULL};
  MPI_Comm_dup(comm, &f.comm);
  MPI_Comm_rank(f.comm, &f.rank);
  MPI_Comm_size(f.comm, &f.ranks);
  f.leased = calloc((size_t)f.ranks, sizeof *f.leased);
  if (f.leased == NULL) give_up(comm);
  if (f.rank == 0)
    run_master(&f);
  else
    run_worker(&f);
  if (f.rank == 0 && f.status != MG_OK) mg_fail(f.status, "%s", f.message ? f.message : "out of memory");
  const mg_status status = mg_agree(comm, f.rank == 0 ? f.status : MG_OK);
  MPI_Comm_free(&f.comm);
  mg_text_free(&f.outgoing);
  free(f.leased);
  free(f.message);
  return status;
}
