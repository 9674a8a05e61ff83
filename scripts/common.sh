# Sourced by the scripts beside it: where the project is, and how to start MPI programs here.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export root

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

jobs=$(nproc 2>/dev/null || echo 2)
export jobs

# Open MPI refuses to run as root unless told twice, and refuses more ranks than cores unless told so.
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
export OMPI_MCA_rmaps_base_oversubscribe=1

# A Python that has the modules named; the system's comes first, since that is where the packages are installed.
find_python() {
  local python modules
  modules=$(IFS=,; echo "$*")
  for python in /usr/bin/python3 python3; do
    if command -v "$python" >/dev/null && "$python" -c "import $modules" 2>/dev/null; then
      command -v "$python"
      return 0
    fi
  done
  return 1
}
