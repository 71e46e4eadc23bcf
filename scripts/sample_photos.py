"""Real photos for who has none at hand: those that scikit-image ships.

python -m scripts.sample_photos OUT            # write them as PNG, print OUT
python -m scripts.sample_photos OUT --tiles    # cut into tiles, enough of them to try a training on
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from live.command import Parser, run
from live.errors import InputError
from live.files import make_folder
from training.data import is_validation

TILE = 288
"""Pixels a side: room for a 256-px crop."""
HELD_OUT = "rocket"


def shipped() -> dict[str, np.ndarray]:
    """scikit-image's colour photos by name, (H, W, 3) uint8; InputError when the package is not there."""
    try:
        from skimage import data
    except ImportError:
        raise InputError("no photos: give a folder with --data, set LIVE_KODAK, or install scikit-image") from None
    arrays = {name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")}
    return arrays | {"motorcycle": data.stereo_motorcycle()[0]}


def tiles(array: np.ndarray) -> list[np.ndarray]:
    """Tiles of ``TILE`` px a side, a quarter of that apart, as many as fit."""
    rows, columns = (range(0, size - TILE + 1, TILE // 4) for size in array.shape[:2])
    return [array[top : top + TILE, left : left + TILE] for top in rows for left in columns]


def write(folder: Path, cut: bool = False) -> Path:
    """Write the photos, or their tiles, below a folder; returns it."""
    make_folder(folder)
    for name, array in shipped().items():
        if not cut:
            Image.fromarray(array).save(folder / f"{name}.png")
            continue
        for place, tile in enumerate(tiles(array)):
            Image.fromarray(tile).save(folder / _tile_name(name, place))
    return folder


def _tile_name(photo: str, place: int) -> Path:
    """Tiles overlap, and training holds out by the hash of names: one that holds out all of one photo, and no other's."""
    names = (Path(f"{photo}_tile{place}_{number}.png") for number in count())
    return next(name for name in names if is_validation(name) == (photo == HELD_OUT))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m scripts.sample_photos", description="Write scikit-image's photos into a folder.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiles", action="store_true", help="cut them into tiles to train on")
    args = parser.parse_args(argv)
    print(write(args.out, args.tiles))
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
