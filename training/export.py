"""Turn a training state into released weights: the averaged weights in fp16, with a card that says how they came about.

python -m training.export autoencoder --run runs/compact -o checkpoints/compact.safetensors --data DIR
python -m training.export codec --run runs/plus-0.3 -o checkpoints/live_plus_q3.safetensors --quality 3
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from live.artefact import write_artefact
from live.checkpoints import export_codec
from live.codecs import make_codec, without_derived
from live.command import Parser, run
from live.config import parse
from live.errors import InputError, ModelError
from live.files import picture_files
from live.latents import load_autoencoder
from live.latents.base import identity_of
from live.latents.compact import CONVENTION
from live.latents.compact_net import CompactConfig, CompactNet
from live.registry import rate_model_path

from .data import Photos, is_validation


def load_run(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], int, dict[str, float]]:
    """A run's averaged weights, its configuration, its step and the last validation figures."""
    path = folder / "state.pt"
    if not path.is_file():
        raise ModelError(f"no training state at {path}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    log = folder / "validation.jsonl"
    figures = json.loads(log.read_text().splitlines()[-1]) if log.exists() else {}
    return state["ema"], json.loads(state["config"]), state["step"], figures


@torch.no_grad()
def export_autoencoder(folder: Path, output: Path, data: str) -> None:
    """Write the autoencoder and, beside it, ``*_rate_model``: the entropy model and gains it was trained with."""
    state, config, step, figures = load_run(folder)
    net = CompactNet(parse(CompactConfig, config["model"]))
    weights = {k.removeprefix("net."): v.half() for k, v in state.items() if k.startswith("net.")}
    net.load_state_dict({k: v.float() for k, v in weights.items()})
    held_out = Photos([f for f in picture_files(data) if is_validation(f)], 256).middle(256)
    latents = torch.cat([net.encoder(pictures * 2 - 1) for pictures in held_out.split(8)])
    weights["latent_mean"], weights["latent_std"] = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    card = {"config": config, "steps": step, "data": _data_name(data), "validation": figures}
    identity = identity_of(weights, CONVENTION)
    write_artefact(output, weights, {"kind": "autoencoder", "model": config["model"], "identity": identity, **card})
    rate = {k: v.half() for k, v in without_derived(state).items() if k.startswith("hyper.")}
    rate["log_gain"] = state["log_gain"]
    rate["mu"] = torch.tensor(_levels(config["rate"]))
    write_artefact(rate_model_path(output), rate, {"kind": "rate_model", **card})


def _levels(rate: dict[str, Any]) -> list[float]:
    from .train_autoencoder import geometric

    return geometric(rate["mu_fine"], rate["mu_coarse"], rate["levels"])


def export_run(folder: Path, output: Path, quality: int, vae: str) -> None:
    """Write a codec run as a checkpoint of the given quality."""
    state, config, step, figures = load_run(folder)
    autoencoder = load_autoencoder(vae)
    codec = make_codec(config["codec"], config["model"] | {"channels": autoencoder.channels})
    codec.load_state_dict(state)
    figures.pop("step", None)
    card = {
        "quality": quality,
        "autoencoder": autoencoder.identity,
        "autoencoder_name": autoencoder.name,
        "factor": autoencoder.factor,
        "lambda": config["trained_at"],
        "steps": step,
        "training": config,
        "validation": figures,
    }
    export_codec(codec, output, card)


def _data_name(data: str) -> str:
    return f"{len(picture_files(data))} photos, 4 % held out"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m training.export", description="Export a training run as released weights.")
    kinds = parser.add_subparsers(dest="kind", required=True, parser_class=Parser)
    autoencoder = kinds.add_parser("autoencoder")
    autoencoder.add_argument("--data", default=os.environ.get("LIVE_TRAIN"), help="photos, for the latent statistics")
    codec = kinds.add_parser("codec")
    codec.add_argument("--quality", type=int, required=True, help="1..255, the number users choose it by")
    codec.add_argument("--vae", default="compact")
    for each in (autoencoder, codec):
        each.add_argument("--run", type=Path, required=True)
        each.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args(argv)
    if args.kind == "codec":
        export_run(args.run, args.output, args.quality, args.vae)
    elif args.data:
        export_autoencoder(args.run, args.output, args.data)
    else:
        raise InputError("give the folder of photos with --data or LIVE_TRAIN")
    print(f"{args.output}: {args.output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
