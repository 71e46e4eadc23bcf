#!/usr/bin/env bash
# Install once, then lint and run all tests, one worker of one thread a core; the tests of a file share a worker, for their fixtures.
# Arguments go to pytest instead: without -m they leave the slow tests out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$live_root"
python -m live.metrics.weights >/dev/null
ruff check .
[ $# -gt 0 ] || set -- -m ""
export OMP_NUM_THREADS=1
exec python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
