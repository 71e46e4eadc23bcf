"""Train a latent codec at one lambda on a frozen autoencoder.

    python -m training.train_codec --config configs/live_plus.yaml --lambda 2.5 --data DIR --run runs/plus-2.5 [--init PATH]

The loss is lambda * D + bpp, divided by lambda where that is above 1 (so that gradients keep their size); bpp counts the
bits of a pixel of the picture. D is what the configuration weighs: pictures through the frozen decoder, or latents alone,
which any autoencoder allows, and a latent cache (``--latents``) makes fast.

``--init``: another lambda's exported checkpoint (a sweep goes from fine to coarse, each from the last), or the same
lambda's, to take it further. Without it ``live_plus`` starts from the rate model that lies beside the autoencoder,
where there is one.

``after: OTHER.yaml`` in a configuration is for ``sweep_lambda.sh``, which asks for the order by ``--list``: there each
lambda starts from its own checkpoint of the sweep that OTHER.yaml describes.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from live.artefact import read_artefact, read_card
from live.checkpoints import load_codec
from live.codecs import LivePlus, make_codec
from live.codecs.base import LatentCodec
from live.command import Parser, run
from live.config import load_yaml, parse
from live.errors import ConfigError, InputError, naming
from live.files import check_folder
from live.latents import load_autoencoder
from live.latents.base import Autoencoder, Statistics
from live.latents.compact import CompactAutoencoder
from live.nets import bfloat16
from live.registry import rate_model_path

from . import latent_cache
from .data import ALONE, VALIDATION_PHOTOS, Share, split
from .engine import Engine
from .losses import (
    Phase,
    channels_last,
    check_phases,
    distortion_terms,
    latent_terms,
    phase_at,
    picture_figures,
)
from .schedule import Schedule


@dataclass(frozen=True)
class CodecConfig:
    """Everything that ``train_codec`` reads.

    codec and model: which one, and its sizes; lambdas: those of a sweep, fine to coarse. From the command line:
    trained_at, the lambda of this run, and the identities of vae, the autoencoder, and init, the checkpoint that it starts from.
    sample: the codec is given draws from the autoencoder's posterior, and what it decodes is measured by the mean.
    unscaled: the codec sees latents as they are before the diffusion scale, as LIVE's does; its card says so.
    """

    schedule: Schedule
    phases: tuple[Phase, ...]
    codec: str = "live_plus"
    model: dict = field(default_factory=dict)
    lambdas: tuple[float, ...] = ()
    sample: bool = False
    unscaled: bool = False
    trained_at: float = 0.0
    init: str = ""
    vae: str = ""


def load_config(path: Path) -> tuple[dict[str, Any], Path | None]:
    """A configuration's settings, and the configuration of the sweep that its own comes after, if it names one."""
    values = load_yaml(path)
    after = values.pop("after", None)
    if after is not None and not isinstance(after, str):
        raise ConfigError(f"{path}: after must name the configuration file of another sweep")
    return values, path.parent / after if after else None


def plan(path: Path, given: list[float]) -> tuple[tuple[float, ...], list[Path]]:
    """What a sweep trains: its lambdas, ``given`` or the configuration's, and the configurations in order, ``path`` last.

    Given ones are put in order, fine to coarse. Each configuration starts from the checkpoints of the one before it.
    ConfigError or InputError before anything is trained.
    """
    lambdas = tuple(sorted(given, reverse=True)) or parse(CodecConfig, load_config(path)[0]).lambdas
    if not lambdas:
        raise ConfigError(f"{path} lists no lambdas; give some behind it")
    if not all(0 < value < math.inf for value in lambdas):
        raise InputError("a lambda must be a positive number")
    order: list[Path] = []
    before: Path | None = path
    while before:
        if before.stem in (later.stem for later in order):
            raise ConfigError(f"{order[0]} cannot come after {before}: its sweep has the name of a later one")
        order.insert(0, before)
        values, before = load_config(before)
        parse(CodecConfig, values)
    return lambdas, order


def qualities(path: Path, lambdas: tuple[float, ...]) -> list[int]:
    """The qualities that lambdas become: their places, from 1, among the configuration's and themselves, coarse to fine; so a
    lambda's is the same whichever of the configuration's are trained with it."""
    places = sorted({*lambdas, *parse(CodecConfig, load_config(path)[0]).lambdas})
    return [places.index(value) + 1 for value in lambdas]


def rate_model_gain(mu: float, state: dict[str, Tensor]) -> Tensor:
    """Log gains (1, c, 1, 1) at exchange rate mu: linear in log mu between a rate model's levels, or one level beyond."""
    levels, gains = state["mu"].log(), state["log_gain"]
    place = torch.searchsorted(levels, torch.tensor(math.log(mu))).clamp(1, len(levels) - 1)
    share = ((math.log(mu) - levels[place - 1]) / (levels[place] - levels[place - 1])).clamp(-1, 2)
    return (gains[place - 1] + share * (gains[place] - gains[place - 1])).reshape(1, -1, 1, 1)


def latent_scale(unscaled: bool, autoencoder: Autoencoder) -> float:
    """What a codec's latents are multiplied by before it sees them; ConfigError where no one number undoes the diffusion scale."""
    if not unscaled:
        return 1.0
    if autoencoder.diffusion_scale is None:
        raise ConfigError(f"unscaled: the latents of {autoencoder.name} are scaled by channel; choose unscaled: false")
    return 1 / autoencoder.diffusion_scale


def initial_codec(config: CodecConfig, autoencoder: Autoencoder, init: Path | None) -> LatentCodec:
    """The codec that training starts from: the weights of ``init``, else of the autoencoder's rate model, else new ones."""
    codec = make_codec(config.codec, config.model | {"channels": autoencoder.channels})
    same_lambda = False
    if init:
        trained = load_codec(init)
        same_lambda = trained.card.get("lambda") == config.trained_at
        if trained.config != codec.config or type(trained) is not type(codec):
            raise ConfigError(f"{init} is of another codec or size than the configuration; it cannot be started from")
        codec.load_state_dict(trained.state_dict())
    if isinstance(codec, LivePlus):
        scale, known = latent_scale(config.unscaled, autoencoder), autoencoder.statistics
        codec.set_statistics(Statistics(known.mean * scale, known.std * scale))
        has_rate_model = isinstance(autoencoder, CompactAutoencoder) and rate_model_path(autoencoder.path).exists()
        if has_rate_model and not same_lambda:
            _take_rate_model(codec, rate_model_path(autoencoder.path), 1 / config.trained_at, with_hyper=not init)
    return codec


def _take_rate_model(codec: LivePlus, path: Path, mu: float, with_hyper: bool) -> None:
    state = {name: tensor.float() for name, tensor in read_artefact(path, "rate_model")[0].items()}
    hyper = {name.removeprefix("hyper."): t for name, t in state.items() if name.startswith("hyper.")}
    own = codec.hyper.state_dict()
    if with_hyper and all(name not in own or own[name].shape == tensor.shape for name, tensor in hyper.items()):
        codec.hyper.load_state_dict(hyper, strict=False)  # networks of other widths begin anew
    # y = gain * (latent - mean) / std here, and gain * latent in the rate model.
    codec.log_gain.data.copy_(rate_model_gain(mu, state) + codec.std.log())


class CodecStage:
    """What the engine runs: the codec trains, the autoencoder stays frozen."""

    def __init__(
        self, config: CodecConfig, data: Path, autoencoder: Autoencoder, init: Path | None, cache: Path | None = None
    ):
        self.config, self.autoencoder, self.share = config, autoencoder, ALONE
        self.scale = latent_scale(config.unscaled, autoencoder)
        self.pictures = any(phase.sees_pictures for phase in config.phases)
        self.validates_loss = not self.pictures
        if self.pictures and cache:
            raise ConfigError(
                "the configuration weighs pictures, which a latent cache cannot give; weigh latents alone"
            )
        if config.sample and (cache or getattr(autoencoder, "kind", "") != "AutoencoderKL"):
            what = "a latent cache, which holds its mean," if cache else autoencoder.name
            raise ConfigError(f"the configuration draws from a posterior, and {what} has none; set sample: false")
        torch.manual_seed(config.schedule.seed)
        self.model: nn.Module = initial_codec(config, autoencoder, init)  # type: ignore[assignment]
        check_phases(config.phases, autoencoder.factor * self.model.stride)
        self.model.train().requires_grad_(True)
        if isinstance(self.model, LivePlus):  # its medians stay 0: see Hyperprior
            self.model.hyper.entropy_bottleneck.quantiles.requires_grad_(False)
        self.model.to(memory_format=torch.channels_last)
        largest = max(phase.crop for phase in config.phases)
        self.from_cache = cache is not None
        if cache:
            self.train, held_out = latent_cache.read(cache, data, autoencoder, largest // autoencoder.factor)
            self.held_out = held_out.middle(largest // autoencoder.factor)[:VALIDATION_PHOTOS]
        else:
            self.train, self.held_out = split(data, largest, config.schedule.varied)

    def place(self, share: Share) -> None:
        self.share = share
        self.model.to(share.device)
        self.autoencoder.to(share.device)

    @property
    def _bf16(self) -> torch.autocast:
        return bfloat16(self.config.schedule.bf16 and self.model.training, self.share.device)

    def latents_of(self, examples: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, H, W) in [0, 1], or cached latents -> latents (B, c, h, w) without gradient: as the codec is given
        them, and as they are to come back."""
        if self.from_cache:
            return examples * self.scale, examples * self.scale
        with self._bf16:
            if not self.config.sample:
                latents = channels_last(self.autoencoder.encode(examples)) * self.scale
                return latents, latents
            mean, std = (channels_last(values) * self.scale for values in self.autoencoder.posterior(examples))
        return mean + std * torch.randn_like(mean), mean

    def _latent_terms(self, decoded: Tensor, latents: Tensor, phase: Phase, share: Share) -> dict[str, Tensor]:
        std = self.autoencoder.statistics.std.to(latents) * self.scale
        return latent_terms(decoded, latents, std, phase, share)

    def coded(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, c, h, w) -> decoded latents, and bits a pixel (scalar)."""
        coded = self.model.estimate(latents)
        pixels = latents.shape[0] * latents.shape[2] * latents.shape[3] * self.autoencoder.factor**2
        return coded.latents, (coded.y_bits + coded.z_bits) / pixels

    def decode(self, latents: Tensor) -> Tensor:
        """The codec's latents -> pictures in [0, 1], unclamped, with gradient."""
        with self._bf16:
            return self.autoencoder.reconstruct(latents / self.scale)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]:
        (phase, start), factor = phase_at(self.config.phases, step), self.autoencoder.factor
        crop = phase.crop // factor if self.from_cache else phase.crop
        examples, files = self.train.batch(self.config.schedule.seed, start, phase.batch, crop, self.share)
        examples = examples.contiguous(memory_format=torch.channels_last)
        given, latents = self.latents_of(examples)
        decoded, bpp = self.coded(given)
        terms = self._latent_terms(decoded, latents, phase, self.share)
        if phase.sees_pictures:
            terms |= distortion_terms(self.decode(decoded), examples, phase, self.config.schedule.bf16, self.share)
        weight = self.config.trained_at
        loss = (weight * sum(terms.values(), torch.zeros((), device=bpp.device)) + bpp) / max(1.0, weight)
        return loss, {"bpp": bpp.item(), **{f"d_{k}": v.item() for k, v in terms.items()}}, files

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        held_out = self.held_out.to(self.share.device)
        if self.pictures:
            figures = picture_figures(self._through, held_out)
        else:
            given, latents = self.latents_of(held_out)
            decoded, bpp = self.coded(given)
            terms = self._latent_terms(decoded, latents, self.config.phases[-1], ALONE)
            figures = {"bpp": bpp.item(), **{k: v.item() for k, v in terms.items()}}
            figures["loss"] = self.config.trained_at * sum(v.item() for v in terms.values()) + bpp.item()
        self.model.train()
        return figures

    def _through(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        decoded, bpp = self.coded(self.latents_of(pictures)[0])
        return self.decode(decoded), bpp


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m training.train_codec", description="Train a latent codec at one lambda.")
    parser.add_argument(
        "--lambda",
        dest="weight",
        type=float,
        help="weight of the distortion over bits a pixel; needed, as --run is, but for --list",
    )
    parser.add_argument("--config", type=Path, default=Path("configs/live_plus.yaml"), help="(%(default)s)")
    parser.add_argument("--data", type=Path, default=os.environ.get("LIVE_TRAIN"), help="photos (default: LIVE_TRAIN)")
    parser.add_argument("--latents", type=Path, metavar="CACHE", help="of training.latent_cache, made from --data")
    parser.add_argument("--vae", default="compact", help="autoencoder: name, folder or hub id (%(default)s)")
    parser.add_argument("--init", type=Path, help="exported checkpoint to start from, of any lambda")
    parser.add_argument("--run", type=Path, help="run folder; an interrupted run there goes on")
    what = "print what a sweep trains: lambdas, given or the configuration's, their qualities, then configurations, one a line"
    parser.add_argument("--list", nargs="*", type=float, metavar="LAMBDA", help=what)
    args = parser.parse_args(argv)
    if args.list is not None:
        lambdas, order = plan(args.config, args.list)
        print(" ".join(f"{value:g}" for value in lambdas))
        print(*qualities(args.config, lambdas))
        print(*order, sep="\n")
        return 0
    if not args.weight or not 0 < args.weight < math.inf or not args.run:
        raise InputError("give a positive --lambda and a --run folder")
    if not args.data:
        raise InputError("give a folder of photos with --data or LIVE_TRAIN")
    check_folder(args.run)
    autoencoder = load_autoencoder(args.vae)
    given = {"trained_at": args.weight, "vae": autoencoder.identity}
    given |= {"init": read_card(args.init).get("identity", "")} if args.init else {}
    values = load_config(args.config)[0] | given
    with naming(args.config):
        config = parse(CodecConfig, values)
    stage = CodecStage(config, Path(args.data), autoencoder, args.init, args.latents)
    return Engine(stage, config.schedule, args.run, config).run()


if __name__ == "__main__":
    raise SystemExit(run(main, "run again to go on from the last state saved"))
