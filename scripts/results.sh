#!/usr/bin/env bash
# Make the committed results anew, from Kodak (LIVE_KODAK, or kodak/ once fetched), and the README's figures from them.
# About 11 minutes on two cores. An interrupted run goes on: out/kodak is kept until the results are in place.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
data=$(realpath "${LIVE_KODAK:-$live_root/kodak}")
cd "$live_root"
mkdir -p out/kodak results assets
python -m live.metrics.weights
if [ ! -s out/kodak/autoencoder.json ]; then
    python -m testing.autoencoder --vae compact --data "$data" --json >out/kodak/new
    mv out/kodak/new out/kodak/autoencoder.json
fi
python -m testing.evaluate --data "$data" --codecs live_plus,jpeg,webp,heif,avif --metrics psnr,ms_ssim,lpips_alex --out out/kodak
python -m testing.quickstart --out out/kodak_side_by_side --data "$data" --limit 3
cp out/kodak/points.csv results/kodak.csv
cp out/kodak/autoencoder.json results/kodak_autoencoder.json
cp out/kodak_side_by_side/side_by_side.png assets/side_by_side.png
python -m testing.figures
rm -r out/kodak # else retrained weights would keep the old ones' points
