"""Examples of video: crops of consecutive frames, from clips in memory or from photos set in motion (``motion``).

As in ``data``, the examples of step ``n`` depend on (seed, n) alone, and the split on the names of the files alone.
"""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from live.errors import InputError
from live.files import clip_files, picture_files
from live.video.source import open_source

from .data import ALONE, VALIDATION_CROP, Photos, Share, digest_of, is_validation
from .motion import moving

VALIDATION_SHARE, VALIDATION_CLIPS, VALIDATION_FRAMES = 0.15, 6, 6
"""Of clips, which are few: so much is held out, and a stage looks at so many of them, at so many frames in a row."""
MOST_BYTES = 2 << 30
"""Memory for the frames. A clip may fill an equal share of what those before it have left; the rest of it is not read."""
CUT, CUT_RATIO = 12.0, 2.0
"""A cut: the frames' mean difference, of 255, is over the one and over so many times those of the frames around it."""
CUT_SHARE, SKIP_SHARE, HALF_SHARE = 0.02, 0.25, 0.3
"""How often an example spans a cut, which codecs must survive; leaves out every second frame; is reduced to half its
size, which takes away the artefacts that published clips have."""


def is_held_out(path: Path) -> bool:
    """Whether a clip belongs to the held-out 15 %, by its name's hash."""
    return is_validation(path, VALIDATION_SHARE)


def read_clips(files: list[Path], most_bytes: int) -> list[Tensor]:
    """Each clip's frames as uint8 (T, 3, H, W), the first ones where all would take more than its share of the memory."""
    clips = []
    for number, path in enumerate(tqdm(files, desc="clips", unit="clip", leave=False)):
        source = open_source(path)
        share = most_bytes // (len(files) - number)
        most = max(2, share // (3 * source.properties.width * source.properties.height))
        frames = torch.from_numpy(np.stack([np.asarray(frame) for frame in islice(source.frames(), most)]))
        most_bytes -= frames.numel()
        clips.append(frames.permute(0, 3, 1, 2))
    return clips


def steps_of(frames: Tensor) -> np.ndarray:
    """(T - 1,): the mean differences, of 255, between frames (T, 3, H, W) that follow one another."""
    few = frames[:, :, ::4, ::4]
    return np.array([(a.short() - b.short()).abs().float().mean().item() for a, b in pairwise(few)])


def cuts_in(steps: np.ndarray) -> list[int]:
    """The numbers of the frames that begin a new scene, given ``steps_of`` all."""
    around = np.pad(steps, 1)  # beyond the ends nothing moves
    before, after = around[:-2], around[2:]
    return [int(n) + 1 for n in np.flatnonzero((steps > CUT) & (steps > CUT_RATIO * np.maximum(before, after)))]


class Clips:
    """Clips in memory, each of at least ``shortest`` frames and ``smallest`` px a side; others are left out."""

    def __init__(self, files: list[Path], shortest: int, smallest: int):
        read = zip(files, read_clips(files, MOST_BYTES), strict=True)
        kept = [(path, clip) for path, clip in read if len(clip) >= shortest and min(clip.shape[2:]) >= smallest]
        if not kept:
            raise InputError(f"no clip has {shortest} frames of {smallest} px a side; give others, or crop less")
        self.files, self.clips = [path for path, _ in kept], [clip for _, clip in kept]
        self.steps = [steps_of(clip) for clip in self.clips]
        self.cuts = [cuts_in(steps) for steps in self.steps]
        self._starts: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def starts(self, span: int) -> tuple[np.ndarray, np.ndarray]:
        """Where ``span`` frames in a row may begin, as (n, 2) pairs of clip and frame: without a cut within, and with one."""
        if span not in self._starts:
            sound, broken = [], []
            for number, clip in enumerate(self.clips):
                for start in range(len(clip) - span + 1):
                    within = any(start < cut < start + span for cut in self.cuts[number])
                    (broken if within else sound).append((number, start))
            self._starts[span] = tuple(np.array(pairs).reshape(-1, 2) for pairs in (sound, broken))
        return self._starts[span]

    def window(self, random: np.random.Generator, frames: int, crop: int) -> tuple[Tensor, Path]:
        """An example (frames, 3, crop, crop) uint8 at random, and the file that it comes from."""
        step = 2 if random.random() < SKIP_SHARE else 1
        if not any(map(len, self.starts(step * (frames - 1) + 1))):  # all clips are too short to skip any
            step = 1
        span = step * (frames - 1) + 1
        sound, broken = self.starts(span)
        over_cut = len(broken) and (random.random() < CUT_SHARE or not len(sound))
        pairs = broken if over_cut else sound
        number, start = pairs[random.integers(len(pairs))]
        whole = self.clips[number][start : start + span : step]
        shrink = 2 if random.random() < HALF_SHARE and min(whole.shape[2:]) >= 2 * crop else 1
        top, left = (random.integers(0, size - shrink * crop + 1) for size in whole.shape[2:])
        piece = whole[:, :, top : top + shrink * crop, left : left + shrink * crop]
        if shrink == 2:
            piece = F.avg_pool2d(piece.float(), 2).round().to(torch.uint8)
        turned = [axis for axis in (0, 3) if random.integers(2)]  # backwards in time, mirrored
        return piece.flip(turned), self.files[number]

    def liveliest(self, frames: int, crop: int) -> Tensor:
        """The middle of every clip where it moves most, (N, frames, 3, crop, crop) in [0, 1]: the validation's fixed view."""
        pieces = []
        for clip, steps in zip(self.clips, self.steps, strict=True):
            first = np.convolve(steps.clip(max=CUT), np.ones(frames - 1), "valid").argmax()
            top, left = ((size - crop) // 2 for size in clip.shape[2:])
            pieces.append(clip[first : first + frames, :, top : top + crop, left : left + crop])
        return torch.stack(pieces).float() / 255


class VideoExamples:
    """Clips and, for a share ``synthetic`` of the examples, photos set in motion."""

    def __init__(self, clips: Clips, photos: Photos, synthetic: float):
        self.clips, self.photos, self.synthetic = clips, photos, synthetic

    @property
    def digest(self) -> str:
        return digest_of([*self.clips.files, *self.photos.files])

    def __str__(self) -> str:
        """What they are, for the cards of what learned from them."""
        return f"{len(self.clips.files)} clips, and photos in motion as {self.synthetic:.0%} of the examples: {self.photos}"

    def batch(
        self, seed: int, start: int, count: int, frames: int, crop: int, share: Share = ALONE
    ) -> tuple[Tensor, list[Path]]:
        """Examples from place ``start`` on: (count / world, frames, 3, crop, crop) in [0, 1] on the share's device; their files."""
        examples, files = [], []
        for place in share.places(start, count):
            random = np.random.default_rng((seed, 2 << 32, place))
            if random.random() < self.synthetic:
                which, other = random.integers(len(self.photos), size=2)
                example = moving(self.photos.tensors[which], self.photos.tensors[other], random, frames, crop)
                file = self.photos.files[which]
            else:
                example, file = self.clips.window(random, frames, crop)
            examples.append(example)
            files.append(file)
        return torch.stack(examples).to(share.device).float() / 255, files


def split(
    clips: str | Path, photos: str | Path, synthetic: float, shortest: int, smallest: int
) -> tuple[VideoExamples, Tensor]:
    """What to train on, at least ``smallest`` px a side and clips of ``shortest`` frames, and the fixed view of the held-out
    clips, (N, ``VALIDATION_FRAMES``, 3, ``VALIDATION_CROP``, ``VALIDATION_CROP``) in [0, 1]. InputError when a kind is
    missing."""
    files = clip_files(clips)
    parts = [[path for path in files if is_held_out(path) == held_out] for held_out in (False, True)]
    if not all(parts):
        raise InputError(
            f"of every 7 clips one is held out, by its name's hash, which leaves none in {clips}: give more"
        )
    photo_files = [path for path in picture_files(photos) if not is_validation(path)]
    held_out = Clips(parts[1], VALIDATION_FRAMES, VALIDATION_CROP).liveliest(VALIDATION_FRAMES, VALIDATION_CROP)
    train = VideoExamples(Clips(parts[0], shortest, smallest), Photos(photo_files, smallest), synthetic)
    return train, held_out[:VALIDATION_CLIPS]
