"""Training photos: a folder read once into memory, split by file hash, cropped deterministically by step.

The crops of step ``n`` depend on (seed, n) alone. So the data position of a run *is* its step number, and a resumed run
sees exactly the pictures that an unbroken one would have seen.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from live.errors import InputError

VALIDATION_SHARE = 0.04


def is_validation(path: Path) -> bool:
    """Whether a photo belongs to the held-out 4 %: decided by its name's hash, so it never depends on the folder."""
    return hashlib.sha256(path.name.encode()).digest()[0] < 256 * VALIDATION_SHARE


class Photos:
    """Photos in memory as uint8 (3, H, W), all at least ``smallest`` px a side (others are left out)."""

    def __init__(self, files: list[Path], smallest: int):
        self.files, self.pictures = [], []
        for path in tqdm(files, desc="photos", unit="file", leave=False):
            with Image.open(path) as picture:
                array = np.array(picture.convert("RGB"))
            if min(array.shape[:2]) >= smallest:
                self.files.append(path)
                self.pictures.append(torch.from_numpy(array).permute(2, 0, 1))
        if not self.files:
            raise InputError(f"every photo is smaller than the {smallest}-px crop; use larger photos or a smaller crop")

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, seed: int, step: int, count: int, crop: int) -> tuple[Tensor, list[Path]]:
        """Crops of one step: (count, 3, crop, crop) in [0, 1], flipped at random, and the files they come from.

        Each pass over the photos is a fresh permutation, so every photo is seen equally often.
        """
        crops, files = [], []
        for place in range(step * count, (step + 1) * count):
            epoch, index = divmod(place, len(self))
            which = int(np.random.default_rng((seed, epoch)).permutation(len(self))[index])
            random = np.random.default_rng((seed, 1 << 32, place))
            picture = self.pictures[which]
            top = random.integers(0, picture.shape[1] - crop + 1)
            left = random.integers(0, picture.shape[2] - crop + 1)
            piece = picture[:, top : top + crop, left : left + crop]
            crops.append(piece.flip(2) if random.integers(2) else piece)
            files.append(self.files[which])
        return torch.stack(crops).float() / 255, files


def center_crops(photos: Photos, crop: int) -> Tensor:
    """The middle (crop x crop) of every photo, as (N, 3, crop, crop) in [0, 1]: the validation set's fixed view."""
    pieces = []
    for picture in photos.pictures:
        top, left = (picture.shape[1] - crop) // 2, (picture.shape[2] - crop) // 2
        pieces.append(picture[:, top : top + crop, left : left + crop])
    return torch.stack(pieces).float() / 255
