"""The two passes over a checkerboard that y is coded in, tile by tile: what ``live_plus`` and ``live_video`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..coder import Port
from ..priors.hyper import HYPER_FACTOR, MEAN_PRECISION, half, put_half
from ..priors.tables import Tables
from ..tiles import Box, boxes
from .base import EXACT_TILE, flat


class Prediction(NamedTuple):
    """How a picture's y is predicted within boxes of z's positions.

    features: of a box. parameters: of its features, the box and, for the second pass, y's decoded anchors in it (else None),
    means, int32 in units of 1 / ``MEAN_PRECISION``, and table rows, as ``half`` packs them. halo: so many positions of z
    around a box its features look at; asked for only where there are several.
    """

    features: Callable[[Box], Tensor]
    parameters: Callable[[Tensor, Box, Tensor | None], tuple[Tensor, Tensor]]
    halo: Callable[[], int]


def code_halves(
    port: Port, tables: Tables, prediction: Prediction, shape: tuple[int, int, int], y: Tensor | None
) -> Tensor:
    """Pass y, (1, *shape), or what the port reads, through the port, anchors first; (1, c, h, w) int32 decoded, in units of
    1 / ``MEAN_PRECISION``."""
    y_hat = torch.zeros(1, *shape, dtype=torch.int32)
    features: list[Tensor] = []
    for anchors in (True, False):
        means, rows, symbols = _predicted(prediction, y_hat, y, anchors, features)
        coded = port.code(symbols, rows.flatten().numpy(), tables)
        put_half(y_hat, anchors, torch.from_numpy(coded).reshape(means.shape) * MEAN_PRECISION + means)
    return y_hat


def _packed(box: Box) -> Box:
    """Where a box of z's positions lies in a tensor of y's that ``half`` packed."""
    top, bottom, left, right = (side * HYPER_FACTOR for side in box)
    return Box(top, bottom, left // 2, right // 2)


def _predicted(
    prediction: Prediction, y_hat: Tensor, y: Tensor | None, anchors: bool, features: list[Tensor]
) -> tuple[Tensor, Tensor, np.ndarray | None]:
    """A pass's means (1, c, h, w/2) int32 and table rows, uint8, and y's symbols under them, in coding order.

    Tile by tile, since the entropy networks' features are far larger than what they predict. ``features`` keeps those
    of the first pass for the second where the whole is one tile.
    """
    _, channels, height, width = y_hat.shape
    rows, columns, shape = height // HYPER_FACTOR, width // HYPER_FACTOR, (1, channels, height, width // 2)
    means, indices = torch.empty(shape, dtype=torch.int32), torch.empty(shape, dtype=torch.uint8)
    symbols = None if y is None else torch.empty(shape, dtype=torch.int32)
    tiles = list(boxes(rows, columns, EXACT_TILE // HYPER_FACTOR))
    for box in tiles:
        wide = box if len(tiles) == 1 else box.grown(prediction.halo(), rows, columns)
        seen = features.pop() if features else prediction.features(wide)
        if len(tiles) == 1 and anchors:
            features.append(seen)
        known = None if anchors else wide.of(y_hat, HYPER_FACTOR)
        predicted = prediction.parameters(seen, wide, known)
        tile_means, tile_rows = (_packed(box.within(wide)).of(values) for values in predicted)
        place = _packed(box)
        place.of(means).copy_(tile_means)
        place.of(indices).copy_(tile_rows)
        if symbols is not None:
            offsets = half(box.of(y, HYPER_FACTOR), anchors) - tile_means / MEAN_PRECISION
            place.of(symbols).copy_(torch.from_numpy(flat(offsets)).reshape(offsets.shape))
    return means, indices, None if symbols is None else symbols.flatten().numpy()
