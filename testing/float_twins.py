"""Entropy networks in floating point, as they were trained, in the shape of their integer twins, to measure these against.

Activations go in and out in the twins' units and are not rounded between; means and table rows are rounded as the twins'
are, and so is the decoded y that the next frame is predicted from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from live.priors.exact import UNIT, to_fixed
from live.priors.fourpart import LEAST_STEP, PASSES, FourPart
from live.priors.hyper import MEAN_PRECISION, SCALE_LEVELS, Hyperprior, anchor_mask, half
from live.priors.temporal import TemporalHyperprior
from live.priors.twopass import ExactTwoPass, TwoPass


def in_floats(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A network, such as ``live_paper``'s h_s, between activations in units of 1 / ``UNIT``, float64."""
    return lambda x: network((x / UNIT).float()).double() * UNIT


class FloatHyperprior:
    """``live_plus``': in the shape of ``ExactHyperprior``."""

    def __init__(self, hyper: Hyperprior):
        self.hyper = hyper

    def features(self, z: Tensor) -> Tensor:
        return self.hyper.features(z.float())

    def parameters_of(self, features: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        known = None if y is None else y.float() / MEAN_PRECISION
        return _selected(self.hyper.parameters_of(features, known), y is None)


class FloatFourPart:
    """``glc``'s: in the shape of ``ExactFourPart``."""

    def __init__(self, model: FourPart):
        self.model = model

    def first(self, z: Tensor) -> Tensor:
        assert self.model.categorical is not None
        common = self.model.fusion(self.model.h_s(self.model.categorical.entries(z[:, 0])))
        steps, rest = common[:, : self.model.channels], common[:, self.model.channels :]
        steps = to_fixed(steps.clamp(min=LEAST_STEP)).int()
        return torch.cat([steps, _rounded(rest), to_fixed(self.model.reduction(common)).int()], 1)

    def later(self, number: int, seen: Tensor) -> Tensor:
        u_hat, reduced = seen.float().chunk(2, 1)
        known = torch.cat([u_hat / MEAN_PRECISION, reduced / UNIT], 1)
        return _rounded(self.model.spatial(self.model.adaptors[number](known)))

    @property
    def passes(self) -> tuple[Callable[[Tensor], Tensor], list[Callable[[Tensor], Tensor]]]:
        """As ``Glc`` holds them."""
        return self.first, [partial(self.later, number) for number in range(PASSES - 1)]


class FloatTemporal:
    """``live_video``'s: in the shape of ``ExactTemporal``."""

    def __init__(self, model: TemporalHyperprior):
        self.model, self.fineness = model, [in_floats(gain) for gain in model.fineness]

    def features(self, z: Tensor, before: Tensor, quality: int) -> Tensor:
        return self.model.features(z.float(), before.float() / MEAN_PRECISION, quality)

    def parameters_of(
        self, features: Tensor, before: Tensor, quality: int, y: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        changes = None if y is None else torch.where(anchor_mask(*y.shape[2:]), y - before, 0) / MEAN_PRECISION
        predicted = self.model.parameters_of(features, before.float() / MEAN_PRECISION, quality, changes)
        return _selected(predicted, y is None)


class FloatTwoPass:
    """``glc_video``'s: in the shape of its exact networks by tiles, of which ``prior`` is one part."""

    def __init__(self, model: TwoPass):
        self.model, self.prior = model, self
        self.temporal = [in_floats(partial(self._temporal, adaptor)) for adaptor in range(len(model.context.adaptors))]
        self.first, self.second = in_floats(self._first), in_floats(model.second)
        self.decoded = ExactTwoPass.decoded

    def _temporal(self, adaptor: int, before: Tensor) -> Tensor:
        return torch.cat(self.model.context(before, adaptor), 1)

    def _first(self, seen: Tensor) -> Tensor:
        fused, n = self.model.fusion(seen), self.model.channels
        head = self.model.head(fused)
        return torch.cat([head[:, :n].clamp(min=LEAST_STEP), head[:, n:], self.model.reduction(fused)], 1)

    def spread(self, numbers: Tensor, features: Tensor) -> Tensor:
        tokens = self.model.tokens
        entries = tokens.quantiser.entries(numbers[None, :, None])
        return in_floats(lambda x: tokens.spread(tokens.spreading(x), entries))(features)

    def later(self, seen: Tensor) -> Tensor:
        u_hat, reduced = seen.chunk(2, 1)
        return self.second(torch.cat([u_hat * (UNIT // MEAN_PRECISION), reduced], 1))


def _selected(predicted: tuple[Tensor, Tensor], anchors: bool) -> tuple[Tensor, Tensor]:
    """Real-valued means and indices (1, c, h, w) -> means in units of 1 / ``MEAN_PRECISION`` and rows, of one half."""
    means, indices = (half(values, anchors) for values in predicted)
    return torch.round(means * MEAN_PRECISION).int(), torch.round(indices).to(torch.uint8)


def _rounded(raw: Tensor) -> Tensor:
    means, indices = raw.chunk(2, 1)
    return torch.round(torch.cat([means * MEAN_PRECISION, indices.clamp(0, SCALE_LEVELS - 1)], 1)).int()
