#!/usr/bin/env bash
# Make the committed results anew, from Kodak (LIVE_KODAK, or kodak/ once fetched), and the README's figures from them.
# The peers' points against the original are kept, as they do not depend on our weights, and their seconds with them: remove
# results/kodak.csv to measure them too, as seconds of another machine must not stand beside ours. The README's seconds are
# of the photos that all codecs were timed on. All of it takes about an hour and a half on a core, and the refined files three hours
# more; glc has another autoencoder than the rest, so that it is held against the originals alone.
# An interrupted run goes on: out/kodak is kept until the results are in place.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/usage.sh"
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
data=$(realpath -m "${LIVE_KODAK:-$live_root/kodak}")
cd "$live_root"
mkdir -p out/kodak results assets
python -m live.metrics.weights alex vgg dists
if [ ! -s out/kodak/autoencoder.json ]; then
    python -m testing.autoencoder --vae compact --data "$data" --json >out/kodak/new
    mv out/kodak/new out/kodak/autoencoder.json
fi
if [ ! -e out/kodak/points.csv ] && [ -e results/kodak.csv ]; then
    python -m testing.results --points results/kodak.csv --peers --out out/kodak/points.csv
fi
export OMP_NUM_THREADS=1 # the README's seconds a photo are of one core: on a machine that has more, under taskset -c 0
evaluate() { python -m testing.evaluate --data "$data" --out out/kodak "$@" >out/kodak/table.md; }
evaluate --codecs vvc,jpeg,jpeg444,webp,heif,avif,avif420,jxl,live_plus,live_paper
evaluate --codecs glc,live_plus_refined,glc_refined --reference original
python -m testing.glc --data "$data" --json >out/kodak/glc.json
python -m testing.comparison --data "$data" --bpp 0.15 --pictures kodim05.png,kodim23.png --out assets/side_by_side.jpg
python -m testing.comparison --data "$data" --bpp 0.035 --codecs glc,heif,vvc --pictures kodim05.png,kodim23.png --out assets/side_by_side_glc.jpg
python -m testing.results --points out/kodak/points.csv --out results/kodak.csv
cp out/kodak/autoencoder.json results/kodak_autoencoder.json
cp out/kodak/glc.json results/glc.json
python -m testing.figures
rm -r out/kodak # else retrained weights would keep the old ones' points
