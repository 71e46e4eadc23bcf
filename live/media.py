"""Pictures in and out: whatever a file holds becomes 8-bit RGB or a refusal, and decoded values are rounded to 8 bits.

The colours of an embedded profile (RGB, grey, CMYK) become sRGB's, which is what a file without one means.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor

from .container import LEAST_SIDE, MAX_PIXELS
from .errors import InputError, first_line
from .files import read_bytes

COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0)}
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
PROFILED_MODES = {"RGB": ("RGB", "RGBA", "P", "PA"), "GRAY": ("L",), "CMYK": ("CMYK",)}
"""By what an embedded profile is of: pictures that it is made use of for."""
PRIMARY_FORMATS = ("MPO", "HEIF")
"""Formats that name one picture the primary one (cameras add previews): theirs is taken, others' frames are refused."""
MOVING_FORMATS = ("GIF", "PNG", "WEBP")
_OPENING = threading.Lock()
_CLIP = re.compile(rb"....ftyp|\x1aE\xdf\xa3|YUV4MPEG2 |RIFF....AVI ", re.DOTALL)
"""How files of clips begin: MP4 and its like, Matroska, y4m, AVI."""
WRONG_VALUES = "a picture's values must be uint8, or floating point in [0, 1]; convert them first"


def read_picture(
    source: str | Path | bytes | Image.Image, alpha: str | None = None, max_pixels: int | None = None
) -> Image.Image:
    """A picture as PIL RGB, 8 bit, upright (EXIF orientation applied), detached from its file.

    source: path, the bytes of a picture file, or a PIL image of any mode. 16-bit grey is scaled by 1/257, rounded.
    alpha: "white", "black" or "#rrggbb", the colour to flatten transparency over; without it a picture with pixels that
    are not opaque is refused. max_pixels: larger pictures are refused (default: ``MAX_PIXELS``). InputError: missing,
    empty, damaged, no picture, several frames, over the limit, floating point, no RGB equivalent.
    """
    background = None if alpha is None else parse_colour(alpha)
    if isinstance(source, Image.Image):
        image, label = source, "the picture"
    else:
        image, label = _open(source)
    _check_size(image, label, max_pixels)
    if not image.width or not image.height:
        raise InputError(f"{label} has no pixels")
    if image.mode == "I" and image.format == "TIFF":  # 16-bit grey is I;16 there
        raise InputError(f"{label} has 32-bit pixels, whose range is not known; save it with 8 or 16 bits")
    if type(image) is Image.Image and image.mode == "RGB" and not image.info:
        return image  # as this function gives them
    try:
        frames = 1 if image.format in PRIMARY_FORMATS else getattr(image, "n_frames", 1)
        if frames == 1:
            # In place where the picture is ours: each copy of a large one counts.
            image = ImageOps.exif_transpose(image, in_place=image is not source) or image
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise anything on damaged data
        raise InputError(f"{label} is damaged or truncated ({first_line(error)})") from None
    if frames != 1:
        clip = "; or compress it by itself, as a clip" if image.format in MOVING_FORMATS else ""
        raise InputError(f"{label} holds {frames} frames or pages; save the one you want as a picture of its own{clip}")
    if image.info.get("icc_profile"):
        image = _in_srgb(image)
    rgb = _to_rgb(image, background, label)
    rgb.info = {}  # no metadata that a later save would carry along
    return rgb


def parse_colour(text: str) -> tuple[int, int, int]:
    """A colour, "white", "black" or "#rrggbb", as (red, green, blue), 0 to 255; InputError otherwise."""
    known = isinstance(text, str)
    if known and text in COLOURS:
        return COLOURS[text]
    if not known or not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise InputError(f"unknown colour {text!r} for --alpha; use white, black or #rrggbb")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def to_tensor(image: Image.Image) -> Tensor:
    """PIL RGB -> (1, 3, H, W) float32 in [0, 1]."""
    pixels = np.array(image if image.mode == "RGB" else read_picture(image))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div_(255).contiguous()


def to_image(pictures: Tensor) -> Image.Image:
    """(1, 3, H, W) or (3, H, W) in [0, 1] -> PIL RGB: clamped, times 255, rounded (halves to even). The only rounding.

    Raises InputError for another shape, or NaN.
    """
    shape = tuple(pictures.shape)
    picture = pictures[0] if len(shape) == 4 and shape[0] == 1 else pictures
    if picture.dim() != 3 or picture.shape[0] != 3 or not picture.numel():
        raise InputError(f"a tensor of shape {shape} is not a picture; expected (3, H, W) or (1, 3, H, W)")
    values = picture.detach().cpu().float()
    if values.isnan().any():
        raise InputError("the picture holds NaN; check what made it")
    eight_bit = values.clamp(0, 1).mul(255).round().to(torch.uint8)
    return Image.fromarray(eight_bit.permute(1, 2, 0).contiguous().numpy())


def as_picture(picture: Any, alpha: str | None = None, max_pixels: int | None = None) -> Image.Image:
    """Anything that is one picture -> PIL RGB, 8 bit.

    picture: path, file bytes or PIL image (see ``read_picture``, also for the others); numpy array (H, W, 3) or (H, W);
    torch tensor (3, H, W) or (1, 3, H, W). Arrays and tensors are uint8, or floating point in [0, 1].
    Raises InputError for any other type, shape or range.
    """
    if isinstance(picture, (str, Path, bytes, Image.Image)):
        return read_picture(picture, alpha, max_pixels)
    if isinstance(picture, np.ndarray):
        image = to_image(_from_array(picture))
    elif isinstance(picture, Tensor):
        image = to_image(_unit_range(picture.detach().cpu()))
    else:
        raise InputError(
            f"{type(picture).__name__} is not a picture; give a path, PIL image, numpy array or torch tensor"
        )
    _check_size(image, "the picture", max_pixels)
    return image


def _check_size(image: Image.Image, label: str, max_pixels: int | None) -> None:
    """InputError for more pixels than the limit, or than what decodes a file takes, where a short side counts as more."""
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    shape, over = f"{image.width} x {image.height}", image.width * image.height > limit
    if not over:
        limit, shape = max(limit, MAX_PIXELS), f"{shape} (a side counts as {LEAST_SIDE} at least)"
        over = max(image.width, LEAST_SIDE) * max(image.height, LEAST_SIDE) > limit
    if over:
        raise InputError(f"{label} is {shape}, over the limit of {limit} pixels; raise it with --max-pixels")


def _from_array(array: np.ndarray) -> Tensor:
    grey = array.ndim == 2
    if not grey and (array.ndim != 3 or array.shape[2] != 3):
        raise InputError(f"an array of shape {array.shape} is not a picture; expected (H, W, 3) or (H, W)")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(WRONG_VALUES)
    native = np.array(array, np.uint8 if array.dtype == np.uint8 else np.float32, order="C")
    values = _unit_range(torch.from_numpy(native))
    return values.expand(3, *array.shape) if grey else values.permute(2, 0, 1)


def _unit_range(values: Tensor) -> Tensor:
    """Values as float32 in [0, 1]; InputError when they are neither uint8 nor floating point within it."""
    if values.dtype == torch.uint8:
        return values.float() / 255
    if not values.is_floating_point():
        raise InputError(WRONG_VALUES)
    values = values.float()
    if values.numel() and not (values.min() >= 0 and values.max() <= 1):  # NaN fails this too
        raise InputError("a floating-point picture must lie in [0, 1]; rescale or clamp it first")
    return values


@lru_cache
def _register_heif() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


@contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Pillow refuses large pictures by a limit of the whole process; ours, which the caller may raise, takes its place."""
    with _OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open(source: str | Path | bytes) -> tuple[Image.Image, str]:
    """The opened picture, not yet decoded, and how messages call it."""
    label = "the picture" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_bytes(Path(source))
    if not data:
        raise InputError(f"{label} is empty (0 bytes)")
    heif = _register_heif()
    try:
        with without_pillows_limit():
            image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        if data[:3] == b"LIV":
            raise InputError(f"{label} is a LIVE file already; use live decompress") from None
        hint = "; for HEIC install pillow-heif" if not heif and data[4:8] == b"ftyp" else ""
        if _CLIP.match(data):
            hint += "; if it is a clip, give it as a file with a suffix such as .mp4"
        raise InputError(f"{label} is not a picture that can be read{hint}") from None
    except Exception as error:  # Pillow's readers raise anything on damaged data
        raise InputError(f"{label} is damaged or truncated ({first_line(error)})") from None
    if image.format == "EPS":  # Pillow would have Ghostscript run it
        raise InputError(f"{label} is a PostScript program, not a picture; convert it to one first")
    return image, label


def _in_srgb(image: Image.Image) -> Image.Image:
    """A picture in the colours of its embedded profile -> in sRGB, which is what a file without one means; RGB or RGBA."""
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        space = given.profile.xcolor_space.strip()
        transparent = image.mode in ALPHA_MODES or "transparency" in image.info
        if image.mode not in PROFILED_MODES.get(space, ()) or "sRGB" in ImageCms.getProfileDescription(given):
            return image
        if transparent and space != "RGB":  # a value of grey that stands for nothing would be another one then
            return image
        output = "RGBA" if transparent else "RGB"
        image = image.convert(output) if space == "RGB" else image
        return ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode=output)
    except (ImageCms.PyCMSError, OSError):  # a profile that cannot be read says nothing
        return image


def _to_rgb(image: Image.Image, background: tuple[int, int, int] | None, label: str) -> Image.Image:
    if image.mode == "F":
        raise InputError(f"{label} has floating-point pixels, whose range is not known; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _from_wide_grey(image, label)
    try:
        if image.mode not in ALPHA_MODES and "transparency" not in image.info:
            return image.convert("RGB")
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    except ValueError:
        raise InputError(f"{label} has pixels of mode {image.mode}; convert it to RGB first") from None
    if image.getextrema()[3][0] < 255:
        if background is None:
            raise InputError(
                f"{label} has transparent pixels; flatten them, as live compress --alpha does over white, black or #rrggbb"
            )
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return image.convert("RGB")


def _from_wide_grey(image: Image.Image, label: str) -> Image.Image:
    """16-bit grey (modes I;16 and I) as L, or LA where a colour key makes pixels transparent."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{label} has 32-bit pixels, whose range is not known; save it with 8 or 16 bits")
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in image.info:
        opaque = (values != image.info["transparency"]).astype(np.uint8) * 255
        grey.putalpha(Image.fromarray(opaque))
    return grey
