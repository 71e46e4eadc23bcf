"""Train a codec of clips, ``live_video`` or ``glc_video``, over released codecs of pictures.

    python -m training.train_video --config configs/live_video.yaml --clips DIR --data DIR --images CKPT... --run runs/video
    python -m training.train_video --config configs/glc_video.yaml --clips DIR --data DIR --images CKPT --run runs/video

The loss of a step, over the predicted frames of examples of T frames at a rate drawn at random, is

    mean over frames of weight_frame * D  +  mean bpp / lambda_rate  +  vq * the quantisers' loss

D is what the phase weighs: decoded latents, pictures through the frozen decoder, or nothing where only the rate can be
learned. Autoencoder, codecs of pictures and with them every first frame stay as they are.

``--images``: their checkpoints, ascending in rate. Without ``--init``, an exported codec of clips to take further,
training starts from their weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from live.artefact import read_card
from live.checkpoints import load_codec
from live.codecs import make_codec
from live.codecs.base import Codec
from live.codecs.video.base import FrameEstimate, VideoCodec
from live.command import Parser, run
from live.config import load_yaml, parse
from live.errors import ConfigError, InputError, ModelError, naming
from live.files import check_folder
from live.latents import load_autoencoder
from live.latents.base import Autoencoder
from live.nets import bfloat16

from .clips import split
from .data import ALONE, Share
from .engine import Engine
from .losses import Phase, channels_last, check_phases, distortion_terms, latent_terms, likeness, phase_at
from .schedule import Schedule


@dataclass(frozen=True)
class VideoPhase(Phase):
    """A phase whose examples are ``frames`` consecutive ones."""

    frames: int = 2


@dataclass(frozen=True)
class VideoTrainConfig:
    """Everything that ``train_video`` reads.

    codec and model: which one, and its sizes; lambdas: of the rates, lowest first; frame_weights: of D of the predicted
    frames of an example, in order, over and over, so that a codec may make some of them better than others; synthetic:
    share of photos set in motion among the examples; vq: weight of the quantisers' loss. From the command line: images
    and init, identities of what the run starts from.
    """

    schedule: Schedule
    phases: tuple[VideoPhase, ...]
    lambdas: tuple[float, ...]
    codec: str
    model: dict = field(default_factory=dict)
    frame_weights: tuple[float, ...] = (1.0,)
    synthetic: float = 0.2
    vq: float = 0.1
    images: tuple[str, ...] = ()
    init: str = ""


def untrained_codec(name: str, model: dict, images: Sequence[Codec]) -> VideoCodec:
    """A codec of clips for the latents of these codecs of pictures, not yet attached to them; ConfigError if it is none."""
    codec = make_codec(name, model | {"channels": images[0].channels})
    if not isinstance(codec, VideoCodec):
        raise ConfigError(f"codec must be one of clips, not {name}")
    return codec


def autoencoder_of(codec: VideoCodec, name: str | None) -> Autoencoder:
    """The autoencoder by its name, or the one that the codecs of pictures name; ModelError unless they were trained on it."""
    card = codec.images[0].card
    autoencoder = load_autoencoder(name or card["autoencoder_name"])
    if autoencoder.identity != card["autoencoder"]:
        raise ModelError(
            f"{codec.images[0].name} was trained on {card['autoencoder_name']} ({card['autoencoder'][:8]}), and "
            f"{autoencoder.name} is {autoencoder.identity[:8]}; give the one it was trained on with --vae"
        )
    return autoencoder


class VideoStage:
    """What the engine runs: the loss of a step and the validation figures."""

    def __init__(
        self,
        config: VideoTrainConfig,
        clips: str | Path,
        data: str | Path,
        images: Sequence[Path],
        vae: str | None = None,
        init: Path | None = None,
    ):
        self.config, self.share = config, ALONE
        self._known_stills: dict[int, dict[str, float]] = {}
        pictures = [load_codec(path) for path in images]
        torch.manual_seed(config.schedule.seed)
        self.model = untrained_codec(config.codec, config.model, pictures)
        if init:
            self.model.attach(pictures)
            self._take(init)
        else:
            self.model.start_from(*pictures)
        self.autoencoder = autoencoder_of(self.model, vae)
        _check(config, self.model, self.autoencoder)
        self.model.train().to(memory_format=torch.channels_last)
        longest, largest = (max(getattr(phase, size) for phase in config.phases) for size in ("frames", "crop"))
        self.train, self.held_out = split(clips, data, config.synthetic, longest, largest)

    def _take(self, path: Path) -> None:
        trained = load_codec(path)
        if type(trained) is not type(self.model) or trained.config != self.model.config:
            raise ConfigError(f"{path} is of another codec or size than the configuration; it cannot be started from")
        self.model.load_state_dict(trained.state_dict())

    def place(self, share: Share) -> None:
        self.share = share
        self.model.to(share.device)
        for image in self.model.images:
            image.to(share.device)
        self.autoencoder.to(share.device)

    @property
    def _bf16(self) -> torch.autocast:
        return bfloat16(self.config.schedule.bf16 and self.model.training, self.share.device)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Frames (B, T, 3, H, W) in [0, 1] -> latents (B, T, c, h, w)."""
        with self._bf16:
            return channels_last(self.autoencoder.encode(frames.flatten(0, 1))).unflatten(0, frames.shape[:2])

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, c, h, w) -> pictures in [0, 1], unclamped, with gradient."""
        with self._bf16:
            return self.autoencoder.reconstruct(latents)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float], list[Path]]:
        config, (phase, start) = self.config, phase_at(self.config.phases, step)
        frames, files = self.train.batch(config.schedule.seed, start, phase.batch, phase.frames, phase.crop, self.share)
        rate = int(torch.randint(len(config.lambdas), (), generator=config.schedule.generator_at(step)).item())
        latents = self.encode(frames)
        predicted = self.model.rollout(latents, rate)[1:]
        terms: dict[str, Tensor] = {}
        for number, frame in enumerate(predicted):
            weight = config.frame_weights[number % len(config.frame_weights)] / len(predicted)
            for name, term in self._distortion(frame, latents[:, number + 1], frames[:, number + 1], phase).items():
                terms[name] = terms.get(name, 0.0) + weight * term
        bpp = bits(predicted) / (frames[:, 1:].numel() / 3)
        vq = sum(frame.vq_loss for frame in predicted) / len(predicted)
        loss = sum(terms.values(), bpp / config.lambdas[rate] + config.vq * vq)
        figures = {"rate": rate, "bpp": bpp.item(), "vq": vq.item()}
        return loss, figures | {f"d_{k}": v.item() for k, v in terms.items()}, files

    def _distortion(self, frame: FrameEstimate, latents: Tensor, pictures: Tensor, phase: Phase) -> dict[str, Tensor]:
        """The weighted terms of D of a frame, given its latents (B, c, h, w) and its pictures (B, 3, H, W)."""
        terms = latent_terms(frame.latents, latents, self.autoencoder.statistics.std.to(latents), phase, self.share)
        if phase.sees_pictures:
            terms |= distortion_terms(
                self.decode(frame.latents), pictures, phase, self.config.schedule.bf16, self.share
            )
        return terms

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Of every rate: ``bpp`` of predicted and ``intra_bpp`` of first frames, ``alex`` and ``psnr`` of the last one; and
        under ``still_``, the same of all frames but the first coded as pictures."""
        self.model.eval()
        figures = {}
        for rate in range(len(self.config.lambdas)):
            first, *predicted = self.model.rollout(self._held_out_latents, rate)
            at_rate = {"intra_bpp": self._bpp([first])} | self._figures(predicted) | self._stills(rate)
            figures |= {f"rate{rate}_{k}": v for k, v in at_rate.items()}
        self.model.train()
        return figures

    @cached_property
    def _held_out_latents(self) -> Tensor:
        return self.encode(self.held_out.to(self.share.device))

    def _stills(self, rate: int) -> dict[str, float]:
        """The figures of frame by frame, which no training changes."""
        if rate not in self._known_stills:
            frames = self._held_out_latents[:, 1:].split(1, 1)
            figures = self._figures([self.model.rollout(frame, rate)[0] for frame in frames])
            self._known_stills[rate] = {f"still_{k}": v for k, v in figures.items()}
        return self._known_stills[rate]

    def _figures(self, coded: Sequence[FrameEstimate]) -> dict[str, float]:
        """Mean bpp of the held-out clips' frames, and what the last one looks like."""
        pictures = self.held_out[:, -1].to(self.share.device)
        decoded = self.autoencoder.decode(coded[-1].latents).to(pictures)
        return {"bpp": self._bpp(coded)} | likeness(decoded, pictures)

    def _bpp(self, coded: Sequence[FrameEstimate]) -> float:
        return bits(coded).item() / len(coded) / (self.held_out[:, 0].numel() / 3)


def bits(frames: Sequence[FrameEstimate]) -> Tensor:
    """All bits of some frames of a batch, a scalar."""
    return sum(frame.y_bits + frame.z_bits for frame in frames)


def _check(config: VideoTrainConfig, codec: VideoCodec, autoencoder: Autoencoder) -> None:
    """ConfigError where the parts of a configuration do not fit one another, the codecs of pictures or the autoencoder."""
    rates = getattr(codec.config, "rates", len(codec.images))  # all in one codec of pictures, or one in each
    if len(config.lambdas) != rates:
        raise ConfigError(f"lambdas must be {rates}, one a rate, not {len(config.lambdas)}")
    if not config.frame_weights:
        raise ConfigError("frame_weights must not be empty")
    if not 0 <= config.synthetic <= 1:
        raise ConfigError(f"synthetic must be 0 to 1, not {config.synthetic}")
    check_phases(config.phases, autoencoder.factor * codec.stride)
    for phase in config.phases:
        if phase.frames < 2:
            raise ConfigError(f"phases: frames must be 2 or more, one to predict from, not {phase.frames}")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m training.train_video", description="Train a codec of clips.")
    folder = os.environ.get("LIVE_VIDEO")
    parser.add_argument("--config", required=True)
    parser.add_argument(
        "--clips", default=folder and os.path.join(folder, "train"), help="folder of clips (default: LIVE_VIDEO/train)"
    )
    parser.add_argument("--data", default=os.environ.get("LIVE_TRAIN"), help="folder of photos (default: LIVE_TRAIN)")
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        required=True,
        metavar="CKPT",
        help="of the codecs of pictures, low rates first",
    )
    parser.add_argument("--vae", help="autoencoder: name, folder or file (default: what the codecs of pictures name)")
    parser.add_argument("--run", type=Path, required=True, help="run folder; an interrupted run there goes on")
    parser.add_argument("--init", type=Path, help="exported codec of clips to start from")
    args = parser.parse_args(argv)
    if not args.clips or not args.data:
        raise InputError(
            "give a folder of clips with --clips or LIVE_VIDEO, and one of photos with --data or LIVE_TRAIN"
        )
    check_folder(args.run)
    values = load_yaml(args.config) | {"images": [load_codec(path).identity for path in args.images]}
    if args.init:
        values["init"] = read_card(args.init).get("identity", "")
    with naming(args.config):
        config = parse(VideoTrainConfig, values)
    stage = VideoStage(config, args.clips, args.data, args.images, args.vae, args.init)
    return Engine(stage, config.schedule, args.run, config).run()


if __name__ == "__main__":
    raise SystemExit(run(main, "run again to go on from the last state saved"))
