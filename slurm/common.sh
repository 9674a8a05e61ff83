# Sourced by the batch scripts beside it. Site values come from the environment (slurm/README.md lists them).
# shellcheck shell=bash

say() { printf '%s mergegrid job %s: %s\n' "$(date -u +%FT%TZ)" "${SLURM_JOB_ID:-?}" "$*"; }
die() { say "$*" >&2; exit 1; }

# USR1 asks for a stop; it may come before there is a child to pass it to. It is the only signal that both launchers pass on at
# once, and the only one trapped: with a second one trapped, CONT say, which Slurm sends along, bash can lose it while it waits.
warnings=0 child='' verb=run part=''
trap 'warnings=$((warnings + 1)); [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null || true' USR1

# What every script needs: MG_CONFIG, MG_RESULT, the program. Paths become absolute, because a requeued job may start elsewhere.
mg_setup() {
  [ -n "${MG_CONFIG:-}" ] || die 'MG_CONFIG is not set: the configuration (YAML)'
  [ -f "$MG_CONFIG" ] || die "MG_CONFIG: $MG_CONFIG: no such file"
  [ -n "${MG_RESULT:-}" ] || die 'MG_RESULT is not set: the result to write'
  MG_CONFIG=$(realpath -- "$MG_CONFIG")
  MG_RESULT=$(realpath -m -- "$MG_RESULT")
  MG_BINARY=${MG_BINARY:-$MG_HOME/build/mergegrid}
  [ -x "$MG_BINARY" ] || die "MG_BINARY: $MG_BINARY: no such program"
  mkdir -p -- "$(dirname -- "$MG_RESULT")"
  if [ -n "${MG_PROLOGUE:-}" ]; then
    # The site's modules and settings; such files seldom bear being strict with.
    set +eu
    # shellcheck source=/dev/null
    . "$MG_PROLOGUE"
    set -eu
  fi
  if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
}

# The launcher: mpirun, which starts its daemons through Slurm, unless MG_LAUNCHER says srun.
mg_launcher() {
  local tasks=${SLURM_NTASKS:-1} cores=${SLURM_CPUS_PER_TASK:-1}
  case ${MG_LAUNCHER:-mpirun} in
    mpirun)
      # Ranks are told of a lost node within half a minute; without this they would wait for it for eight.
      export OMPI_MCA_oob_tcp_keepalive_time=15 OMPI_MCA_oob_tcp_keepalive_intvl=5 OMPI_MCA_oob_tcp_keepalive_probes=3
      launcher=(mpirun -n "$tasks")
      if [ "$cores" -gt 1 ]; then launcher+=(--map-by "slot:PE=$cores" --bind-to core); fi
      ;;
    srun) launcher=(srun "--mpi=${MG_SRUN_MPI:-pmix}" -n "$tasks" "--cpus-per-task=$cores" --kill-on-bad-exit=1) ;;
    *) die "MG_LAUNCHER: '$MG_LAUNCHER' is neither mpirun nor srun" ;;
  esac
}

# First line of RESULT.state, and the attempt it is about ("" where there is no such file). Of a part: RESULT.part-I-of-N.state.
mg_state() { if [ -f "$MG_RESULT$part.state" ]; then head -n 1 -- "$MG_RESULT$part.state"; fi; }
mg_attempt() { if [ -f "$MG_RESULT$part.state" ]; then sed -n 's/^attempt //p' -- "$MG_RESULT$part.state"; fi; }

# mg_run [OPTION...]: runs mergegrid (`verb`: run, or gather) to its end and sets `outcome` and `code`, the script's exit code:
#   done      the result is there
#   again     stopped on the warning or a budget; what is finished is in the journal: 75
#   crashed   died without a word (a killed rank, a lost node): run again, but not for ever
#   failed    repeating it won't mend it
mg_run() {
  local before waited seen
  local -a launcher
  mg_launcher
  before=$(mg_attempt)
  if [ "$warnings" -gt 0 ]; then
    outcome=again code=75
    say 'asked to stop before it began'
    return
  fi
  say "${launcher[*]} $MG_BINARY $verb -c $MG_CONFIG, result $MG_RESULT$part"
  "${launcher[@]}" "$MG_BINARY" "$verb" -c "$MG_CONFIG" --set "result='${MG_RESULT//\'/\'\'}'" "$@" &
  child=$!
  [ "$warnings" = 0 ] || kill -USR1 "$child" 2>/dev/null || true # it came in between
  launched=0
  while :; do
    seen=$warnings waited=0
    wait "$child" || waited=$?
    [ "$waited" = 127 ] || launched=$waited # 127: it had been waited for already
    [ "$seen" = "$warnings" ] && break
  done
  child=
  mg_decide "$before"
  say "$outcome: launcher's exit code $launched, state '$(mg_state)'"
}

# RESULT.state decides, because launchers turn exit codes into others of their own; the launcher's code matters only where
# this attempt never came to own the result.
# shellcheck disable=SC2034 # the scripts exit with $code
mg_decide() {
  local before=$1 state
  state=$(mg_state)
  if [ "$launched" = 0 ] && [ "$state" = 'done' ]; then
    outcome='done' code=0
  elif [ "$(mg_attempt)" = "$before" ]; then
    case $launched in
      75) outcome=again code=75 ;;
      0 | 1 | 2) outcome=failed code=$((launched == 0 ? 1 : launched)) ;;
      *) outcome=crashed code=1 ;;
    esac
  else
    case $state in
      'done') outcome='done' code=$((launched == 3 ? 3 : 0)) ;;
      stopped) outcome=again code=75 ;;
      failed) outcome=failed code=1 ;;
      *) outcome=crashed code=1 ;;
    esac
  fi
  if [ "$outcome" = crashed ] && [ "$warnings" -gt 0 ]; then outcome=again code=75; fi # asked to stop, and killed before it had
}

# Counts crashes in a row beside the result: `mg_crashes add` counts one more and prints the number, `mg_crashes clear`.
mg_crashes() {
  local file=$MG_RESULT$part.crashes count=0
  case $1 in
    add)
      if [ -f "$file" ]; then count=$(cat -- "$file"); fi
      [[ $count =~ ^[0-9]+$ ]] || count=0
      echo $((count + 1)) >"$file"
      echo $((count + 1))
      ;;
    clear) rm -f -- "$file" ;;
  esac
}

# Runs until done: puts this job back into the queue after a stop, and after a crash unless it crashed too often in a row.
mg_run_requeued() {
  mg_run "$@"
  if [ "$outcome" = again ] && [ -n "$part" ] && [ "$warnings" = 0 ]; then
    mg_crashes clear
    say 'it waits for other parts: not put back into the queue'
    return
  fi
  case $outcome in
    crashed)
      crashes=$(mg_crashes add)
      if [ "$crashes" -gt "${MG_MAX_CRASHES:-3}" ]; then
        mg_crashes clear
        say "crashed $crashes times in a row: not run again"
        return
      fi
      ;;
    *) mg_crashes clear ;;
  esac
  case $outcome in
    again | crashed)
      if [ "${SLURM_RESTART_COUNT:-0}" -ge "${MG_MAX_RESTARTS:-100}" ]; then
        say "not run again after ${SLURM_RESTART_COUNT:-0} restarts; submit it anew to continue"
        return
      fi
      say 'back into the queue'
      scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}" || say 'scontrol could not requeue this job: submit it anew to continue' >&2
      ;;
  esac
}
