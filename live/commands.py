"""What each verb of the ``live`` command does. Heavy imports stay inside the functions that need them."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import DecodeMismatch, InputError, LiveError, OutputError, naming
from .files import (
    check_output,
    default_output,
    make_folder,
    read_bytes,
    require_file,
    require_regular_file,
    write_atomic,
)

FILE_SUFFIX = ".live"
LATENT_SUFFIX = ".safetensors"
OUTPUT_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
    ".ppm": "PPM",
}  # fmt: skip
SAVE_OPTIONS: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"}, "WEBP": {"lossless": True},
}  # fmt: skip
"""A second loss would go unnoticed: none where the format allows it, little in JPEG."""


def compress(args: Namespace) -> int:
    """live compress: one picture."""
    require_file(args.input)
    output = args.output or default_output(args.input, FILE_SUFFIX)
    check_suffix(output, FILE_SUFFIX)
    check_output(output, args.force)
    size, pixels = compress_picture(args, args.input, output, progress=True)
    print(f"{output}: {size} bytes, {8 * size / pixels:.4f} bpp")
    return 0


def compress_picture(args: Namespace, source: Path, output: Path, progress: bool = False) -> tuple[int, int]:
    """Write one picture's file, and the folder that it goes to; returns its bytes and the pixels. progress: see ``compress``."""
    from . import api
    from .media import read_picture

    image = read_picture(source, args.alpha, args.max_pixels)
    data = api.compress(
        image,
        **choice(args),
        target_bpp=args.target_bpp,
        refine=args.refine,
        max_pixels=args.max_pixels,
        progress=progress,
    )
    make_folder(output.parent)
    write_atomic(output, data, _verification(args, source, data) if args.verify else None)
    return len(data), image.width * image.height


def choice(args: Namespace) -> dict[str, Any]:
    """What of the arguments says which codec and autoencoder are to be used, for the API."""
    return {"quality": args.quality, "codec": args.codec, "checkpoint": args.checkpoint, "vae": args.vae}


def _verification(args: Namespace, source: Path, data: bytes) -> Callable[[bytes], None]:
    """For --verify: what to do with the written bytes, read back, before they count; DecodeMismatch if they do not hold."""
    from . import api
    from .container import unpack

    def check(written: bytes) -> None:
        try:
            limit = {"max_pixels": sys.maxsize}  # what was read was within it
            if unpack(written, **limit).latents:
                api.decompress_latents(written, checkpoint=args.checkpoint, **limit)
            else:
                api.decompress(written, checkpoint=args.checkpoint, vae=args.vae, **limit)
        except LiveError as error:
            raise DecodeMismatch(f"{source}: what was written does not decode ({error}); not kept") from None
        if written != data:
            raise DecodeMismatch(f"{source}: what was written is not what is on the disk; not kept")

    return check


def decompress(args: Namespace) -> int:
    """live decompress: a picture; a file of latents is unpacked to safetensors instead."""
    data = read_bytes(args.input)
    latents = holds_latents(args, args.input, data)
    if latents and args.output and args.output.suffix != LATENT_SUFFIX:
        raise OutputError(f"{args.input} holds latents, not a picture; give an output ending in {LATENT_SUFFIX}")
    if latents:
        return unpack_latents(args)
    output = args.output or default_output(args.input, ".png")
    if output.suffix.lower() not in OUTPUT_FORMATS:
        raise OutputError(f"no picture format is known for {output.name}; use one of {', '.join(OUTPUT_FORMATS)}")
    check_output(output, args.force)
    print(f"{output}: {decompress_picture(args, data, output, progress=True)}")
    return 0


def holds_latents(args: Namespace, path: Path, data: bytes) -> bool:
    """Whether a LIVE file is of latents, not of a picture; refusals name it."""
    from .container import unpack

    with naming(path):
        return unpack(data, args.max_pixels).latents


def decompress_picture(args: Namespace, data: bytes, output: Path, progress: bool = False) -> str:
    """Write the picture that a file's bytes hold, in the format of the output's suffix; returns its size, in words."""
    from . import api

    image = api.decompress(
        data, checkpoint=args.checkpoint, vae=args.vae, max_pixels=args.max_pixels, progress=progress
    )
    write_atomic(output, _encoded(image, output.suffix))
    return f"{image.width} x {image.height}"


def check_suffix(output: Path, suffix: str) -> None:
    """Refuse a name that would lie about its content, and with it the input's own."""
    if output.suffix.lower() != suffix:
        raise OutputError(f"{output} must end in {suffix}")


def _encoded(image: object, suffix: str) -> bytes:
    import io

    from PIL import Image

    assert isinstance(image, Image.Image)
    buffer = io.BytesIO()
    try:
        kind = OUTPUT_FORMATS[suffix.lower()]
        image.save(buffer, kind, **SAVE_OPTIONS.get(kind, {}))
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"cannot write {image.width} x {image.height} pixels as {suffix}: {error}") from None
    return buffer.getvalue()


def info(args: Namespace) -> int:
    """live info: reads the file's fields and the embedded cards; never loads torch."""
    from .checkpoints import facts_of
    from .container import unpack

    data = read_bytes(args.input)
    with naming(args.input):
        file = unpack(data, sys.maxsize)
        stated = facts_of(file)
    facts = {
        "file": str(args.input),
        "bytes": len(data),
        "kind": "latents" if file.latents else "picture",
        "width": file.width,
        "height": file.height,
        "bits_per_position" if file.latents else "bpp": round(8 * len(data) / (file.width * file.height), 5),
        "overhead_bytes": file.overhead,
        **stated,
    }
    if args.json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{key:18} {value}" for key, value in facts.items()))
    return 0


def models(args: Namespace) -> int:
    """live models: embedded checkpoints with their measured figures, and the autoencoders known by name."""
    from .checkpoints import embedded_checkpoints, quality_range
    from .latents import registered

    checkpoints = [
        {
            "codec": c.card["codec"],
            "quality": lowest,
            "highest_quality": highest,
            "autoencoder": c.card.get("autoencoder_name"),
            "identity": c.card["identity"][:16],
            "bytes": c.path.stat().st_size,
            "validation": c.card.get("validation", {}),
        }
        for c in embedded_checkpoints()
        for lowest, highest in [quality_range(c.card)]
    ]
    autoencoders = [dict(zip(("name", "kind", "source"), row, strict=True)) for row in registered()]
    if args.json:
        print(json.dumps({"checkpoints": checkpoints, "autoencoders": autoencoders}))
        return 0
    print("codec checkpoints (embedded)")
    for row in checkpoints:
        quality = _span([row["quality"], row["highest_quality"]])
        rates = _span([value for key, value in row["validation"].items() if re.fullmatch(r"(rate\d+_)?bpp", key)])
        on = f"on {row['autoencoder']!s:12} {row['identity']}"
        print(f"  {row['codec']:12} quality {quality:8} {on}", *[f"{rates} bpp in validation"] * bool(rates), sep="  ")
    print("autoencoders (--vae)")
    for row in autoencoders:
        print(f"  {row['name']:20} {row['kind']:16} {row['source']}")
    return 0


def _span(values: list[float]) -> str:
    """Smallest to largest in words; nothing of nothing."""
    return " to ".join(map(str, sorted({min(values), max(values)}))) if values else ""


def pack_latents(args: Namespace) -> int:
    """live latents pack: one picture's latents in a safetensors file -> .live."""
    require_regular_file(args.input)
    output = args.output or default_output(args.input, FILE_SUFFIX)
    check_suffix(output, FILE_SUFFIX)
    check_output(output, args.force)
    from . import api

    with open_tensor(args.input, args.key) as part:
        tensor = part[...]
    data = api.compress_latents(tensor, **choice(args))
    write_atomic(output, data, _verification(args, args.input, data) if args.verify else None)
    before = tensor.numel() * tensor.element_size()
    print(f"{output}: {len(data)} bytes, {before / len(data):.1f} times smaller than the tensor")
    return 0


def refuse_picture_options(args: Namespace) -> None:
    """InputError where live compress is given latents and an option that means nothing of them."""
    if args.alpha is not None:
        raise InputError(f"{args.input} holds latents, which have no transparency; leave --alpha out")
    if args.target_bpp is not None:
        raise InputError(f"{args.input} holds latents, which have no pixels; choose a quality instead of --target-bpp")
    if args.refine:
        raise InputError(f"{args.input} holds latents, which have no pixels to be refined by; leave --refine out")


@contextmanager
def open_tensor(path: Path, key: str | None, framework: str = "pt") -> Iterator[Any]:
    """A tensor of a safetensors file: its shape, and parts of it when they are asked for; "np" as framework does without torch."""
    from safetensors import SafetensorError, safe_open

    require_regular_file(path)
    try:
        opened = safe_open(str(path), framework)
    except (SafetensorError, OSError):
        raise InputError(f"{path} is not a readable safetensors file") from None
    with opened as file:
        names = list(file.keys())
        if key is None and len(names) != 1:
            some = f" ({', '.join(names[:5])}); choose one with live latents pack --key" if names else ""
            raise InputError(f"{path} holds {len(names)} tensors{some}")
        if key is not None and key not in names:
            raise InputError(f"{path} has no tensor {key!r}; it holds {', '.join(names[:5])}")
        yield file.get_slice(key or names[0])


def unpack_latents(args: Namespace) -> int:
    """live latents unpack: a picture's .live -> safetensors with one tensor, ``latents`` (1, c, h, w) float32."""
    data = read_bytes(args.input)
    output = args.output or default_output(args.input, LATENT_SUFFIX)
    check_suffix(output, LATENT_SUFFIX)
    check_output(output, args.force)
    holds_latents(args, args.input, data)  # whose refusals come before seconds of loading; a picture's are latents too
    print(f"{output}: {decompress_latents(args, data, output)}")
    return 0


def decompress_latents(args: Namespace, data: bytes, output: Path) -> str:
    """Write the latents that a file's bytes hold; returns their shape, in words."""
    from safetensors.torch import save

    from . import api

    latents = api.decompress_latents(data, checkpoint=args.checkpoint, max_pixels=args.max_pixels)
    write_atomic(output, save({"latents": latents.contiguous()}))
    return f"latents {tuple(latents.shape)} float32"
