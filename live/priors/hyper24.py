"""A hyperprior's decoder side in the arithmetic of ``exact24``: as exact as ``ExactHyperprior``, several times as fast.

Only what is asked for is computed: heads at the half of the positions that they serve, and of the 5x5 context the twelve
taps that fall on anchors.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .exact24 import LIMIT, Conv24, choose_bits, choose_fractions, fixed_weights, shuffle2
from .hyper import MEAN_PRECISION, Hyperprior, anchor_mask, half, scales_of, selected
from .tables import Tables

MEAN_BITS = MEAN_PRECISION.bit_length() - 1
Z_LIMIT = 255
"""Largest symbol of z that is told apart."""
TAPS = [(row, column) for row in range(5) for column in range(5) if (row + column) % 2]
"""Of a 5x5 window around a position that is no anchor, those places that are: (row, column), row-major."""
SAMPLES, SAMPLE_SIZE, SEED = 8, 16, 1
"""What units are chosen by: so many pictures of z, of so many positions squared, drawn from the model itself."""


class Layer(NamedTuple):
    """A convolution of the decoder side; the name of its units; what enters it, by its sources'; whether a shuffle follows."""

    name: str
    conv: nn.Conv2d
    inputs: tuple[str, ...]
    shuffled: bool = False

    @property
    def weight(self) -> Tensor:
        """(O, C, taps)"""
        weight = self.conv.weight.detach()
        if self.inputs == ("y",):
            return torch.stack([weight[:, :, row, column] for row, column in TAPS], 2)
        return weight.flatten(2)

    def rounded(self, units: dict[str, Tensor]) -> Tensor:
        """The convolution's weights (O, C, k, k), those that count at what their integers in these units stand for."""
        bits, fractions = units[f"{self.name}.bits"], _fractions(self, units)
        whole, _ = fixed_weights(self.weight, self.conv.bias, fractions, bits)
        values = (whole / 2.0 ** (bits.double()[:, None] - fractions.double())[:, :, None]).float()
        weight = self.conv.weight.detach().clone()
        if self.inputs == ("y",):
            for place, (row, column) in enumerate(TAPS):
                weight[:, :, row, column] = values[:, :, place]
            return weight
        return values.reshape(weight.shape)

    @property
    def entry(self) -> tuple[bool, int]:
        """Whether what enters is signed, and its largest magnitude."""
        return self.inputs in (("y",), ("z",)), Z_LIMIT if self.inputs == ("z",) else LIMIT


def layers_of(hyper: Hyperprior) -> dict[str, Layer]:
    """The layers of a hyperprior's decoder side by the names of their units; the two heads have no units of activations."""
    hidden, _, context_head = hyper.context_head
    layers = (
        Layer("up1", hyper.h_s[0][0], ("z",), shuffled=True),
        Layer("up2", hyper.h_s[2][0], ("up1",), shuffled=True),
        Layer("features", hyper.h_s[4], ("up2",)),
        Layer("head", hyper.head, ("features",)),
        Layer("context", hyper.context, ("y",)),
        Layer("hidden", hidden, ("features", "context")),
        Layer("context_head", context_head, ("hidden",)),
    )
    return {layer.name: layer for layer in layers}


HEADS = ("head", "context_head")
BESIDE_ANCHORS = ("context", "hidden", "context_head")
"""Layers that are asked for only where no anchor is."""


class Hyper24:
    """See ``ExactHyperprior`` for what goes in and comes out.

    units: int8, as ``choose_units`` made them and the checkpoint holds them: ``NAME.bits`` of every layer's weights, and
    ``NAME.fractions`` of all activations but the heads'. ModelError when they are not those of ``hyper``.
    """

    def __init__(self, hyper: Hyperprior, units: dict[str, Tensor]):
        layers = layers_of(hyper)
        expected = {f"{name}.bits": layer.conv.out_channels for name, layer in layers.items()}
        expected |= {
            f"{name}.fractions": layer.conv.out_channels // (4 if layer.shuffled else 1)
            for name, layer in layers.items()
            if name not in HEADS
        }
        expected["y.fractions"] = hyper.channels
        if {name: tuple(unit.shape) for name, unit in units.items()} != {k: (v,) for k, v in expected.items()}:
            raise ModelError("the checkpoint does not hold the units of its entropy networks")
        self.twins = {name: _twin(layer, units) for name, layer in layers.items()}
        self.y_scale = (2.0 ** (units["y.fractions"].double() - MEAN_BITS)).float()

    @torch.autocast("cpu", enabled=False)
    def features(self, z: Tensor) -> Tensor:
        """Symbols of z (B, n_z, h/4, w/4), integers -> features (B, n, h, w), integers in their channels' units."""
        x, twins = z.permute(0, 2, 3, 1).float().clamp(-Z_LIMIT, Z_LIMIT), self.twins
        x = twins["features"](shuffle2(twins["up2"](shuffle2(twins["up1"](x)))))
        return x.permute(0, 3, 1, 2)

    @torch.autocast("cpu", enabled=False)
    def parameters_of(self, features: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Means and table rows (B, c, h, w/2) of the anchors or, given the decoded anchors in y, of the others."""
        x, twins = half(features, y is None).permute(0, 2, 3, 1), self.twins
        raw = twins["head"](x)
        if y is not None:
            context = twins["context"].of(self._windows(y))
            raw += twins["context_head"](twins["hidden"].of(x, context))
        return selected(raw.permute(0, 3, 1, 2))

    def _windows(self, y: Tensor) -> Tensor:
        """What the context's taps see of y (B, c, h, w): (B, h, w/2, taps * c)."""
        x = (y.permute(0, 2, 3, 1).float() * self.y_scale + 0.5).floor_().clamp_(-LIMIT, LIMIT)
        batch, height, width, channels = x.shape
        padded = F.pad(x, (0, 0, 2, 2, 2, 2))
        windows = x.new_empty(batch, height // 2, 2, width // 2, len(TAPS), channels)
        for place, (row, column) in enumerate(TAPS):
            for odd in range(2):  # in even rows the odd columns are no anchors, in odd rows the even ones
                seen = padded[:, row + odd : row + odd + height : 2, column + 1 - odd : column + 1 - odd + width : 2]
                windows[:, :, odd, :, place] = seen[:, : height // 2, : width // 2]
        return windows.view(batch, height, width // 2, -1)


def _fractions(layer: Layer, units: dict[str, Tensor]) -> Tensor:
    """(C,): fractional bits of what enters a layer; symbols of z are integers."""
    if layer.inputs == ("z",):
        return torch.zeros(layer.conv.in_channels)
    return torch.cat([units[f"{name}.fractions"] for name in layer.inputs])


def _twin(layer: Layer, units: dict[str, Tensor]) -> Conv24:
    weight, bias, bits = layer.weight, layer.conv.bias, units[f"{layer.name}.bits"]
    outputs = units.get(f"{layer.name}.fractions")
    if layer.shuffled:  # pixel_shuffle takes channels by channel, row, column: see shuffle2
        weight, bias, bits = (of.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1) for of in (weight, bias, bits))
        outputs = outputs.repeat(4)
    return Conv24(weight, bias, _fractions(layer, units), bits, outputs, *layer.entry)


@torch.no_grad()
def choose_units(hyper: Hyperprior, z_tables: Tables) -> dict[str, Tensor]:
    """Units for a trained hyperprior: of activations, so that the largest fit among latents drawn from its own densities;
    of weights, as fine as the proof then allows."""
    seen = _drawn(hyper, z_tables)
    units = {
        f"{name}.fractions": choose_fractions(torch.maximum(*(each[name].abs().amax((0, 2, 3)) for each in seen)))
        for name in seen[0]
        if name != "z"
    }
    units["y.fractions"].clamp_(max=MEAN_BITS)
    for name, layer in layers_of(hyper).items():
        bits = choose_bits(layer.weight, layer.conv.bias, _fractions(layer, units), *layer.entry)
        units[f"{name}.bits"] = bits
    return units


@torch.no_grad()
def settle(hyper: Hyperprior, z_tables: Tables, units: dict[str, Tensor]) -> None:
    """Round a trained hyperprior's weights to these units, in place, and shift its biases by what that changes on average.

    Most activations are never negative, so what rounding does to a layer's weights adds up to much the same everywhere: left
    to itself it cost up to 2.4 % of the bits. The average is over the latents that units are chosen by.
    """
    seen = _drawn(hyper, z_tables)
    for each in seen:
        each["y"] = torch.where(anchor_mask(*each["y"].shape[2:]), each["y"], 0.0)
    for name, layer in layers_of(hyper).items():
        conv, rounded, shifts = layer.conv, layer.rounded(units), []
        inputs = [torch.cat([each[source] for source in layer.inputs], 1) for each in seen]
        for x in inputs:
            change = F.conv2d(x, conv.weight - rounded, padding=conv.padding)
            shifts.append((half(change, False) if name in BESIDE_ANCHORS else change).mean((0, 2, 3)))
        conv.weight.copy_(rounded)
        conv.bias += sum(shifts) / len(shifts)
        for each, x in zip(seen, inputs, strict=True):
            y = conv(x)
            each[name] = torch.relu(F.pixel_shuffle(y, 2) if layer.shuffled else y)


def _drawn(hyper: Hyperprior, z_tables: Tables) -> list[dict[str, Tensor]]:
    """What latents drawn from the model make of its layers: z (B, n_z, H, W) and ``_activations``.

    In the first of two z is independent everywhere, in the second the same everywhere: real ones lie between the two.
    """
    generator = torch.Generator().manual_seed(SEED)
    drawn = (
        z_tables.draw((SAMPLES, SAMPLE_SIZE, SAMPLE_SIZE), generator),
        z_tables.draw((8 * SAMPLES, 1, 1), generator).expand(-1, -1, SAMPLE_SIZE // 4, SAMPLE_SIZE // 4),
    )
    return [{"z": z} | _activations(hyper, z, generator) for z in drawn]


def _activations(hyper: Hyperprior, z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """What z (B, n_z, H, W) makes of the layers, in floating point and by the names of units, with y drawn from the model."""
    up1 = hyper.h_s[:2](z)
    up2 = hyper.h_s[2:4](up1)
    features = hyper.h_s[4:](up2)
    means, indices = hyper.parameters_of(features)
    y = means + scales_of(indices) * torch.randn(means.shape, generator=generator)
    context = torch.relu(hyper.context(torch.where(anchor_mask(*y.shape[2:]), y, 0.0)))
    hidden = hyper.context_head[:2](torch.cat([features, context], 1))
    return {"up1": up1, "up2": up2, "features": features, "y": y, "context": context, "hidden": hidden}
