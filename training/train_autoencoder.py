"""Train ``compact``, the project's own autoencoder, to be faithful *and* compressible.

    python -m training.train_autoencoder --config configs/autoencoder_compact.yaml --data DIR --run runs/compact

Each step draws one of L rate levels or, with probability ``clean_share``, none. At level l the latents are scaled by a
learned gain per channel, quantised (noise for the rate, straight-through for the decoder) and charged by a learned
hyperprior (with context) with weight mu_l; without a level the latents reach the decoder untouched. The loss is

    D + mu_l * bpp,   D = l1 * L1 + mse * MSE + alex * LPIPS-Alex + vgg * LPIPS-VGG + dists * DISTS   (pictures in [0, 1])

``--init checkpoints/compact.safetensors`` starts from exported weights (autoencoder, entropy model and gains) instead of
the patch transform: how a finished run is taken further.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from live.artefact import read_artefact, read_card
from live.command import Parser, run
from live.config import load_yaml, parse
from live.errors import ConfigError, InputError, naming
from live.files import check_folder
from live.latents.compact_net import FACTOR, CompactConfig, CompactNet, patch_components
from live.nets import bfloat16
from live.priors.hyper import HYPER_FACTOR, Hyperprior
from live.registry import rate_model_path

from .data import ALONE, Share, split
from .engine import Engine
from .grow import grow
from .losses import Phase, check_phases, distortion_terms, phase_at, picture_figures
from .schedule import Schedule


@dataclass(frozen=True)
class RateConfig:
    """The rate levels: mu from ``mu_fine`` to ``mu_coarse``, initial steps likewise, geometric."""

    levels: int = 8
    mu_fine: float = 0.06
    mu_coarse: float = 2.5
    step_fine: float = 0.2
    step_coarse: float = 1.2
    clean_share: float = 0.2
    width: int = 96
    z_channels: int = 48

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ConfigError(f"rate.levels must be 1 or more, not {self.levels}")
        for name in ("mu_fine", "mu_coarse", "step_fine", "step_coarse"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"rate.{name} must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True)
class AutoencoderConfig:
    """Everything that ``train_autoencoder`` reads; ``init``, from the command line: identity of the weights to start from."""

    schedule: Schedule
    phases: tuple[Phase, ...]
    model: CompactConfig = CompactConfig()
    rate: RateConfig = RateConfig()
    init: str = ""


def geometric(first: float, last: float, count: int) -> list[float]:
    """``count`` values from first to last with a constant ratio."""
    return [first * (last / first) ** (i / max(1, count - 1)) for i in range(count)]


class CompressibleAutoencoder(nn.Module):
    """The autoencoder, the gains of every rate level and the entropy model that charges for the latents."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.net = CompactNet(config.model)
        self.hyper = Hyperprior(config.model.channels, config.rate.width, config.rate.z_channels)
        self.log_gain = nn.Parameter(torch.zeros(config.rate.levels, config.model.channels))
        self.mu = geometric(config.rate.mu_fine, config.rate.mu_coarse, config.rate.levels)
        self.bf16 = config.schedule.bf16

    def init_from(self, pictures: list[Tensor], rate: RateConfig) -> None:
        mean, basis, std = patch_components(pictures, self.log_gain.shape[1])
        self.net.init_patch_transform(mean, basis, std)
        steps = torch.tensor(geometric(rate.step_fine, rate.step_coarse, rate.levels))
        self.log_gain.data.copy_(torch.log(std[None] / steps[:, None]))

    def load_released(self, path: Path) -> None:
        """Take over an exported autoencoder and, from beside it, its rate model (of as many levels as this one).

        The released one may be smaller (see ``grow``); what it lacks keeps its initial weights.
        """
        weights, _ = read_artefact(path, "autoencoder")
        rate, _ = read_artefact(rate_model_path(path), "rate_model")
        released = {f"net.{name}": tensor for name, tensor in weights.items() if not name.startswith("latent_")}
        self.load_state_dict(grow(released | rate, self.state_dict()))

    def forward(self, pictures: Tensor, level: int | None) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) in [0, 1] -> reconstruction in [0, 1], unclamped, and bits a pixel (scalar)."""
        with bfloat16(self.bf16 and self.training, pictures.device):
            latents = self.net.encoder(pictures * 2 - 1)
        latents, bpp = latents.float(), torch.zeros((), device=pictures.device)
        if level is not None:
            gain = self.log_gain[level].exp()[:, None, None]
            y = latents * gain
            estimate = self.hyper(y)
            latents = estimate.y_hat / gain
            pixels = pictures.shape[0] * pictures.shape[2] * pictures.shape[3]
            bpp = (estimate.y_bits + estimate.z_bits) / pixels
        with bfloat16(self.bf16 and self.training, pictures.device):
            decoded = self.net.decoder(latents)
        return decoded.float() / 2 + 0.5, bpp


class AutoencoderStage:
    """What the engine runs: the loss of a step and the validation figures."""

    def __init__(self, config: AutoencoderConfig, data: str | Path, init: Path | None = None):
        check_phases(config.phases, FACTOR * HYPER_FACTOR)
        largest = max(phase.crop for phase in config.phases)
        self.config = config
        self.train, self.held_out = split(data, largest, config.schedule.varied)
        self.share = ALONE
        torch.manual_seed(config.schedule.seed)
        self.model = CompressibleAutoencoder(config)
        self.model.init_from([p.float() / 127.5 - 1 for p in self.train.tensors[::4]], config.rate)
        if init:
            self.model.load_released(init)
        self.model.to(memory_format=torch.channels_last)

    def place(self, share: Share) -> None:
        self.share = share
        self.model.to(share.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]:
        (phase, start), rate = phase_at(self.config.phases, step), self.config.rate
        pictures, files = self.train.batch(self.config.schedule.seed, start, phase.batch, phase.crop, self.share)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        drawn = self.config.schedule.generator_at(step)
        clean = torch.rand((), generator=drawn).item() < rate.clean_share
        level = None if clean else int(torch.randint(rate.levels, (), generator=drawn).item())
        decoded, bpp = self.model(pictures, level)
        terms = distortion_terms(decoded, pictures, phase, self.config.schedule.bf16, self.share)
        distortion = sum(terms.values(), torch.zeros((), device=bpp.device))
        mu = 0.0 if level is None else self.model.mu[level]
        # The weight of a level in the sum: coarse levels have large losses, and would else drown the fine ones.
        loss = (distortion + mu * bpp) / math.sqrt(1 + 2 * mu)
        figures = {"level": -1 if level is None else level, "bpp": bpp.item()}
        return loss, figures | {f"d_{k}": v.item() for k, v in terms.items()}, files

    def validate(self) -> dict[str, float]:
        self.model.eval()
        held_out = self.held_out.to(self.share.device)
        figures: dict[str, float] = {}
        for level in (None, *range(0, self.config.rate.levels, 2)):
            name = "clean" if level is None else f"level{level}"
            level_figures = picture_figures(lambda pictures: self.model(pictures, level), held_out)  # noqa: B023
            figures |= {f"{name}_{k}": v for k, v in level_figures.items()}
        self.model.train()
        return figures


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m training.train_autoencoder", description="Train the compact autoencoder.")
    parser.add_argument("--config", default="configs/autoencoder_compact.yaml", help="(%(default)s)")
    parser.add_argument("--data", default=os.environ.get("LIVE_TRAIN"), help="folder of photos (default: LIVE_TRAIN)")
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/compact"),
        help="run folder (%(default)s); an interrupted run there goes on",
    )
    parser.add_argument("--init", type=Path, help="exported autoencoder to start from, its rate model beside it")
    args = parser.parse_args(argv)
    if not args.data:
        raise InputError("give a folder of photos with --data or LIVE_TRAIN")
    check_folder(args.run)
    values = load_yaml(args.config)
    if args.init:
        values["init"] = read_card(args.init).get("identity", "")
    with naming(args.config):
        config = parse(AutoencoderConfig, values)
    return Engine(AutoencoderStage(config, args.data, args.init), config.schedule, args.run, config).run()


if __name__ == "__main__":
    raise SystemExit(run(main, "run again to go on from the last state saved"))
