"""``live_video``: predicted frames for ``live_plus``. Its transforms stay as they are; the entropy of y is learned anew.

::

    latents ── live_plus' g_a ── y ── TemporalHyperprior, given y_hat of the frame before ── y_hat ── live_plus' g_s

One small network serves every quality, each of which codes its intra frames by its own ``live_plus`` checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...coder import Port
from ...errors import ConfigError, DamagedFile, InputError, ModelError
from ...priors.hyper import HYPER_FACTOR, MEAN_PRECISION, scale_table
from ...priors.tables import factorized_tables, gaussian_tables
from ...priors.temporal import FARTHEST, ExactTemporal, TemporalHyperprior
from ...tiles import ALIGN, Tiled, halo_of
from ..base import TILE, LatentCodec, channel_indices, flat
from ..halves import Prediction, code_halves
from ..plus import LivePlus
from .base import FrameEstimate, State, VideoCodec


@dataclass(frozen=True)
class LiveVideoConfig:
    """Latent channels c; width and blocks of the temporal network; z channels; how many qualities it serves."""

    channels: int = 16
    width: int = 64
    blocks: int = 3
    z_channels: int = 8
    qualities: int = 6

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1:
            raise ConfigError(f"every size must be 1 or more in live_video, not as in {self}")


class LiveVideo(VideoCodec):
    """The codec. ``rate``: which of ``images`` it codes intra frames by, and so its quality; ``at`` gives it at another."""

    codec_id = 5
    name = "live_video"
    stride = HYPER_FACTOR
    picture_kind = LivePlus

    def __init__(self, config: LiveVideoConfig):
        super().__init__(config.channels, {"config": asdict(config)})
        self.config, self.rate = config, 0
        self.temporal = TemporalHyperprior(
            config.channels, config.width, config.blocks, config.z_channels, config.qualities
        )

    def attach(self, images: Sequence[LatentCodec]) -> None:
        super().attach(images)
        qualities = self.qualities
        if len(images) != self.config.qualities or qualities != sorted(set(qualities)):
            raise ModelError(
                f"{self.name} needs live_plus checkpoints of {self.config.qualities} ascending qualities, not {qualities}"
            )

    def start_from(self, *images: LatentCodec) -> None:
        super().start_from(*images)
        for rate, image in enumerate(images):
            self.temporal.set_gains(rate, image.log_gain.detach().flatten())

    @property
    def qualities(self) -> list[int]:
        """The qualities of ``images``, which are this codec's."""
        return [image.card.get("quality", 0) for image in self.images]

    @property
    def highest(self) -> int:
        return max(self.qualities)

    @property
    def middle(self) -> int:
        return self.qualities[len(self.images) // 2]

    def at(self, quality: float) -> LiveVideo:
        if quality not in self.qualities or isinstance(quality, bool):
            known = ", ".join(map(str, self.qualities))
            raise InputError(f"unknown quality {quality!r} of {self.name}; choose from {known}")
        other = copy.copy(self)
        other.rate = self.qualities.index(int(quality))
        return other

    def at_byte(self, byte: int) -> LiveVideo:
        if byte not in self.qualities:
            raise DamagedFile("the file is damaged: its codec does not have the quality that it states")
        return self.at(byte)

    @property
    def quality_byte(self) -> int:
        return self.qualities[self.rate]

    @property
    def picture(self) -> LivePlus:
        return self.images[self.rate]

    def rollout(self, latents: Tensor, rate: int) -> list[FrameEstimate]:
        picture, nothing = self.images[rate], latents.new_zeros(())
        y = picture.analyse(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        with torch.no_grad():
            estimate = picture.hyper(y[:, 0])
        frames = [estimate]
        for number in range(1, y.shape[1]):
            frames.append(self.temporal(y[:, number], frames[-1].y_hat, rate))
        return [FrameEstimate(picture.synthesise(y_hat), *cost, nothing) for y_hat, *cost in frames]

    def walk_predicted(self, port: Port, height: int, width: int, state: State, latents: Tensor | None = None) -> State:
        entropy, rate = self._exact, self.rate
        before = state.y_hat.clamp(-FARTHEST, FARTHEST)
        y = None if latents is None else self.picture.tiled_analyse(latents)
        z = None if y is None else flat(self._tiled_h_a(torch.cat([y, before / MEAN_PRECISION], 1)))
        z_shape = (self.config.z_channels, height // HYPER_FACTOR, width // HYPER_FACTOR)
        z_hat = torch.from_numpy(port.code(z, channel_indices(*z_shape), self.tables["z"])).reshape(1, *z_shape)
        prediction = Prediction(
            lambda box: entropy.features(box.of(z_hat), box.of(before, HYPER_FACTOR), rate),
            lambda features, box, anchors: entropy.parameters_of(features, box.of(before, HYPER_FACTOR), rate, anchors),
            lambda: self._exact_halo,
        )
        y_hat = code_halves(port, self.tables["y"], prediction, (self.channels, height, width), y)
        return State(y_hat, self.picture.reconstruct(y_hat), state.position + 1)

    @property
    def _tiled_h_a(self) -> Tiled:
        def analyse(both: Tensor) -> Tensor:
            return self.temporal.analyse(*both.chunk(2, 1), self.rate)

        return Tiled(analyse, 2 * self.channels, HYPER_FACTOR, 1, TILE // HYPER_FACTOR)

    @cached_property
    def _exact_halo(self) -> int:
        """Cells of h_s and the temporal network, whose floating-point twins show their field, and of the context: one cell."""

        def features(z_hat: Tensor) -> Tensor:
            height, width = z_hat.shape[2] * HYPER_FACTOR, z_hat.shape[3] * HYPER_FACTOR
            return self.temporal.features(z_hat, z_hat.new_zeros(1, self.channels, height, width), self.rate)

        return max(ALIGN, halo_of(features, self.config.z_channels, 1, HYPER_FACTOR))

    def make_exact(self) -> None:
        _ = self._exact

    @cached_property
    def _exact(self) -> ExactTemporal:
        return ExactTemporal(self.temporal)

    def predicted_symbols(self, height: int, width: int) -> int:
        z_positions = (height // HYPER_FACTOR) * (width // HYPER_FACTOR)
        return self.channels * height * width + self.config.z_channels * z_positions

    @property
    def table_rows(self) -> dict[str, int]:
        return {"y": len(scale_table()), "z": self.config.z_channels}

    def build_tables(self) -> None:
        self.tables = {"y": gaussian_tables(scale_table()), "z": factorized_tables(self.temporal.entropy_bottleneck)}
