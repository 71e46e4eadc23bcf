#!/usr/bin/env bash
# Install once, then lint and test. Arguments go to pytest; without any, the slow tests are left out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$live_root"
python -m live.metrics.weights >/dev/null
ruff check .
exec python -m pytest "$@"
