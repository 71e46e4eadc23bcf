#!/usr/bin/env bash
# Install once, then lint and run all tests. Arguments go to pytest instead: without -m they leave the slow tests out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$live_root"
python -m live.metrics.weights >/dev/null
ruff check .
[ $# -gt 0 ] || set -- -m ""
exec python -m pytest "$@"
