#!/usr/bin/env bash
# Make the committed results anew, from Kodak (LIVE_KODAK, or kodak/ once fetched), and the README's figures from them.
# About 20 minutes on two cores. out/kodak is resumable: remove it to measure anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh
data=${LIVE_KODAK:-kodak}
python -m live.metrics.weights
python -m testing.autoencoder --vae compact --data "$data" --json >out/kodak_autoencoder.json.new
python -m testing.evaluate --data "$data" --codecs live_plus,jpeg,webp,heif,avif --out out/kodak
mv out/kodak_autoencoder.json.new results/kodak_autoencoder.json
cp out/kodak/points.csv results/kodak.csv
python -m testing.quickstart --out out/assets --data kodak/none 2>/dev/null || python -m testing.quickstart --out out/assets
cp out/assets/side_by_side.png assets/side_by_side.png
python -m testing.figures
