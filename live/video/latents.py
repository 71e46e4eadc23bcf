"""Clips of latents <-> files, without touching pixels: what a pipeline holds of every frame before its autoencoder decodes it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from fractions import Fraction
from itertools import chain, count
from pathlib import Path

import torch
from torch import Tensor

from ..api import _autoencoder, _codec, _identity_for
from ..checkpoints import clip_codec_name
from ..container import MAX_PIXELS
from ..errors import InputError, reason
from ..files import replacing
from ..latents.base import Autoencoder
from ..latents.given import as_latents, kind_of
from .api import ClipSummary, DecodedClip, check_written
from .codec import clip_codec, with_intra_period
from .container import MAX_FRAMES
from .encoder import encode_clip, header_of
from .properties import RGB, Colour, Properties
from .source import parse_rate

DEFAULT_RATE = 25
"""Frames a second of latents, which nothing says of them."""


def compress_clip_latents(
    latents: Tensor | Iterable[Tensor],
    output: str | Path,
    quality: float | None = None,
    *,
    codec: str | None = None,
    checkpoint: str | Path | None = None,
    vae: str | Autoencoder | None = None,
    fps: Fraction | str | float = DEFAULT_RATE,
    intra_period: int | None = None,
    scene_cuts: bool = True,
    verify: bool = False,
    progress: bool = False,
) -> ClipSummary:
    """A clip's latents as a LIVE file, frame by frame; the output takes its name when it is whole, in the place of an older file.

    latents: (T, c, h, w), or (c, h, w) or (1, c, h, w) in a row, all of one size, which are asked for in another thread and not
    kept; any float type, in the convention of ``live.compress_latents``. vae: as there. The others are those of
    ``live.compress_clip``. Raises InputError, ModelError, OutputError, or DecodeMismatch where verify fails.
    """
    output, rate = Path(output), parse_rate(fps)
    chosen = _codec(quality, checkpoint, codec or (clip_codec_name() if checkpoint is None else None))
    coder, identity = with_intra_period(clip_codec(chosen), intra_period), _identity_for(chosen, vae)
    # Only its own statistics say more, and latents that are scaled for diffusion have about unit variance.
    std = torch.ones(chosen.channels) if vae is None else _autoencoder(chosen, vae).statistics.std
    checked = _checked(latents, chosen.channels)
    first = next(checked, None)
    if first is None:
        raise InputError("the clip holds no frames")
    length = len(latents) if isinstance(latents, Sized) else None
    shape = Properties(first.shape[3], first.shape[2], rate, colour=Colour(RGB, full_range=True))
    header = header_of(chosen, coder, identity, shape, latents=True)
    frames = ((each, None) for each in chain([first], checked))
    with replacing(output) as (file, place):
        coded = encode_clip(frames, header, coder, std, file, scene_cuts, length, progress)
        file.flush()
        if verify:
            check_written(lambda: ClipLatents(place, 0, checkpoint, False, sys.maxsize, sys.maxsize, check=True))
        size = place.stat().st_size
    return ClipSummary(coded, shape.width, shape.height, rate, size)


def _checked(latents: Tensor | Iterable[Tensor], channels: int) -> Iterator[Tensor]:
    """Every frame as (1, c, h, w) float32; InputError for what is no clip, and for the first frame that does not fit."""
    if not isinstance(latents, Iterable) or (isinstance(latents, Tensor) and latents.dim() != 4):
        given = f"a tensor of shape {tuple(latents.shape)}" if isinstance(latents, Tensor) else kind_of(latents)
        raise InputError(f"a clip's latents must be (T, {channels}, h, w), or ({channels}, h, w) in a row, not {given}")
    size, given = None, iter(latents)
    for number in count():
        try:
            tensor = as_latents(next(given), channels)
        except StopIteration:
            return
        except InputError as error:
            raise InputError(f"frame {number}: {error}") from None
        except OSError as error:  # of the caller's own reading; of the output's writing it would else be said
            raise InputError(f"frame {number} cannot be read: {reason(error)}") from error
        size = size or tensor.shape
        if tensor.shape != size:
            shapes = f"{tuple(tensor.shape[1:])}, and the frames before {tuple(size[1:])}"
            raise InputError(f"frame {number} has latents of shape {shapes}")
        yield tensor.clone()  # the next one is asked for while this one is coded, and may be made in the same memory


def decompress_clip_latents(
    path: str | Path,
    start: int = 0,
    *,
    checkpoint: str | Path | None = None,
    salvage: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> ClipLatents:
    """An iterator over the latents (1, c, h, w) float32 of a clip's LIVE file, from frame ``start`` on; of pictures' file, over
    those that its autoencoder would decode.

    To be used, and to be closed, as ``live.clip_frames``, whose options and errors it has.
    """
    return ClipLatents(Path(path), start, checkpoint, salvage, max_pixels, max_frames)


class ClipLatents(DecodedClip[Tensor]):
    """See ``decompress_clip_latents``."""

    def _shown(self, latents: Tensor) -> Tensor:
        return latents.clone()  # the next frame is predicted from these, whatever becomes of those
