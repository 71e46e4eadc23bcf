"""Networks applied to large tensors by tiles, in memory that does not grow with the picture.

Sizes and places are counted in *cells*: the grid of the coarser of a network's two sides (an autoencoder's cell is one
latent position and f x f pixels). A network whose field of view is bounded computes every tile with as much of its
surroundings as it looks at, its *halo*, so that tiled equals whole. One that looks at the whole picture (attention, norms
over all positions) has no halo: its tiles overlap and are blended (``blended``), which gives another result than whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import DamagedFile

Network = Callable[[Tensor], Tensor]

ALIGN = 4
"""Tiles begin at multiples of this many cells, so that strides inside a network (H/16 of an f = 8 autoencoder) fall alike."""
PROBES = (64, 128)
"""Cells along which a field of view is looked for. One that reaches from the middle to an end of all counts as unbounded."""


class Box(NamedTuple):
    """A rectangle of cells, ends exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Its cells."""
        return (self.bottom - self.top) * (self.right - self.left)

    def grown(self, halo: int, rows: int, columns: int) -> Box:
        """With ``halo`` more cells on every side, as far as the picture of rows x columns cells goes."""
        return Box(
            max(0, self.top - halo), min(rows, self.bottom + halo),
            max(0, self.left - halo), min(columns, self.right + halo),
        )  # fmt: skip

    def within(self, other: Box) -> Box:
        """The same rectangle as counted from the other's corner."""
        return Box(self.top - other.top, self.bottom - other.top, self.left - other.left, self.right - other.left)

    def of(self, tensor: Tensor, scale: int = 1) -> Tensor:
        """The part of a tensor (..., rows * scale, columns * scale), a view."""
        return tensor[
            ..., self.top * scale : self.bottom * scale, self.left * scale : self.right * scale
        ]  # fmt: skip


def boxes(rows: int, columns: int, core: int) -> Iterator[Box]:
    """Disjoint tiles over rows x columns cells, row by row: as few as go, of at most core x core, nearly even.

    core: a multiple of ``ALIGN``. Up to core x core cells there is one tile, the whole.
    """
    for top, bottom in _spans(rows, core):
        for left, right in _spans(columns, core):
            yield Box(top, bottom, left, right)


def _spans(length: int, core: int) -> list[tuple[int, int]]:
    count = -(-length // core)
    step = -(-length // (count * ALIGN)) * ALIGN
    return [(start, min(start + step, length)) for start in range(0, length, step)]


class Tiled:
    """A network with a bounded field of view: called with a tensor (1, C, rows * inputs, columns * inputs) it gives
    (1, c, rows * outputs, columns * outputs), the same as the network alone, in tiles of at most core x core cells.

    inputs, outputs: positions of either side in a cell; channels: C. probe: what ``halo_of`` looks at, the network itself
    by default (one that does more than its layers, such as checking for NaN, hides its field).
    """

    def __init__(
        self, network: Network, channels: int, inputs: int, outputs: int, core: int, probe: Network | None = None
    ):
        self.network, self.channels, self.inputs, self.outputs, self.core = network, channels, inputs, outputs, core
        self.probe = probe or network

    @cached_property
    def halo(self) -> int | None:
        """See ``halo_of``; looked for once, when a picture first takes more than one tile."""
        return halo_of(self.probe, self.channels, self.inputs, self.outputs)

    def run(self, rows: int, columns: int, read: Callable[[Box], Tensor], write: Callable[[Box, Tensor], None]) -> None:
        """The network over rows x columns cells. read: the input within a box; write: takes the output within a box."""
        for box in boxes(rows, columns, self.core):
            wide = box
            if box != (0, rows, 0, columns):
                assert self.halo is not None, "a network that looks at the whole picture cannot be tiled exactly"
                wide = box.grown(self.halo, rows, columns)
            write(box, box.within(wide).of(self.network(read(wide)), self.outputs))

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns = (size // self.inputs for size in x.shape[2:])
        if rows <= self.core and columns <= self.core:
            return self.network(x)
        out: list[Tensor] = []

        def write(box: Box, tile: Tensor) -> None:
            if not out:
                out.append(tile.new_empty(1, tile.shape[1], rows * self.outputs, columns * self.outputs))
            box.of(out[0], self.outputs).copy_(tile)

        self.run(rows, columns, lambda box: box.of(x, self.inputs), write)
        return out[0]


def halo_of(network: Network, channels: int, inputs: int, outputs: int) -> int | None:
    """How many cells around its own an output cell depends on at most, a multiple of ``ALIGN``; None: no bound found.

    Found by experiment: not-a-number spreads through every sum that it enters, even with weight zero. One cell of a strip
    is made of it, at every place relative to the strides, in both directions, and the farthest output that it reaches counts.
    """
    for length in PROBES:
        reaches = [_reach(network, channels, inputs, outputs, length, vertical) for vertical in (False, True)]
        if None not in reaches:
            return -(-max(reaches) // ALIGN) * ALIGN
    return None


@torch.inference_mode()
def _reach(network: Network, channels: int, inputs: int, outputs: int, length: int, vertical: bool) -> int | None:
    """The farthest that a cell near the middle of a strip of ``length`` cells is seen, None if from one of its ends."""
    middle = length // 2
    strips = torch.zeros(ALIGN, channels, ALIGN * inputs, length * inputs)
    for phase in range(ALIGN):
        strips[phase, ..., (middle + phase) * inputs : (middle + phase + 1) * inputs] = torch.nan
    out = network(strips.mT.contiguous()).mT if vertical else network(strips)
    hit = out.isnan().any(1).any(1).unflatten(1, (length, outputs)).any(2)
    if hit[:, [0, -1]].any():
        return None
    return max(int((hit[phase].nonzero() - middle - phase).abs().max()) for phase in range(ALIGN))


class Geometry(NamedTuple):
    """Overlapping tiles of a network that looks at the whole picture: side and overlap in cells."""

    tile: int
    overlap: int

    def pack(self) -> bytes:
        """For the file: two integers of 16 bits, little endian."""
        return struct.pack("<HH", *self)

    @classmethod
    def unpack(cls, data: bytes) -> Geometry:
        """From a file; DamagedFile unless such tiles are possible, and neither so small nor so large that they do harm."""
        if len(data) == 4:
            geometry = cls(*struct.unpack("<HH", data))
            if 16 <= geometry.tile <= 128 and 1 <= geometry.overlap <= geometry.tile // 2:
                return geometry
        raise DamagedFile("the file is damaged: it states impossible tiles")


def blended(
    tiled: Tiled,
    geometry: Geometry,
    rows: int,
    columns: int,
    read: Callable[[Box], Tensor],
    write: Callable[[Box, Tensor], None],
) -> None:
    """As ``Tiled.run``, for a network without a halo: tiles overlap and fade into one another linearly.

    ``write`` takes bands of whole rows, top to bottom; one band is kept in memory.
    """
    scale, carried = tiled.outputs, None
    for top, bottom in _overlapping(rows, geometry):
        band: Tensor | None = None
        for left, right in _overlapping(columns, geometry):
            tile = tiled.network(read(Box(top, bottom, left, right))) * _fade(left, right, columns, geometry, scale)
            if band is None:
                band = tile.new_zeros(*tile.shape[:3], columns * scale)
            band[..., left * scale : right * scale] += tile
        assert band is not None
        band *= _fade(top, bottom, rows, geometry, scale)[:, None]
        if carried is not None:
            band[..., : carried.shape[2], :] += carried
        end = bottom if bottom == rows else bottom - geometry.overlap
        write(Box(top, end, 0, columns), band[..., : (end - top) * scale, :])
        carried = band[..., (end - top) * scale :, :].clone()


def _overlapping(length: int, geometry: Geometry) -> list[tuple[int, int]]:
    starts = range(0, max(1, length - geometry.overlap), geometry.tile - geometry.overlap)
    return [(start, min(start + geometry.tile, length)) for start in starts]


def _fade(start: int, end: int, length: int, geometry: Geometry, scale: int) -> Tensor:
    """A tile's weight along one side, ((end - start) * scale,): those of all tiles add up to one everywhere."""
    weight = torch.ones((end - start) * scale)
    ramp = (torch.arange(geometry.overlap * scale) + 0.5) / (geometry.overlap * scale)
    if start > 0:
        weight[: len(ramp)] = ramp
    if end < length:
        weight[-len(ramp) :] = 1 - ramp
    return weight
