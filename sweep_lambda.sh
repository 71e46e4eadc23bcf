#!/usr/bin/env bash
# A lambda sweep: train -> export a codec for every lambda, from fine to coarse; then evaluate all of them beside the
# peers and plot.
#
#     LIVE_TRAIN=PHOTOS ./sweep_lambda.sh [CONFIG [LAMBDA ...]]     configs/live_plus.yaml and its lambdas by default
#     ./sweep_lambda.sh --quick                                    the whole chain in minutes, on scikit-image's photos
#
# Each codec starts from the last one's weights. Where the configuration says "after: OTHER.yaml" it starts from that
# sweep's checkpoint of its own lambda, and what is missing of that sweep is trained first.
#
# Everything goes to out/sweep_NAME: runs/ holds training states, NAME/ the checkpoints, files/ the coded pictures;
# points.csv every measured point, beside rd.png and report.html. What is there already is skipped and an interrupted
# training resumes: run the same command again to go on. Remove the folder to begin anew.
#
# LIVE_TRAIN    folder of photos to train on; LIVE_LATENTS: their cache, by training.latent_cache
# LIVE_VAE      autoencoder to train on (compact); NAME then ends in it
# LIVE_LAUNCH   what runs the training (python -m), such as "accelerate launch -m" or "torchrun --nproc_per_node 8 -m --"
# LIVE_EVAL     folder of photos to evaluate on (Kodak where LIVE_KODAK points or kodak/ is filled, else scikit-image's)
# LIVE_CODECS   what to evaluate beside (jpeg,webp,heif,avif): peers, live_plus, other sweeps' folders of checkpoints
# LIVE_METRICS  (psnr,lpips_alex,dists)
# LIVE_SWEEPS   another folder than out
# With --quick, LIVE_TRAIN, LIVE_LATENTS, LIVE_EVAL and LIVE_CODECS do not count.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/scripts/usage.sh"

refuse() {
    echo "live: $*" >&2
    exit 2
}

quick=
default=configs/live_plus.yaml
case "${1:-}" in
    --quick)
        quick=1
        default=configs/quick.yaml
        shift
        ;;
    -*) refuse "unknown option $1 (see ./sweep_lambda.sh --help)" ;;
esac
[ -n "$quick" ] || [ -n "${LIVE_TRAIN:-}" ] || refuse "set LIVE_TRAIN to a folder of training photos"
source "$(dirname "${BASH_SOURCE[0]}")/scripts/env.sh"

config=${1:-$live_root/$default}
[ $# -eq 0 ] || shift
# The sweep's lambdas, their qualities and, below them, its configuration after those that come before it.
plan=$(python -m training.train_codec --config "$config" --list "$@")
mapfile -t configs <<<"$plan"
read -ra lambdas <<<"${configs[0]}"
read -ra qualities <<<"${configs[1]}"
configs=("${configs[@]:2}")
vae=${LIVE_VAE:-compact}
[[ $vae != */* || ! -e $vae ]] || vae=$(realpath "$vae") # its checkpoints name it

name_of() { # CONFIG: what its sweep is called
    local name
    name=$(basename "$1" .yaml)
    [ "$vae" = compact ] || name+=-$(basename "$vae" .safetensors)
    echo "$name"
}
sweeps=${LIVE_SWEEPS:-$live_root/out}
out=$sweeps/sweep_$(name_of "${configs[-1]}")
data=${LIVE_EVAL:-${LIVE_KODAK:-}}
[ -n "$data" ] || [ ! -f "$live_root/kodak/kodim01.png" ] || data=$live_root/kodak
if [ -n "$quick" ] || [ -z "$data" ]; then
    data=$(python -m scripts.sample_photos "$out/photos")
fi
peers=${LIVE_CODECS:-jpeg,webp,heif,avif}
metrics=${LIVE_METRICS:-psnr,lpips_alex,dists}
limit=()
if [ -n "$quick" ]; then
    peers=jpeg
    limit=(--limit 2)
    unset LIVE_LATENTS
fi
measured=(--data "$data" --metrics "$metrics" --out "$out" "${limit[@]}")
dataset=$(basename "$(realpath "$data")")
# What would be refused is refused now, not after hours of training.
for codec in ${peers//,/ }; do
    [[ $codec != */* || $(basename "$codec") != $(name_of "${configs[-1]}") ]] || refuse "$codec has the name of this sweep; rename that folder"
done
python -m live.metrics.weights alex vgg dists >/dev/null
python -m testing.evaluate "${measured[@]}" --codecs "$peers" --reference original --dry-run >/dev/null

before=
for config in "${configs[@]}"; do
    name=$(name_of "$config")
    out=$sweeps/sweep_$name
    if [ -n "$quick" ]; then
        LIVE_TRAIN=$(python -m scripts.sample_photos "$out/tiles" --tiles)
    fi
    options=(--config "$config" --vae "$vae" --data "$LIVE_TRAIN")
    [ -z "${LIVE_LATENTS:-}" ] || options+=(--latents "$LIVE_LATENTS")
    last=
    for place in "${!lambdas[@]}"; do
        lambda=${lambdas[place]}
        checkpoint=$out/$name/lambda-$lambda.safetensors
        if [ ! -f "$checkpoint" ]; then
            echo "$name at lambda $lambda" >&2
            init=${before:+$before/lambda-$lambda.safetensors}
            init=${init:-$last}
            run=$out/runs/lambda-$lambda
            ${LIVE_LAUNCH:-python -m} training.train_codec "${options[@]}" --lambda "$lambda" --run "$run" \
                ${init:+--init "$init"}
            python -m training.export codec --run "$run" --quality "${qualities[place]}" --vae "$vae" -o "$checkpoint"
        fi
        last=$checkpoint
    done
    before=$out/$name
done

codecs=$out/$name,$peers
status=0 # 1: a picture that cannot be read is left out and named; the others are reported all the same
python -m testing.evaluate "${measured[@]}" --codecs "$codecs" || status=$?
[ "$status" -le 1 ] || exit "$status"
python -m testing.report --data "$data" --dataset "$dataset" --ours "$codecs" --out "$out"
python -m testing.curves --points "$out/points.csv" --dataset "$dataset" --metrics "$metrics" --out "$out/rd.png"
exit "$status"
