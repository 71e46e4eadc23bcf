"""``glc_video``: predicted frames for ``glc``, without motion estimation, every rate between its anchors in one model.

Source: Jia et al. 2025, "Generative Latent Coding for Ultra-Low Bitrate Image and Video Compression" (arXiv 2505.16177)::

    decoded latents of the frame before ── adaptor, blocks ── context (B,N,h,w), floats
    latents ─┬─ g_a ── y ── TwoPass, given y_hat of the frame before ── y_hat ─┬─ g_s ── latents
    context ─┘                                                       context ─┘

Adaptors, and gains beside the rate's, follow a pattern of eight frames, so that some may be better than others for the sake
of those after them. ``start_from`` gives the transforms ``glc``'s own weights, and the context no weight yet.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from ...coder import SYMBOL_LIMIT, Port
from ...container import CLIP_LEVELS, check_quality, rate_bytes
from ...depthconv import Context, pointwise
from ...errors import ConfigError, InputError, ModelError
from ...nets import identity_init
from ...priors.exact import UNIT, to_fixed
from ...priors.fourpart import HYPER_FACTOR, Estimate
from ...priors.hyper import MEAN_PRECISION, half, put_half, scale_table, selected
from ...priors.tables import categorical_tables, gaussian_tables
from ...priors.twopass import ExactTwoPass, TwoPass
from ...tiles import Tiled
from ..base import EXACT_TILE, TILE, LatentCodec, flat
from ..glc import MOST_RATES, Glc, GlcConfig, Transform
from .base import FrameEstimate, State, VideoCodec

PATTERN = (0, 1, 0, 2, 0, 2, 0, 2)
"""The level of the p-th frame after an intra frame is the one at p modulo 8."""
LEVELS = 3
RESET = 32
"""The first frame after an intra frame, and every so many frames later another, is predicted by the adaptor of intra frames."""


def level_of(position: int) -> int:
    """The level, 0 to 2, of the frame that follows an intra frame after ``position`` frames, 1 the next one."""
    return PATTERN[position % len(PATTERN)]


def adaptor_of(position: int) -> int:
    """Which adaptor, 0 to 3, has what was decoded before that frame."""
    return 0 if position % RESET == 1 else 1 + level_of(position)


@dataclass(frozen=True)
class GlcVideoConfig:
    """channels: N, of the latents and of y; codebook: entries that a token is one of; tokens: a frame's; heads: parts of the
    channels with weight maps of their own; context_blocks: of either temporal context; blocks: of the second pass, and one;
    transform_blocks, rates, identity: as in ``GlcConfig``.

    The published shape is the default; identity start is ours.
    """

    channels: int = 256
    codebook: int = 16384
    tokens: int = 16
    heads: int = 8
    context_blocks: int = 4
    transform_blocks: int = 2
    blocks: int = 3
    rates: int = 4
    identity: bool = False

    def __post_init__(self) -> None:
        rules = {
            "heads must be 1 or more and divide channels": self.heads > 0 and self.channels % self.heads == 0,
            f"codebook must be 1 to {SYMBOL_LIMIT}, what a symbol may be": 1 <= self.codebook <= SYMBOL_LIMIT,
            "tokens must be 1 to 256": 1 <= self.tokens <= 256,
            "context_blocks must be 1 or more": self.context_blocks >= 1,
            "blocks must be 1 or more": self.blocks >= 1,
            f"rates must be 1 to {MOST_RATES}, what a codec of pictures can hold": 1 <= self.rates <= MOST_RATES,
            "channels must be 1 or more": self.channels > 0,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ConfigError(f"{rule} in glc_video, not as in {self}")


class ConditionalTransform(nn.Module):
    """x and the context, both (B, N, h, w) -> (B, N, h, w): ``glc``'s transform, its gains at a rate and a level."""

    def __init__(self, config: GlcVideoConfig):
        super().__init__()
        n = config.channels
        self.join = identity_init(pointwise(2 * n, n))
        shape = GlcConfig(n, transform_blocks=config.transform_blocks, rates=config.rates, identity=config.identity)
        self.transform = Transform(shape)
        self.level_gain = nn.Parameter(torch.zeros(LEVELS, n))

    def forward(self, both: Tensor, rate: float, level: int) -> Tensor:
        """both: x and the context in one tensor (B, 2N, h, w)."""
        return self.transform(self.join(both), rate, self.level_gain[level])


class GlcVideo(VideoCodec):
    """The codec. ``rate``: the one that frames are coded at, 0 to rates - 1; ``at`` gives the codec at another."""

    codec_id = 4
    name = "glc_video"
    stride = HYPER_FACTOR
    picture_kind = Glc

    def __init__(self, config: GlcVideoConfig):
        super().__init__(config.channels, {"config": asdict(config)})
        self.config, self.rate = config, 0.0
        self.context = Context(config.channels, 1 + LEVELS, config.context_blocks)
        self.g_a, self.g_s = ConditionalTransform(config), ConditionalTransform(config)
        self.prior = TwoPass(
            config.channels,
            config.codebook,
            config.tokens,
            config.heads,
            1 + LEVELS,
            config.context_blocks,
            config.blocks,
        )

    def attach(self, images: Sequence[LatentCodec]) -> None:
        super().attach(images)
        if len(self.images) != 1 or self.images[0].config.rates != self.config.rates:
            raise ModelError(f"{self.name} codes intra frames by one codec of {self.config.rates} rates")

    @torch.no_grad()
    def start_from(self, *images: LatentCodec) -> None:
        """Transform and quantise as the trained codec of pictures does on the whole; ConfigError when it has another shape."""
        super().start_from(*images)
        glc = self.images[0]
        try:
            for own, its in ((self.g_a, glc.g_a), (self.g_s, glc.g_s)):
                own.transform.load_state_dict(its.state_dict())
        except RuntimeError:
            raise ConfigError(f"the transforms of {glc.config} do not fit those of {self.config}") from None
        self.prior.start_steps(glc.prior.usual_steps())

    @property
    def picture(self) -> Glc:
        return self.images[0].at_rate(self.rate)

    @property
    def highest(self) -> int:
        return self.config.rates - 1

    def at(self, quality: float) -> GlcVideo:
        """The same codec (weights shared) at a rate, 0 (lowest) to ``highest``, rounded to the nearest of 64 levels."""
        number = isinstance(quality, Real) and not isinstance(quality, bool)
        if not number or not 0 <= quality <= self.highest:
            raise InputError(
                f"unknown quality {quality!r} of {self.name}; choose from 0 to {self.highest}, fractions too"
            )
        other = copy.copy(self)
        other.rate = round(quality * self._steps) / self._steps
        return other

    @property
    def _steps(self) -> float:
        """Levels from one anchor to the next."""
        return CLIP_LEVELS / max(1, self.highest)

    @property
    def quality_byte(self) -> int:
        return 1 + round(self.rate * self._steps)

    def at_byte(self, byte: int) -> GlcVideo:
        check_quality(byte, rate_bytes(CLIP_LEVELS if self.highest else 0))
        return self.at(min((byte - 1) / self._steps, self.highest))

    def estimated(self, latents: Tensor, before: State, rate: float) -> tuple[State, Estimate]:
        """What training minimises, of a predicted frame's latents (B, N, h, w): the state that follows, and its estimate."""
        position = before.position + 1
        adaptor, level = adaptor_of(position), level_of(position)
        context = self.context(before.latents, adaptor)[1]
        estimate = self.prior(self.g_a(torch.cat([latents, context], 1), rate, level), before.y_hat, adaptor)
        decoded = self.g_s(torch.cat([estimate.y_hat, context], 1), rate, level)
        return State(estimate.y_hat, decoded, position), estimate

    def rollout(self, latents: Tensor, rate: int) -> list[FrameEstimate]:
        with torch.no_grad():
            decoded, estimate = self.images[0].estimated(latents[:, 0], rate)
        # Frames later than a rollout is long have adaptors of their own: half of the rollouts begin as if a pattern had passed.
        position = len(PATTERN) if self.training and torch.rand(()) < 0.5 else 0
        frames, state = [FrameEstimate(decoded, *estimate[1:])], State(estimate.y_hat, decoded, position)
        for frame in latents.unbind(1)[1:]:
            state, estimate = self.estimated(frame, state, rate)
            frames.append(FrameEstimate(state.latents, *estimate[1:]))
        return frames

    def walk_predicted(self, port: Port, height: int, width: int, state: State, latents: Tensor | None = None) -> State:
        position = state.position + 1
        adaptor, level = adaptor_of(position), level_of(position)
        context = self._tiled(lambda x: self.context(x, adaptor)[1], 1)(state.latents)
        y = None
        if latents is not None:
            y = self._tiled(lambda x: self.g_a(x, self.rate, level), 2)(torch.cat([latents, context], 1))
        y_hat = self._walk_y(port, state.y_hat, adaptor, y)
        decoded = self._tiled(lambda x: self.g_s(x, self.rate, level), 2)(torch.cat([y_hat, context], 1))
        return State(y_hat, decoded, position)

    def _walk_y(self, port: Port, before: Tensor, adaptor: int, y: Tensor | None) -> Tensor:
        """Pass the symbols of y (1, N, h, w) through the port, given the decoded y before: the decoded y, exact in float32."""
        exact = self._exact
        base, features = exact.temporal[adaptor](to_fixed(before)).chunk(2, 1)
        spread = exact.prior.spread(self._coded_tokens(port, features, y), features)
        steps, *predicted, reduced = exact.first(torch.cat([spread, features], 1)).chunk(4, 1)
        u = None if y is None else (y.double() - base / UNIT) / (steps / UNIT)
        raw, u_hat = torch.cat(predicted, 1), torch.zeros_like(base)  # in units of 1 / MEAN_PRECISION
        for anchors in (True, False):
            if not anchors:
                raw = raw + exact.later(torch.cat([u_hat, reduced], 1))
            means, rows = selected(half(raw, anchors))
            symbols = None if u is None else flat(half(u, anchors) - means / MEAN_PRECISION)
            coded = port.code(symbols, rows.flatten().numpy(), self.tables["y"])
            put_half(u_hat, anchors, (torch.from_numpy(coded).reshape(means.shape) * MEAN_PRECISION + means).double())
        return (exact.prior.decoded(u_hat, steps, base) / UNIT).float()

    def _coded_tokens(self, port: Port, features: Tensor, y: Tensor | None) -> Tensor:
        """Pass a frame's tokens through the port: numbers of entries (K,)."""
        tokens, symbols = self.prior.tokens, None
        if y is not None:
            seen = (features / UNIT).float()
            analysed = self._tiled(tokens.analysis, 2)(torch.cat([y, seen], 1))
            symbols = tokens.quantiser.indices(tokens.pooled(analysed, seen)).flatten().numpy()
        coded = port.code(symbols, np.zeros(self.config.tokens, np.int32), self.tables["z"])
        return torch.from_numpy(coded.astype(np.int64))

    def _tiled(self, network, inputs: int) -> Tiled:
        """A floating-point network of ``inputs`` times N channels."""
        return Tiled(network, inputs * self.channels, 1, 1, TILE)

    def predicted_symbols(self, height: int, width: int) -> int:
        return self.config.tokens + self.channels * height * width

    def make_exact(self) -> None:
        if self.units:
            raise ModelError("glc_video has no units of integers; its checkpoint was altered")
        _ = self._exact

    @cached_property
    def _exact(self) -> _Exact:
        return _Exact(self.prior)

    @property
    def table_rows(self) -> dict[str, int]:
        return {"y": len(scale_table()), "z": 1}

    def build_tables(self) -> None:
        usage = self.prior.tokens.quantiser.usage
        self.tables = {"y": gaussian_tables(scale_table()), "z": categorical_tables(usage)}


class _Exact:
    """``ExactTwoPass`` by tiles; its floating-point twins show the fields."""

    def __init__(self, model: TwoPass):
        n, prior = model.channels, ExactTwoPass(model)
        self.prior = prior
        self.temporal = [
            Tiled(
                lambda x, adaptor=adaptor: prior.temporal(x, adaptor), n, 1, 1, EXACT_TILE,
                lambda x: model.context(x, 0)[1],
            )
            for adaptor in range(1 + LEVELS)
        ]  # fmt: skip
        self.first = Tiled(prior.first, 2 * n, 1, 1, EXACT_TILE, model.fusion)
        self.later = Tiled(prior.later, 2 * n, 1, 1, EXACT_TILE, model.second)
