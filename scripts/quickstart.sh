#!/usr/bin/env bash
# Install once, then compress a few photos and compare: see python -m testing.quickstart --help. Arguments are passed on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
python -m live.metrics.weights alex vgg dists >/dev/null
exec python -m testing.quickstart "$@"
