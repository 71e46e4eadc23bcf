#!/usr/bin/env bash
# GLC's ablations: stage II as it is, with a factorised hyperprior for the categorical hyper module, and without code
# prediction; each trained alike on the embedded VQ autoencoder, then measured on Kodak (LIVE_KODAK, or kodak/ once fetched).
#
#     LIVE_TRAIN=PHOTOS scripts/ablate_glc.sh
#
# Everything goes to out/ablation (LIVE_ABLATION: another folder) and the points to results/glc_ablation.csv. What is there
# already is skipped and an interrupted training resumes: run the same command again to go on.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
live_absolute LIVE_TRAIN LIVE_ABLATION LIVE_KODAK
cd "$live_root"
: "${LIVE_TRAIN:?set LIVE_TRAIN to a folder of training photos}"
out=${LIVE_ABLATION:-out/ablation}

for variant in glc_stage2 glc_factorised glc_no_code; do
    if [ ! -f "$out/$variant/glc_compact.safetensors" ]; then
        python -m training.train_glc --config "configs/$variant.yaml" --vae glc-compact --run "$out/runs/$variant"
        python -m training.export glc --run "$out/runs/$variant" --vae checkpoints/glc_compact_vq.safetensors -o "$out/$variant"
    fi
done
python -m testing.evaluate --data "${LIVE_KODAK:-kodak}" --out "$out/kodak" --reference original --metrics psnr,lpips_alex,dists \
    --codecs "$out/glc_stage2,$out/glc_factorised,$out/glc_no_code" >"$out/kodak/table.md"
cp "$out/kodak/points.csv" results/glc_ablation.csv
python -m testing.figures
