#!/usr/bin/env bash
# The rate sweep: train -> export a codec for every exchange rate mu, from fine to coarse, each from the last one's weights.
#
#     LIVE_TRAIN=DIR ./sweep_lambda.sh [CONFIG [MU ...]]
#
# Points whose checkpoint exists are skipped and an interrupted one resumes: run the same command again to go on.
# LIVE_RUNS: folder of the training states (runs); LIVE_OUT: folder of the checkpoints (checkpoints).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/env.sh

config=${1:-configs/live_plus.yaml}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- 0.03 0.1 0.3 0.8 2 5
runs=${LIVE_RUNS:-runs}
out=${LIVE_OUT:-checkpoints}
name=$(basename "$config" .yaml)
: "${LIVE_TRAIN:?set LIVE_TRAIN to a folder of training photos}"

quality=$#
init=()
for mu in "$@"; do
    checkpoint=$out/${name}_q$quality.safetensors
    if [ ! -f "$checkpoint" ]; then
        python -m training.train_codec --config "$config" --mu "$mu" --run "$runs/$name-mu$mu" "${init[@]}"
        python -m training.export codec --run "$runs/$name-mu$mu" --quality "$quality" -o "$checkpoint"
    fi
    init=(--init "$checkpoint")
    quality=$((quality - 1))
done
