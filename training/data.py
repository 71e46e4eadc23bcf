"""Training examples: photos or cached latents, in memory, split by file name's hash, cropped deterministically by place.

The crop at place ``n`` of the stream of examples depends on (seed, n) alone, and a step's places on its number and the phases
before it. So the data position of a run *is* its step number, and a resumed run sees exactly the pictures that an unbroken one
would have seen.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from live.errors import ConfigError, InputError
from live.files import picture_files
from live.media import read_picture

VALIDATION_SHARE = 0.04
VALIDATION_PHOTOS, VALIDATION_CROP = 24, 256
"""How many of the held-out photos a stage looks at, and the side in px of the middle of each."""
SMOOTH_SHARE, ENLARGED_SHARE, LARGEST_SCALE = 0.04, 0.6, 2.0
"""How often an example is a smooth picture, how often else it is enlarged, and by up to how much (see ``Photos.varied``)."""


@dataclass(frozen=True)
class Share:
    """Which part of every batch a process works on: its rank among ``world`` processes, and its device."""

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")

    def places(self, start: int, count: int) -> range:
        """This process's of the ``count`` places from ``start`` on in the stream of examples; ConfigError if uneven."""
        if count % self.world:
            raise ConfigError(f"a batch of {count} cannot be shared evenly by {self.world} processes")
        return range(start + self.rank, start + count, self.world)


ALONE = Share()


def is_validation(path: Path, share: float = VALIDATION_SHARE) -> bool:
    """Whether a file belongs to the held-out share: decided by its name's hash, so it never depends on the folder."""
    return hashlib.sha256(path.name.encode()).digest()[0] < 256 * share


def digest_of(files: list[Path]) -> str:
    """Hex SHA-256 of files' names and sizes, by which a run knows its data again: others, or in another order, are others."""
    return hashlib.sha256("\n".join(f"{path.name} {path.stat().st_size}" for path in files).encode()).hexdigest()


class Examples:
    """Tensors (c, H, W) in memory and the files they come from; ``flip``: whether a mirrored one is as good."""

    def __init__(self, files: list[Path], tensors: list[Tensor], flip: bool):
        self.files, self.tensors, self.flip = files, tensors, flip

    def __len__(self) -> int:
        return len(self.files)

    @property
    def digest(self) -> str:
        return digest_of(self.files)

    def __str__(self) -> str:
        """What they are, for the cards of what learned from them."""
        return f"{len(self)} photos, and {VALIDATION_SHARE:.0%} of the folder held out"

    def batch(self, seed: int, start: int, count: int, crop: int, share: Share = ALONE) -> tuple[Tensor, list[Path]]:
        """Crops from place ``start`` on: (count / world, c, crop, crop) float32 on the share's device, and their files.

        Each pass over the examples is a fresh permutation, so every one is seen equally often.
        """
        crops, files = [], []
        for place in share.places(start, count):
            epoch, index = divmod(place, len(self))
            which = int(np.random.default_rng((seed, epoch)).permutation(len(self))[index])
            random = np.random.default_rng((seed, 1 << 32, place))
            tensor = self.tensors[which]
            top = random.integers(0, tensor.shape[1] - crop + 1)
            left = random.integers(0, tensor.shape[2] - crop + 1)
            piece = tensor[:, top : top + crop, left : left + crop]
            piece = piece.flip(2) if random.integers(2) and self.flip else piece
            crops.append(self.varied(piece, random))
            files.append(self.files[which])
        return self.scaled(torch.stack(crops).to(share.device)), files

    def varied(self, piece: Tensor, random: np.random.Generator) -> Tensor:
        """A crop (c, crop, crop), perhaps made into something that the examples hold too little of."""
        return piece

    def middle(self, crop: int) -> Tensor:
        """The middle (crop x crop) of every example, as (N, c, crop, crop) float32: the validation set's fixed view."""
        pieces = []
        for tensor in self.tensors:
            top, left = (tensor.shape[1] - crop) // 2, (tensor.shape[2] - crop) // 2
            pieces.append(tensor[:, top : top + crop, left : left + crop])
        return self.scaled(torch.stack(pieces))

    def scaled(self, tensors: Tensor) -> Tensor:
        return tensors.float()


def read_photo(path: Path) -> Image.Image | None:
    """A photo as PIL RGB, 8 bit, over white where it is transparent; None, and named on stderr, where it cannot be read."""
    try:
        return read_picture(path, "white")
    except InputError as error:
        tqdm.write(f"live: left out: {error}", sys.stderr)
        return None


class Photos(Examples):
    """Photos in memory as uint8 (3, H, W), all at least ``smallest`` px a side; given as [0, 1]. Smaller ones are left out, and
    those that cannot be read, which are named.

    vary: make some crops smooth or larger than life, as ``varied`` does.
    """

    def __init__(self, files: list[Path], smallest: int, vary: bool = True):
        if not files:
            raise InputError("of every 25 photos one is held out for validation, by its name's hash: give more photos")
        kept, pictures = [], []
        for path in tqdm(files, desc="photos", unit="file", leave=False):
            photo = read_photo(path)
            if photo is not None and min(photo.size) >= smallest:
                kept.append(path)
                pictures.append(torch.from_numpy(np.array(photo)).permute(2, 0, 1))
        if not kept:
            raise InputError(
                f"no photo can be read that has {smallest} px a side; use larger photos, or a smaller crop, though "
                f"validation's is {VALIDATION_CROP}"
            )
        super().__init__(kept, pictures, flip=True)
        self.vary = vary

    def varied(self, piece: Tensor, random: np.random.Generator) -> Tensor:
        """Now and then a smooth picture, 1 to 5 px of the crop a side, enlarged: photos alone teach no flat colour. And often
        a part of the crop enlarged up to ``LARGEST_SCALE`` times: training photos are small, with more detail in a crop
        than the photos have that people compress."""
        if not self.vary:
            return piece
        if random.random() < SMOOTH_SHARE:
            return enlarged(piece[:, : random.integers(1, 6), : random.integers(1, 6)], piece.shape[1], "bilinear")
        if random.random() < ENLARGED_SHARE:
            crop = piece.shape[1]
            part = round(crop / LARGEST_SCALE ** random.random())
            top, left = random.integers(0, crop - part + 1, 2)
            return enlarged(piece[:, top : top + part, left : left + part], crop, "bicubic")
        return piece

    def scaled(self, tensors: Tensor) -> Tensor:
        return tensors.float() / 255


def enlarged(piece: Tensor, side: int, mode: str) -> Tensor:
    """A piece (c, h, w) of 8-bit values as (c, side, side), interpolated and rounded."""
    values = F.interpolate(piece[None].float(), (side, side), mode=mode)
    return values.round().clamp(0, 255)[0].to(piece.dtype)


def split(data: str | Path, smallest: int, vary: bool = True) -> tuple[Photos, Tensor]:
    """The training photos of a folder, at least ``smallest`` px a side, with their crops varied or not, and the fixed view of the
    held-out ones, (N, 3, ``VALIDATION_CROP``, ``VALIDATION_CROP``) in [0, 1]. InputError when either kind is missing."""
    files = picture_files(data)
    train = Photos([f for f in files if not is_validation(f)], smallest, vary)
    held_out = Photos([f for f in files if is_validation(f)], VALIDATION_CROP).middle(VALIDATION_CROP)
    return train, held_out[:VALIDATION_PHOTOS]
