#!/usr/bin/env bash
# GLC's ablations: stage II as it is, with a factorised hyperprior for the categorical hyper module, and without code
# prediction; each trained alike on the VQ autoencoder of stage I, then measured on Kodak (LIVE_KODAK, or kodak/ once fetched).
#
#     LIVE_TRAIN=PHOTOS scripts/ablate_glc.sh [CONFIGS]     CONFIGS/glc_stage2.yaml, glc_factorised and glc_no_code; configs/ by default
#
# The autoencoder is scripts/train_glc.sh's (LIVE_VQ: another file). The embedded one will not do: its encoder has moved since its
# codebook was learned, whose codes are to be predicted. Everything goes to out/ablation (LIVE_ABLATION: another folder). What is
# there already is skipped and an interrupted training resumes: run the same command again to go on. For the README's table copy
# kodak/points.csv, which it ends with, to results/glc_ablation.csv and run python -m testing.figures.
# LIVE_LAUNCH: what runs the trainings (python -m), such as "accelerate launch -m" or "torchrun --nproc_per_node 8 -m --".
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/usage.sh"
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
live_absolute LIVE_TRAIN LIVE_ABLATION LIVE_KODAK LIVE_VQ
configs=$(realpath -m -- "${1:-$live_root/configs}")
cd "$live_root"
live_needs LIVE_TRAIN "a folder of training photos"
out=${LIVE_ABLATION:-out/ablation}
vq=${LIVE_VQ:-out/glc/stage1/glc_compact_vq.safetensors}
variants=(glc_stage2 glc_factorised glc_no_code)
measured=(--data "${LIVE_KODAK:-kodak}" --out "$out/kodak" --reference original --metrics psnr,lpips_alex,dists)
python -m testing.evaluate "${measured[@]}" --codecs jpeg --dry-run >/dev/null # now, not after the trainings

for variant in "${variants[@]}"; do
    if [ ! -f "$out/$variant/glc_compact.safetensors" ]; then
        ${LIVE_LAUNCH:-python -m} training.train_glc --config "$configs/$variant.yaml" --vae "$vq" --run "$out/runs/$variant"
        python -m training.export glc --run "$out/runs/$variant" --vae "$vq" -o "$out/$variant"
    fi
done
codecs=$(printf ",$out/%s" "${variants[@]}")
LIVE_CHECKPOINTS=$(dirname "$vq") python -m testing.evaluate "${measured[@]}" --codecs "${codecs#,}"
