#!/usr/bin/env bash
# GLC's three stages: the VQ autoencoder, transform coding in its latent, both together in pixels.
#
#     LIVE_TRAIN=PHOTOS scripts/train_glc.sh [CONFIGS]     CONFIGS/glc_stage1.yaml, 2 and 3; configs/ by default
#
# Everything goes to out/glc (LIVE_GLC: another folder): runs/ holds the training states, stage1/ to stage3/ what was
# exported. What is there already is skipped and an interrupted training resumes: run the same command again to go on.
# The released weights are stage3's: copy them to checkpoints/, or point LIVE_CHECKPOINTS there.
# LIVE_LAUNCH: what runs the trainings (python -m), such as "accelerate launch -m" or "torchrun --nproc_per_node 8 -m --".
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/usage.sh"
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
live_absolute LIVE_TRAIN LIVE_GLC LIVE_CHECKPOINTS
configs=$(realpath -m -- "${1:-$live_root/configs}")
cd "$live_root"
live_needs LIVE_TRAIN "a folder of training photos"
out=${LIVE_GLC:-out/glc}
vq=glc_compact_vq.safetensors codec=glc_compact.safetensors

if [ ! -f "$out/stage1/$vq" ]; then
    ${LIVE_LAUNCH:-python -m} training.train_vq --config "$configs/glc_stage1.yaml" --compact "${LIVE_CHECKPOINTS:-checkpoints}/compact.safetensors" --run "$out/runs/stage1"
    python -m training.export vq --run "$out/runs/stage1" -o "$out/stage1/$vq"
fi
if [ ! -f "$out/stage2/$codec" ]; then
    ${LIVE_LAUNCH:-python -m} training.train_glc --config "$configs/glc_stage2.yaml" --vae "$out/stage1/$vq" --run "$out/runs/stage2"
    python -m training.export glc --run "$out/runs/stage2" --vae "$out/stage1/$vq" -o "$out/stage2"
fi
if [ ! -f "$out/stage3/$codec" ]; then
    ${LIVE_LAUNCH:-python -m} training.train_glc --config "$configs/glc_stage3.yaml" --vae "$out/stage2/$vq" --init "$out/stage2/$codec" \
        --aids "$out/runs/stage1" "$out/runs/stage2" --run "$out/runs/stage3"
    python -m training.export glc --run "$out/runs/stage3" --vae "$out/stage2/$vq" -o "$out/stage3"
fi
echo "$out/stage3: $vq and $codec"
