"""What the verbs of the ``live`` command do with clips. Heavy imports stay inside the functions that need them."""

from __future__ import annotations

import json
import math
import struct
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..artefact import read_card
from ..checkpoints import embedded_checkpoints, facts_of
from ..commands import FILE_SUFFIX, LATENT_SUFFIX, check_suffix, open_tensor
from ..container import CLIP_VERSION, MAGIC
from ..errors import DamagedFile, DecodeMismatch, InputError, LiveError, naming
from ..files import CLIP_SUFFIXES, check_output, default_output, replacing, require_regular_file
from .container import MAX_HEADER, ClipReader
from .header import HOLDS_LATENTS, unpack_header
from .properties import MATRICES, Properties

MOVING_SUFFIXES = (".gif", ".webp", ".png", ".apng")
"""Of pictures that may be clips."""
MANY = 20
"""Damaged frames that are listed."""


def is_source(args: Namespace) -> bool:
    """Whether ``live compress`` is asked for a clip: by the input's suffix, --fps, a folder's output, or a picture that moves."""
    if args.fps is not None or args.input.suffix.lower() in CLIP_SUFFIXES:
        return True
    if args.input.is_dir():
        return bool(args.output) and args.output.suffix.lower() == FILE_SUFFIX and not args.output.is_dir()
    return args.input.suffix.lower() in MOVING_SUFFIXES and _moves(args.input)


def _moves(path: Path) -> bool:
    from PIL import Image

    from ..media import without_pillows_limit

    try:
        with without_pillows_limit(), Image.open(path) as image:
            return getattr(image, "n_frames", 1) > 1
    except Exception:  # Pillow's readers raise anything on damaged data, and say more when it is read as a picture
        return False


def holds_clip(path: Path) -> bool:
    """Whether a file is of the clips' format version; False also for what cannot be read, or only once."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.read(4) == MAGIC + bytes([CLIP_VERSION])
    except OSError:
        return False


def compress(args: Namespace) -> int:
    """live compress: a clip."""
    folder = args.input.is_dir()
    if folder and args.fps is None:
        raise InputError(
            f"{args.output} would be one clip of the pictures in {args.input}: give its frames a second, as in --fps 25, "
            "or a folder with -o for a file of each picture"
        )
    if not folder:
        require_regular_file(args.input)
        if args.alpha is not None:
            raise InputError(f"{args.input} is a clip; --alpha is for pictures")
    if args.target_bpp is not None:
        raise InputError(f"{args.input} is a clip; choose a quality instead of --target-bpp")
    if args.refine:
        raise InputError(f"{args.input} is a clip; --refine is for pictures")
    default = args.input.parent / (args.input.name + FILE_SUFFIX) if folder else default_output(args.input, FILE_SUFFIX)
    output = args.output or default
    check_suffix(output, FILE_SUFFIX)
    check_output(output, args.force)
    from . import api

    done = api.compress_clip(
        args.input, output, args.quality, codec=args.codec, checkpoint=args.checkpoint, vae=args.vae, fps=args.fps,
        alpha=args.alpha, intra_period=args.intra_period, scene_cuts=not args.no_scene_cuts, max_pixels=args.max_pixels,
        verify=args.verify, progress=True,
    )  # fmt: skip
    _say(args.input, done.notes)
    print(f"{output}: {done.frames} frames, {done.bytes} bytes, {done.bpp:.4f} bpp")
    return 0


def holds_frames(args: Namespace) -> bool:
    """Whether latents to be packed are a clip's: frames that are not just one, --fps, or a codec of clips asked for."""
    with open_tensor(args.input, args.key, "np") as tensor:
        shape = tensor.get_shape()
    if (len(shape) == 4 and shape[0] != 1) or args.fps is not None:
        return True
    if args.checkpoint is not None and args.checkpoint.is_file():
        return "images" in read_card(args.checkpoint)
    return any(c.card["codec"] == args.codec and "images" in c.card for c in embedded_checkpoints())


def pack_latents(args: Namespace) -> int:
    """live latents pack: the latents of a clip's frames in a safetensors file -> .live, read frame by frame."""
    output = args.output or default_output(args.input, FILE_SUFFIX)
    check_suffix(output, FILE_SUFFIX)
    check_output(output, args.force)
    from .latents import DEFAULT_RATE, compress_clip_latents

    with open_tensor(args.input, args.key) as tensor:
        shape = tensor.get_shape()
        frames = (tensor[number : number + 1] for number in range(shape[0])) if len(shape) == 4 else [tensor[...]]
        done = compress_clip_latents(
            frames, output, args.quality, codec=args.codec, checkpoint=args.checkpoint, vae=args.vae,
            fps=DEFAULT_RATE if args.fps is None else args.fps, intra_period=args.intra_period, scene_cuts=not args.no_scene_cuts,
            verify=args.verify, progress=True,
        )  # fmt: skip
    print(f"{output}: {done.frames} frames, {done.bytes} bytes, {done.bpp:.4f} bits a latent position")
    return 0


def unpack_latents(args: Namespace) -> int:
    """live latents unpack: a clip's .live -> safetensors with one tensor, ``latents`` (T, c, h, w) float32, frame by frame."""
    output = args.output or default_output(args.input, LATENT_SUFFIX)
    check_suffix(output, LATENT_SUFFIX)
    check_output(output, args.force)
    from .encoder import watched
    from .latents import ClipLatents

    with (
        replacing(output) as (file, _),
        naming(args.input),
        ClipLatents(args.input, 0, args.checkpoint, False, args.max_pixels, args.max_frames, check=True) as frames,
    ):
        for number, latents in enumerate(watched(frames, frames.count, progress=True)):
            if not number:
                shape = (frames.count, *latents.shape[1:])
                file.write(_tensor_header("latents", shape))
            file.write(latents.numpy().astype("<f4").tobytes())
    print(f"{output}: latents {shape} float32")
    return 0


def _tensor_header(name: str, shape: tuple[int, ...]) -> bytes:
    """What a safetensors file of one float32 tensor begins with; its values follow, row-major."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": (0, 4 * math.prod(shape))}
    text = json.dumps({name: entry}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def decompress(args: Namespace) -> int:
    """live decompress: a clip; exit code 1 when frames were lost, which --salvage alone allows."""
    with naming(args.input), open(args.input, "rb") as file:
        if unpack_header(file.read(MAX_HEADER))[0].latents:
            raise InputError(HOLDS_LATENTS)
    output = args.output or default_output(args.input, ".mp4")
    from .sink import check_clip_output

    check_clip_output(output, args.force)
    from . import api  # seconds of loading, for which no refusal need wait

    try:
        done = api.decompress_clip(
            args.input, output, checkpoint=args.checkpoint, vae=args.vae, salvage=args.salvage, lossless=args.lossless,
            max_pixels=args.max_pixels, max_frames=args.max_frames, progress=True,
        )  # fmt: skip
    except (DamagedFile, DecodeMismatch) as error:
        hint = "" if args.salvage or not _salvageable(args) else "; for the frames that are whole: --salvage"
        raise type(error)(f"{args.input}: {error}{hint}") from None
    _say(args.input, done.notes)
    print(f"{output}: {done.frames} frames, {done.width} x {done.height}, {done.rate} a second")
    return 1 if done.notes else 0


def _salvageable(args: Namespace) -> bool:
    """Whether a damaged clip's header is whole and within the limits, without which there is nothing to be had of it."""
    try:
        with open(args.input, "rb") as file:
            ClipReader(file, args.max_pixels, args.max_frames, salvage=True)
    except (LiveError, OSError):
        return False
    return True


def _say(path: Path, notes: tuple[str, ...]) -> None:
    for note in notes:
        print(f"live: {path}: {note}", file=sys.stderr)


def info(args: Namespace) -> int:
    """live info: a clip's header and every record's length and checksum; exit code 1 when it is damaged. Never loads torch."""
    with open(args.input, "rb") as file:
        with naming(args.input):
            facts = _facts(args.input, ClipReader(file, sys.maxsize, sys.maxsize, salvage=True))
        facts["damage"] = _damage(file)
    if args.json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{key:18} {value}" for key, value in facts.items()))
    if facts["damage"]:
        print(f"live: {args.input}: {facts['damage']}", file=sys.stderr)
    return 1 if facts["damage"] else 0


def _damage(file: Any) -> str | None:
    """What is wrong with a clip's file, None when it is whole."""
    try:
        ClipReader(file, sys.maxsize, sys.maxsize).check()
    except DamagedFile as error:
        return str(error)
    return None


def _facts(path: Path, reader: ClipReader) -> dict[str, Any]:
    clip, latents, size = reader.header.properties, reader.header.latents, path.stat().st_size
    count = intra = streams = damaged = 0
    shortest, longest, first = sys.maxsize, 0, []
    for frame in reader.frames():
        count += 1
        if frame.stream is None:
            damaged += 1
            first += [frame.number] if len(first) < MANY else []
            continue
        intra += frame.intra
        streams += len(frame.stream)
        shortest, longest = min(shortest, frame.length), max(longest, frame.length)
    whole = count - damaged
    return {
        "file": str(path),
        "bytes": size,
        "kind": "clip of latents" if latents else "clip",
        "width": clip.width,
        "height": clip.height,
        "frames": count,
        "frames_per_second": str(clip.rate),
        "seconds": round(float(count / clip.rate), 3),
        "bits_per_position" if latents else "bpp": round(8 * size / (max(count, 1) * clip.width * clip.height), 5),
        "bytes_a_frame": round(size / max(count, 1), 1),
        "shortest_frame": shortest if whole else None,
        "longest_frame": longest if whole else None,
        "intra_frames": intra,
        "intra_period": reader.header.intra_period,
        "overhead_bytes": size - streams,
        **({} if latents else _pixels(clip)),
        **facts_of(reader.header),
        "damaged_frames": damaged,
        "first_damaged": first,
    }


def _pixels(clip: Properties) -> dict[str, str]:
    """What is known of a clip's pixels, and means nothing of latents."""
    return {
        "pixel_aspect": str(clip.aspect),
        "matrix": MATRICES[clip.colour.matrix],
        "range": "full" if clip.colour.full_range else "limited",
    }
