#!/usr/bin/env bash
# The codecs of clips over the released codecs of pictures: live_video over live_plus, glc_video over glc.
#
#     LIVE_TRAIN=PHOTOS LIVE_VIDEO=CLIPS scripts/train_video.sh [CONFIGS]     the clips in CLIPS/train
#
# CONFIGS/live_video.yaml and glc_video.yaml; configs/ by default. Everything goes to out/video (LIVE_OUT: another folder):
# runs/ holds the training states, beside it lies what was exported. What is there already is skipped and an interrupted
# training resumes: run the same command again to go on. Copy the weights to checkpoints/ to release them.
# LIVE_LAUNCH: what runs the trainings (python -m), such as "accelerate launch -m" or "torchrun --nproc_per_node 8 -m --".
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/usage.sh"
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
live_absolute LIVE_TRAIN LIVE_VIDEO LIVE_OUT LIVE_CHECKPOINTS
configs=$(realpath -m -- "${1:-$live_root/configs}")
cd "$live_root"
live_needs LIVE_TRAIN "a folder of training photos"
live_needs LIVE_VIDEO "a folder with training clips in its folder train"
out=${LIVE_OUT:-out/video}
released=${LIVE_CHECKPOINTS:-checkpoints}

train() { # NAME IMAGES...
    local name=$1
    shift
    [ ! -f "$out/$name.safetensors" ] || return 0
    ${LIVE_LAUNCH:-python -m} training.train_video --config "$configs/$name.yaml" --images "$@" --run "$out/runs/$name"
    python -m training.export video --run "$out/runs/$name" --images "$@" -o "$out/$name.safetensors"
}
train live_video "$released"/live_plus_q[1-5].safetensors
train glc_video "$released/glc_compact.safetensors"
echo "$out: live_video.safetensors and glc_video.safetensors"
