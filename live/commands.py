"""What each verb of the ``live`` command does. Heavy imports stay inside the functions that need them."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DecodeMismatch, InputError, LiveError, OutputError, is_out_of_memory, naming, reason
from .files import check_output, picture_files, read_bytes, require_file, write_atomic

if TYPE_CHECKING:
    from .container import LiveFile

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
    """live compress: one picture, one folder, or latents."""
    if args.input.is_dir():
        return _compress_folder(args)
    if args.input.suffix == LATENT_SUFFIX:
        if args.alpha is not None:
            raise InputError(f"{args.input} holds latents, which have no transparency; leave --alpha out")
        if args.target_bpp is not None:
            raise InputError(
                f"{args.input} holds latents, which have no pixels; choose a quality instead of --target-bpp"
            )
        args.key = None
        return pack_latents(args)
    output = args.output or args.input.with_suffix(FILE_SUFFIX)
    require_file(args.input)
    check_suffix(output, FILE_SUFFIX)
    check_output(output, args.force)
    size, pixels = _compress_picture(args, args.input, output)
    print(f"{output}: {size} bytes, {8 * size / pixels:.4f} bpp")
    return 0


def _compress_picture(args: Namespace, source: Path, output: Path) -> tuple[int, int]:
    from . import api
    from .media import read_picture

    image = read_picture(source, args.alpha, args.max_pixels)
    data = api.compress(image, **_choice(args), target_bpp=args.target_bpp, max_pixels=args.max_pixels)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {output.parent}: {error.strerror}") from None
    write_atomic(output, data, _verification(args, source, data) if args.verify else None)
    return len(data), image.width * image.height


def _choice(args: Namespace) -> dict[str, Any]:
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


def _compress_folder(args: Namespace) -> int:
    """Every picture below a folder; bad ones are named at the end and make the exit code 1."""
    from tqdm import tqdm

    files = picture_files(args.input)
    target = args.output or args.input
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; a folder of pictures needs a folder with -o")
    from . import api
    from .media import parse_colour

    api.check_choice(**_choice(args), target_bpp=args.target_bpp)
    if args.alpha is not None:
        parse_colour(args.alpha)

    def attempt(source: Path) -> tuple[Path, int, int] | str:
        """A picture's row of the table, or why there is none."""
        output = target / source.relative_to(args.input).with_suffix(source.suffix + ".live")
        try:
            if output.exists():
                check_output(output, args.force)
            return source, *_compress_picture(args, source, output)
        except LiveError as error:
            return str(error) if str(source) in str(error) else f"{source}: {error}"
        except OSError as error:  # such as a name that is too long with .live behind it
            return f"{source}: {reason(error)}"
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return f"{source}: not enough memory for a picture of this size"

    from .parallel import side_by_side

    done = list(tqdm(side_by_side(attempt, files), total=len(files), unit="picture", file=sys.stderr))
    rows = [row for row in done if not isinstance(row, str)]
    failures = [row for row in done if isinstance(row, str)]
    for source, size, pixels in rows:
        print(f"{source.relative_to(args.input)!s:40} {size:10d} bytes {8 * size / pixels:8.4f} bpp")
    total, area = sum(row[1] for row in rows), sum(row[2] for row in rows)
    if rows:
        print(f"{len(rows)} picture{'s' * (len(rows) > 1)}, {total} bytes, {8 * total / area:.4f} bpp")
    for failure in failures:
        print(f"live: {failure}", file=sys.stderr)
    return 1 if failures else 0


def decompress(args: Namespace) -> int:
    """live decompress: a picture; a file of latents is unpacked to safetensors instead."""
    data = read_bytes(args.input)
    if _unpacked(args.input, data, args.max_pixels).latents:
        if args.output and args.output.suffix != LATENT_SUFFIX:
            raise OutputError(f"{args.input} holds latents, not a picture; give an output ending in {LATENT_SUFFIX}")
        return unpack_latents(args)
    output = args.output or args.input.with_suffix(".png")
    _check_picture_suffix(output)
    check_output(output, args.force)
    from . import api

    image = api.decompress(data, checkpoint=args.checkpoint, vae=args.vae, max_pixels=args.max_pixels)
    write_atomic(output, _encoded(image, output.suffix))
    print(f"{output}: {image.width} x {image.height}")
    return 0


def check_suffix(output: Path, suffix: str) -> None:
    """Refuse a name that would lie about its content, and with it the input's own."""
    if output.suffix.lower() != suffix:
        raise OutputError(f"{output} must end in {suffix}")


def _unpacked(path: Path, data: bytes, max_pixels: int) -> LiveFile:
    """``container.unpack`` whose refusals name the file."""
    from .container import unpack

    with naming(path):
        return unpack(data, max_pixels)


def _check_picture_suffix(output: Path) -> None:
    if output.suffix.lower() not in OUTPUT_FORMATS:
        raise OutputError(f"no picture format is known for {output.name}; use one of {', '.join(OUTPUT_FORMATS)}")


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

    data = read_bytes(args.input)
    file = _unpacked(args.input, data, sys.maxsize)
    with naming(args.input):
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
        figures = ", ".join(f"{key} {value}" for key, value in row["validation"].items())
        quality = " to ".join(map(str, sorted({row["quality"], row["highest_quality"]})))
        print(
            f"  {row['codec']:12} quality {quality}  on {row['autoencoder']}  {row['identity']}  validation: {figures}"
        )
    print("autoencoders (--vae)")
    for row in autoencoders:
        print(f"  {row['name']:20} {row['kind']:16} {row['source']}")
    return 0


def pack_latents(args: Namespace) -> int:
    """live latents pack: a tensor in a safetensors file -> .live."""
    require_file(args.input)
    output = args.output or args.input.with_suffix(FILE_SUFFIX)
    check_suffix(output, FILE_SUFFIX)
    check_output(output, args.force)
    from . import api

    tensor = _read_tensor(args.input, args.key)
    data = api.compress_latents(tensor, **_choice(args))
    write_atomic(output, data, _verification(args, args.input, data) if args.verify else None)
    before = tensor.numel() * tensor.element_size()
    print(f"{output}: {len(data)} bytes, {before / len(data):.1f} times smaller than the tensor")
    return 0


def _read_tensor(path: Path, key: str | None):
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            if key is None and len(names) != 1:
                some = f" ({', '.join(names[:5])}); choose one with live latents pack --key" if names else ""
                raise InputError(f"{path} holds {len(names)} tensors{some}")
            if key is not None and key not in names:
                raise InputError(f"{path} has no tensor {key!r}; it holds {', '.join(names[:5])}")
            return file.get_tensor(key or names[0])
    except (SafetensorError, OSError):
        raise InputError(f"{path} is not a readable safetensors file") from None


def unpack_latents(args: Namespace) -> int:
    """live latents unpack: .live -> safetensors with one tensor, ``latents`` (1, c, h, w) float32."""
    data = read_bytes(args.input)
    output = args.output or args.input.with_suffix(LATENT_SUFFIX)
    check_suffix(output, LATENT_SUFFIX)
    check_output(output, args.force)
    _unpacked(args.input, data, args.max_pixels)
    from safetensors.torch import save

    from . import api

    latents = api.decompress_latents(data, checkpoint=args.checkpoint, max_pixels=args.max_pixels)
    write_atomic(output, save({"latents": latents.contiguous()}))
    print(f"{output}: latents {tuple(latents.shape)} float32")
    return 0
