"""``live_video``: predicted frames for ``live_plus``. Its transforms stay as they are; the entropy of y is learned anew.

::

    latents ── live_plus' g_a ── y x fineness ── TemporalHyperprior, given v_hat of the frame before ── v_hat
    v_hat / fineness ── live_plus' g_s ── d ── d + refine(d, decoded latents of the frame before) ── latents

A predicted frame's symbols are mostly 0: rounding takes from it what is less than half a step from the prediction, so its
steps are finer than an intra frame's, by a factor a channel. One small network serves every quality, each of which codes its
intra frames by its own ``live_plus`` checkpoint.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from ...coder import Port
from ...container import check_quality
from ...errors import ConfigError, InputError, ModelError
from ...nets import conv, res_blocks, zero_init
from ...priors.hyper import HYPER_FACTOR, MEAN_PRECISION, scale_table
from ...priors.tables import factorized_tables, gaussian_tables
from ...priors.temporal import FARTHEST, ExactTemporal, TemporalHyperprior, rescaled
from ...tiles import ALIGN, Tiled, halo_of
from ..base import TILE, LatentCodec, channel_indices, flat
from ..halves import Prediction, code_halves
from ..plus import LivePlus
from .base import FrameEstimate, State, VideoCodec


@dataclass(frozen=True)
class LiveVideoConfig:
    """Latent channels c; width and blocks of the temporal network; z channels; how many qualities it serves; blocks of what
    refines decoded latents, of the same width."""

    channels: int = 16
    width: int = 64
    blocks: int = 3
    refine_blocks: int = 1
    z_channels: int = 8
    qualities: int = 6

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 1:
            raise ConfigError(f"every size must be 1 or more in live_video, not as in {self}")


class Refine(nn.Module):
    """What a frame's decoded latents gain by those of the frame before, zero at first; both (B, c, h, w), normalised."""

    def __init__(self, config: LiveVideoConfig):
        super().__init__()
        self.enter = conv(2 * config.channels, config.width)
        self.vectors = nn.Parameter(torch.zeros(config.qualities, config.width))
        self.blocks = nn.Sequential(res_blocks(config.width, config.refine_blocks), nn.ReLU())
        self.last = zero_init(conv(config.width, config.channels))

    def forward(self, both: Tensor, quality: int) -> Tensor:
        """both: in one tensor (B, 2c, h, w)."""
        return self.last(self.blocks(self.enter(both) + self.vectors[quality][:, None, None]))


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
        self.refine = Refine(config)

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
        check_quality(byte, self.qualities)
        return self.at(byte)

    @property
    def quality_byte(self) -> int:
        return self.qualities[self.rate]

    @property
    def picture(self) -> LivePlus:
        return self.images[self.rate]

    def rollout(self, latents: Tensor, rate: int) -> list[FrameEstimate]:
        picture, fineness, nothing = self.images[rate], self.temporal.fineness[rate], latents.new_zeros(())
        y = picture.analyse(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        with torch.no_grad():
            y_hat, *cost = picture.hyper(y[:, 0])
            decoded = picture.synthesise(y_hat)
        frames, v_hat = [FrameEstimate(decoded, *cost, nothing)], fineness(y_hat)
        for frame in y.unbind(1)[1:]:
            v_hat, *cost = self.temporal(fineness(frame), v_hat, rate)
            decoded = self._decoded(torch.cat([v_hat, decoded], 1), rate)
            frames.append(FrameEstimate(decoded, *cost, nothing))
        return frames

    def _decoded(self, both: Tensor, rate: int) -> Tensor:
        """v_hat and the decoded latents of the frame before, in one tensor (B, 2c, h, w) -> decoded latents (B, c, h, w)."""
        picture = self.images[rate]
        v_hat, before = both.chunk(2, 1)
        plain = picture.synthesise(v_hat / self.temporal.fineness[rate].weight.view(1, -1, 1, 1))
        seen = torch.cat([(each - picture.mean) / picture.std for each in (plain, before)], 1)
        return plain + self.refine(seen, rate) * picture.std

    def walk_predicted(self, port: Port, height: int, width: int, state: State, latents: Tensor | None = None) -> State:
        entropy, rate = self._exact, self.rate
        before = state.y_hat.clamp(-FARTHEST, FARTHEST)
        if not state.position:
            before = rescaled(entropy.fineness[rate], before)
        y = None if latents is None else self.temporal.fineness[rate](self.picture.tiled_analyse(latents))
        z = None if y is None else flat(self._tiled_h_a(torch.cat([y, before / MEAN_PRECISION], 1)))
        z_shape = (self.config.z_channels, height // HYPER_FACTOR, width // HYPER_FACTOR)
        z_hat = torch.from_numpy(port.code(z, channel_indices(*z_shape), self.tables["z"])).reshape(1, *z_shape)
        prediction = Prediction(
            lambda box: entropy.features(box.of(z_hat), box.of(before, HYPER_FACTOR), rate),
            lambda features, box, anchors: entropy.parameters_of(features, box.of(before, HYPER_FACTOR), rate, anchors),
            lambda: self._exact_halo,
        )
        v_hat = code_halves(port, self.tables["y"], prediction, (self.channels, height, width), y)
        both = torch.cat([(v_hat.double() / MEAN_PRECISION).float(), state.latents], 1)
        return State(v_hat, self._tiled_decoded(both), state.position + 1)

    @property
    def _tiled_decoded(self) -> Tiled:
        return Tiled(lambda both: self._decoded(both, self.rate), 2 * self.channels, 1, 1, TILE)

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
