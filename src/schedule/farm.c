/*
 * The master's queue over MPI. Rank 0 deals units to workers as queue.c decides, and computes beside that. Every message is a
 * header and a payload. An end is always the same: rank 0 sends END to all, every worker answers BYE as its last word, and rank
 * 0 takes what still arrives before it; so nothing finished is lost and nobody waits for a message that never comes.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mergegrid/log.h"
#include "mergegrid/queue.h"
#include "mergegrid/schedule.h"
#include "mergegrid/stop.h"

enum { TAG_TO_MASTER = 11, TAG_TO_WORKER = 12 };
enum { IDLE_MICROSECONDS = 200, POLL_EVERY_US = 1000, TICK_EVERY_MS = 100 };
/* From this share of its time on, rank 0 is what the others wait for; of jobs that take so many seconds it is said. */
static const double BUSY = 0.5, WORTH_SAYING = 10;

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
  char *message; /* of the failure */
  double last_poll, last_tick;
  /* rank 0 */
  mg_queue *queue;
  double serving; /* seconds */
  /* workers */
  mg_status status; /* why this one has ended; MG_OK while it goes on */
  mg_leases leases;
  mg_text outgoing; /* belongs to MPI until `request` is complete */
  MPI_Request request;
};

typedef struct mg_farm_poll farm;

static void end_with(farm *f, mg_status status, const char *message) {
  const bool more = f->status == MG_OK || (f->status == MG_STOPPED && status != MG_STOPPED);
  if (f->rank == 0 ? !mg_queue_end(f->queue, status) : !more) return;
  f->status = status;
  free(f->message);
  f->message = strdup(message);
}

static void end_by_signal(farm *f) {
  const char *name = mg_stop_signal() ? sigabbrev_np(mg_stop_signal()) : NULL;
  char text[96];
  snprintf(text, sizeof text, "stopped%s%s; the same command continues", name != NULL ? " by signal SIG" : "",
           name != NULL ? name : "");
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

static void top_up(farm *f, int worker) {
  int64_t unit;
  while (mg_queue_deal(f->queue, worker, &unit)) send_header(f, worker, LEASE, unit);
}

static void tick(farm *f, bool now) {
  if (f->job->tick == NULL || (!now && mg_now() - f->last_tick < TICK_EVERY_MS * 1e-3)) return;
  f->last_tick = mg_now();
  const mg_status status = f->job->tick(f->job->context);
  if (status != MG_OK) end_with(f, status, mg_error_message());
}

static void take_result(farm *f, int rank, int64_t unit, const void *payload, size_t size) {
  bool wanted;
  mg_status status = mg_queue_returned(f->queue, rank, unit, &wanted);
  if (wanted) status = f->job->take(f->job->context, unit, payload, size);
  if (status != MG_OK) end_with(f, status, mg_error_message());
  if (wanted) tick(f, false);
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
    take_result(f, worker, in.unit, payload, (size_t)size - sizeof in);
    top_up(f, worker);
    break;
  case FAILED:
    end_with(f, (mg_status)in.status, payload);
    break;
  case BYE:
    mg_queue_bye(f->queue, worker);
    break;
  default:
    give_up(f->comm);
  }
  free(buffer);
}

static bool serve(farm *f) {
  bool any = false;
  const double began = mg_now();
  for (int there = 1; f->ranks > 1;) {
    MPI_Status probed;
    MPI_Iprobe(MPI_ANY_SOURCE, TAG_TO_MASTER, f->comm, &there, &probed);
    if (!there) break;
    receive_from_worker(f, &probed);
    any = true;
  }
  if (any) f->serving += mg_now() - began;
  if (mg_stop_requested()) end_by_signal(f);
  tick(f, false);
  return any;
}

static void compute_here(farm *f, int64_t unit) {
  mg_text payload = {0};
  mg_status status = f->job->work(f->job->context, unit, &payload, f);
  if (status == MG_OK && payload.failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK)
    take_result(f, 0, unit, payload.data, payload.size);
  else
    end_with(f, status, mg_error_message());
  mg_text_free(&payload);
}

static void run_master(farm *f) {
  const double began = mg_now();
  int64_t unit;
  for (int worker = 1; worker < f->ranks; worker++) top_up(f, worker);
  while (!mg_queue_over(f->queue)) {
    const bool busy = serve(f);
    if (mg_queue_own(f->queue, &unit))
      compute_here(f, unit);
    else if (!busy)
      usleep(IDLE_MICROSECONDS);
  }
  mg_queue_close(f->queue);
  for (int worker = 1; worker < f->ranks; worker++) send_header(f, worker, END, 0);
  while (!mg_queue_all_gone(f->queue))
    if (!serve(f)) usleep(IDLE_MICROSECONDS);
  tick(f, true);
  const double seconds = mg_now() - began;
  if (f->ranks > MG_MASTER_COMPUTES_UP_TO && seconds > WORTH_SAYING && f->serving > BUSY * seconds)
    mg_info("rank 0 was busy with the results of %d others for %.0f%% of %.1f s: fewer ranks would take as long", f->ranks - 1,
            100 * f->serving / seconds, seconds);
}

/* ---- workers ---- */

static void listen(farm *f) {
  for (int there = 1;;) {
    header in;
    MPI_Iprobe(0, TAG_TO_WORKER, f->comm, &there, MPI_STATUS_IGNORE);
    if (!there) return;
    MPI_Recv(&in, (int)sizeof in, MPI_BYTE, 0, TAG_TO_WORKER, f->comm, MPI_STATUS_IGNORE);
    if (in.kind == END) f->leases.ended = true;
    if (in.kind == LEASE && !mg_leases_add(&f->leases, in.unit)) give_up(f->comm);
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

static void work_off(farm *f, int64_t unit, mg_text *payload) {
  payload->size = 0;
  mg_status status = f->job->work(f->job->context, unit, payload, f);
  if (status == MG_OK && payload->failed) status = mg_fail(MG_ERR_NOMEM, "out of memory");
  if (status == MG_OK) {
    send_to_master(f, RESULT, unit, MG_OK, payload, NULL);
  } else if (!f->leases.ended) {
    end_with(f, status, mg_error_message());
    send_to_master(f, FAILED, unit, f->status, NULL, f->message ? f->message : "out of memory");
  }
}

static void run_worker(farm *f) {
  mg_text payload = {0};
  bool told = false;
  int64_t unit;
  while (!f->leases.ended) {
    listen(f);
    if (f->leases.ended) break;
    if (mg_stop_requested() && !told) {
      told = true;
      end_by_signal(f);
      send_to_master(f, FAILED, -1, f->status, NULL, f->message ? f->message : "stopped");
    }
    if (f->status == MG_OK && mg_leases_next(&f->leases, &unit))
      work_off(f, unit, &payload);
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
  if (f->leases.ended) return mg_fail(MG_STOPPED, "stopped");
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
  if (f.rank == 0 && mg_queue_create(job->units, f.ranks, &f.queue) != MG_OK) give_up(comm);
  if (f.rank == 0)
    run_master(&f);
  else
    run_worker(&f);
  mg_status status = f.rank == 0 ? mg_queue_status(f.queue) : MG_OK;
  if (status != MG_OK) mg_fail(status, "%s", f.message ? f.message : "out of memory");
  status = mg_agree(comm, status);
  MPI_Comm_free(&f.comm);
  mg_text_free(&f.outgoing);
  mg_queue_destroy(&f.queue);
  free(f.message);
  return status;
}
