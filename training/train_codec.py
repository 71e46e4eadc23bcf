"""Train ``live_plus`` at one rate on a frozen autoencoder, through its decoder.

    python -m training.train_codec --mu 0.3 --config configs/live_plus.yaml --data DIR --run runs/plus-0.3 [--init PATH]

The loss is D + mu * bpp with D as in ``train_autoencoder``: mu is the exchange rate, distortion a picture may gain to
save one bit a pixel (large mu: small files). ``--init``: another rate's exported checkpoint (the sweep goes from fine to
coarse, each from the last), else the rate model that the autoencoder was trained with gives the hyperprior its start.
"""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from live.artefact import read_artefact
from live.checkpoints import load_codec
from live.codecs.plus import LivePlus, PlusConfig
from live.config import load_yaml, parse
from live.errors import LiveError
from live.files import picture_files
from live.latents import load_autoencoder
from live.latents.compact import CompactAutoencoder
from live.registry import rate_model_path

from .data import Photos, center_crops, is_validation
from .engine import Engine, Schedule
from .losses import Phase, bfloat16, distortion_terms, phase_at, picture_figures

VALIDATION_PHOTOS = 24


@dataclass(frozen=True)
class CodecConfig:
    """Everything that ``train_codec`` reads; ``mu`` comes from the command line, so that one file serves a sweep."""

    schedule: Schedule
    phases: tuple[Phase, ...]
    model: PlusConfig = PlusConfig()
    mu: float = 0.0


def rate_model_gain(mu: float, state: dict[str, Tensor]) -> Tensor:
    """Log gains (1, c, 1, 1) at exchange rate mu: linear in log mu between a rate model's levels, or one level beyond."""
    levels, gains = state["mu"].log(), state["log_gain"]
    place = torch.searchsorted(levels, torch.tensor(math.log(mu))).clamp(1, len(levels) - 1)
    share = ((math.log(mu) - levels[place - 1]) / (levels[place] - levels[place - 1])).clamp(-1, 2)
    return (gains[place - 1] + share * (gains[place] - gains[place - 1])).reshape(1, -1, 1, 1)


def initial_codec(config: CodecConfig, autoencoder: CompactAutoencoder, init: str | None) -> LivePlus:
    """The codec that training starts from: gains of the rate model at mu, weights of ``init`` or of the rate model."""
    codec = LivePlus(config.model, autoencoder.statistics)
    state, _ = read_artefact(rate_model_path(autoencoder.path), "rate_model")
    state = {name: tensor.float() for name, tensor in state.items()}
    hyper = {name.removeprefix("hyper."): t for name, t in state.items() if name.startswith("hyper.")}
    codec.hyper.load_state_dict(hyper, strict=False)
    if init:
        trained = load_codec(Path(init))
        assert isinstance(trained, LivePlus)
        codec.load_state_dict(trained.state_dict())
    # y = gain * (latent - mean) / std here, and gain * latent in the rate model.
    log_gain = rate_model_gain(config.mu, state) + codec.std.log()
    codec.log_gain.data.copy_(log_gain)
    return codec


class CodecStage:
    """What the engine runs: the codec trains, the autoencoder stays frozen."""

    def __init__(self, config: CodecConfig, data: str | Path, vae: str, init: str | None):
        autoencoder = load_autoencoder(vae)
        if not isinstance(autoencoder, CompactAutoencoder):
            raise LiveError(f"training through the decoder needs the project's own autoencoder, not {vae}")
        self.config, self.autoencoder, self.net = config, autoencoder, autoencoder.net
        torch.manual_seed(config.schedule.seed)
        self.model: nn.Module = initial_codec(config, autoencoder, init)
        self.model.train().requires_grad_(True)
        self.model.hyper.entropy_bottleneck.quantiles.requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)
        files = picture_files(data)
        largest = max(phase.crop for phase in config.phases)
        self.train = Photos([f for f in files if not is_validation(f)], largest)
        self.held_out = center_crops(Photos([f for f in files if is_validation(f)], 256), 256)[:VALIDATION_PHOTOS]

    def reconstruct(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) in [0, 1] -> reconstruction, unclamped, and bits a pixel (scalar)."""
        bf16 = self.config.schedule.bf16 and self.model.training
        with torch.no_grad(), bfloat16(bf16):
            latents = self.net.encoder(pictures * 2 - 1)
        coded = self.model(latents.float())
        pixels = pictures.shape[0] * pictures.shape[2] * pictures.shape[3]
        with bfloat16(bf16):
            decoded = self.net.decoder(coded.latents)
        return decoded.float() / 2 + 0.5, (coded.y_bits + coded.z_bits) / pixels

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]:
        phase = phase_at(self.config.phases, step)
        pictures, files = self.train.batch(self.config.schedule.seed, step, phase.batch, phase.crop)
        decoded, bpp = self.reconstruct(pictures.contiguous(memory_format=torch.channels_last))
        terms = distortion_terms(decoded, pictures, phase, self.config.schedule.bf16)
        loss = sum(terms.values(), self.config.mu * bpp)
        return loss, {"bpp": bpp.item(), **{f"d_{k}": v.item() for k, v in terms.items()}}, files

    def validate(self) -> dict[str, float]:
        self.model.eval()
        figures = picture_figures(self.reconstruct, self.held_out)
        self.model.train()
        return figures


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train live_plus at one rate on a frozen autoencoder.")
    parser.add_argument("--mu", type=float, required=True, help="distortion worth one bit a pixel")
    parser.add_argument("--config", default="configs/live_plus.yaml")
    parser.add_argument("--data", default=os.environ.get("LIVE_TRAIN"), help="folder of photos (default: LIVE_TRAIN)")
    parser.add_argument("--vae", default="compact")
    parser.add_argument("--init", help="exported checkpoint of another rate to start from")
    parser.add_argument("--run", required=True, help="run folder; an interrupted run there goes on")
    args = parser.parse_args(argv)
    if not args.data:
        parser.error("give a folder of photos with --data or LIVE_TRAIN")
    config = parse(CodecConfig, load_yaml(args.config) | {"mu": args.mu})
    Engine(CodecStage(config, args.data, args.vae, args.init), config.schedule, args.run, config).run()
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except LiveError as error:
        raise SystemExit(f"live: {error}") from None
