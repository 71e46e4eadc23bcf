"""Photos set in motion: smooth pans, zooms and turns of one photo, and a piece of another that passes in front of it;
now and then a cut.

What a moving thing shows at the point p of frame t, both counted from the middle, is what it shows in the middle frame
at the point ``Motion.path`` gives: the shift undone first, then turn and zoom.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .data import ENLARGED_SHARE, LARGEST_SCALE

STILL_SHARE, OCCLUDED_SHARE, SPLICED_SHARE = 0.2, 0.5, 0.15
"""How often a thing does not move at all, how often something passes in front of the photo, and how often there is a cut."""
FASTEST_PAN, FASTEST_ZOOM, FASTEST_TURN = 16.0, 0.04, 0.04
"""The limits of speed a frame: px, logarithm of the size, radians. Most things are far slower."""
SHRUNK = 1.75
"""Photos that are not enlarged (as often as in ``data``, and as much) are shown reduced by up to this, which keeps the detail
that moving by fractions of a pixel would lose."""


class Motion(NamedTuple):
    """Speeds a frame: px to the right and down; growth of the logarithm of the size; radians, clockwise."""

    right: float = 0.0
    down: float = 0.0
    zoom: float = 0.0
    turn: float = 0.0

    def path(self, frames: int, side: int) -> Tensor:
        """(frames, side, side, 2): for every pixel of every frame the point of the middle frame, x and y in px."""
        times = torch.arange(frames, dtype=torch.float32) - (frames - 1) / 2
        places = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
        y, x = torch.meshgrid(places, places, indexing="ij")
        x = x - self.right * times[:, None, None]
        y = y - self.down * times[:, None, None]
        shrink = torch.exp(-self.zoom * times)[:, None, None]
        cosine, sine = (f(self.turn * times)[:, None, None] for f in (torch.cos, torch.sin))
        return torch.stack((cosine * x + sine * y, cosine * y - sine * x), -1) * shrink[..., None]


def drawn(random: np.random.Generator) -> Motion:
    """A motion at random: slow ones are likelier than fast ones, and now and then there is none."""
    if random.random() < STILL_SHARE:
        return Motion()
    speed, way = FASTEST_PAN * random.random() ** 2, 2 * math.pi * random.random()
    zoom, turn = (limit * random.uniform(-1, 1) ** 3 for limit in (FASTEST_ZOOM, FASTEST_TURN))
    return Motion(speed * math.cos(way), speed * math.sin(way), zoom, turn)


def shown(photo: Tensor, points: Tensor, random: np.random.Generator) -> Tensor:
    """A photo (3, H, W) uint8 at points (T, side, side, 2) of its own plane, somewhere in it, turned at random by quarters, and
    enlarged or reduced.

    Returns (T, 3, side, side) float32 in 0 to 255. Beyond the border the photo is mirrored.
    """
    photo = photo.rot90(int(random.integers(4)), (1, 2))
    height, width = photo.shape[1:]
    side = points.shape[1]
    if random.random() < ENLARGED_SHARE:
        shrink = LARGEST_SCALE ** -random.random()
    else:
        shrink = random.uniform(1, max(1, min(SHRUNK, min(height, width) / side)))
    reach = shrink * (side - 1) / 2
    middle = [random.uniform(min(reach, last / 2), max(last - reach, last / 2)) for last in (width - 1, height - 1)]
    places = points * shrink + torch.tensor(middle, dtype=torch.float32)
    grid = places / torch.tensor([(width - 1) / 2, (height - 1) / 2]) - 1
    whole = photo[None].float().expand(len(points), -1, -1, -1)
    return F.grid_sample(whole, grid, mode="bicubic", padding_mode="reflection", align_corners=True)


def moving(photo: Tensor, other: Tensor, random: np.random.Generator, frames: int, side: int) -> Tensor:
    """Photos (3, H, W) uint8 -> (frames, 3, side, side) uint8: the one in motion, the other perhaps in front of it.

    At a cut they change places, both in other motion.
    """
    film = scene(photo, other, random, frames, side)
    if random.random() < SPLICED_SHARE:
        first = int(random.integers(1, frames))
        film = torch.cat((film[:first], scene(other, photo, random, frames, side)[first:]))
    return film.round().clamp(0, 255).to(torch.uint8)


def scene(photo: Tensor, other: Tensor, random: np.random.Generator, frames: int, side: int) -> Tensor:
    """One photo in motion, (frames, 3, side, side) float32 in 0 to 255, and perhaps a piece of the other in front of it."""
    film = shown(photo, drawn(random).path(frames, side), random)
    if random.random() < OCCLUDED_SHARE:
        points = drawn(random).path(frames, side)
        film = torch.lerp(film, shown(other, points, random), oval(points, random))
    return film


def oval(points: Tensor, random: np.random.Generator) -> Tensor:
    """(T, 1, side, side) in [0, 1]: how much an oval of random size and place covers points (T, side, side, 2), which carry it
    along."""
    side = points.shape[1]
    middle = torch.tensor(random.uniform(-side / 3, side / 3, 2), dtype=torch.float32)
    radii = torch.tensor(random.uniform(side / 12, side / 3, 2), dtype=torch.float32)
    depth = 1 - torch.linalg.vector_norm((points - middle) / radii, dim=-1)
    return (depth * radii.min() + 0.5).clamp(0, 1)[:, None]  # an edge of about a pixel
