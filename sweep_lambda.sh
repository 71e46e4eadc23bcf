#!/usr/bin/env bash
# A lambda sweep: train -> export a codec for every lambda, from fine to coarse, each from the last one's weights;
# then evaluate all of them beside the peers and plot.
#
#     LIVE_TRAIN=PHOTOS ./sweep_lambda.sh [CONFIG [LAMBDA ...]]     configs/live_plus.yaml and its lambdas by default
#     ./sweep_lambda.sh --quick                                    the whole chain in minutes, on scikit-image's photos
#
# Everything goes to out/sweep_NAME (LIVE_SWEEPS: another folder than out): runs/ holds training states, NAME/ the
# checkpoints, points.csv every measured point, beside its plots. What is there already is skipped and an interrupted
# training resumes: run the same command again to go on.
#
# LIVE_EVAL: folder of photos to evaluate on (Kodak where LIVE_KODAK points or kodak/ is filled, else scikit-image's)
# LIVE_CODECS: peers to evaluate beside (jpeg,webp,heif,avif); LIVE_METRICS (psnr,lpips_alex,dists)
set -euo pipefail
for folder in LIVE_TRAIN LIVE_EVAL LIVE_KODAK LIVE_SWEEPS; do # relative to where the user is
    [ -z "${!folder:-}" ] || export "$folder=$(realpath -m "${!folder}")"
done
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/env.sh

quick=
if [ "${1:-}" = --quick ]; then
    quick=1
    shift
fi
default=configs/live_plus.yaml
[ -z "$quick" ] || default=configs/quick.yaml
config=${1:-$default}
[ $# -eq 0 ] || shift
if [ $# -eq 0 ]; then
    lambdas=$(python -m training.train_codec --config "$config" --list)
    set -- $lambdas
fi
if [ $# -eq 0 ]; then
    echo "live: $config lists no lambdas; give some: ./sweep_lambda.sh $config 2.5 0.4" >&2
    exit 2
fi
name=$(basename "$config" .yaml)
out=${LIVE_SWEEPS:-out}/sweep_$name
if [ -n "$quick" ]; then
    train=$(python -m scripts.sample_photos "$out/tiles" --tiles)
else
    train=${LIVE_TRAIN:?set LIVE_TRAIN to a folder of training photos}
fi

quality=$#
init=()
for lambda in "$@"; do
    checkpoint=$out/$name/lambda-$lambda.safetensors
    if [ ! -f "$checkpoint" ]; then
        run=$out/runs/lambda-$lambda
        python -m training.train_codec --config "$config" --lambda "$lambda" --data "$train" --run "$run" "${init[@]}"
        python -m training.export codec --run "$run" --quality "$quality" -o "$checkpoint"
    fi
    init=(--init "$checkpoint")
    quality=$((quality - 1))
done

data=${LIVE_EVAL:-${LIVE_KODAK:-}}
[ -n "$data" ] || { [ -f kodak/kodim01.png ] && data=kodak; } || data=$(python -m scripts.sample_photos "$out/photos")
limit=()
codecs=${LIVE_CODECS:-jpeg,webp,heif,avif}
metrics=${LIVE_METRICS:-psnr,lpips_alex,dists}
if [ -n "$quick" ]; then
    codecs=jpeg
    limit=(--limit 2)
    data=$(python -m scripts.sample_photos "$out/photos")
fi
python -m live.metrics.weights alex vgg dists >/dev/null
python -m testing.evaluate --data "$data" --codecs "$out/$name,$codecs" --metrics "$metrics" --out "$out" "${limit[@]}"
python -m testing.report --data "$data" --ours "$out/$name" --out "$out"
python -m testing.curves --points "$out/points.csv" --metrics "$metrics" --out "$out/rd.png"
