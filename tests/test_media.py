"""Pictures in and out: every mode and format becomes 8-bit RGB or a refusal in one sentence."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image, ImageCms

from live import media
from live.errors import InputError
from live.media import as_picture, parse_colour, read_picture, to_image, to_tensor


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(source: object, words: str, alpha: str | None = None) -> None:
    with pytest.raises(InputError, match=words) as refusal:
        as_picture(source, alpha)
    assert "\n" not in str(refusal.value)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = photo(37, 23)
    assert np.array_equal(pixels(read_picture(saved(picture, kind, **options))), np.asarray(picture))


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "HEIF", "GIF", "JPEG2000"])
def test_lossy_formats_are_read(kind):
    picture = photo(64, 48)
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    result = pixels(read_picture(saved(picture, kind, **({"quality": 95} if kind == "HEIF" else {}))))
    assert result.shape == (48, 64, 3)
    assert np.abs(result.astype(int) - np.asarray(picture)).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_modes_follow_pillow(mode):
    picture = photo(16, 16).convert(mode)
    assert np.array_equal(pixels(read_picture(picture)), np.asarray(picture.convert("RGB")))


def test_result_is_detached_and_one_pixel_is_enough(tmp_path):
    path = tmp_path / "dot.png"
    Image.new("RGB", (1, 1), (1, 2, 3)).save(path, dpi=(72, 72))
    picture = read_picture(path)
    path.unlink()
    assert (picture.size, picture.getpixel((0, 0)), picture.info) == ((1, 1), (1, 2, 3), {})
    assert torch.equal(to_tensor(picture) * 255, torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = (250, 0, 0)
    upright[8:, 16:] = (0, 0, 250)
    # How a camera stores the upright picture for each orientation.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = read_picture(saved(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif))
    assert np.array_equal(pixels(result), upright)
    assert not result.getexif()


def test_sixteen_bit_grey_is_scaled_and_rounded():
    values = np.array([[0, 128, 129, 257, 385, 386, 32896, 65407, 65535]], np.uint16)
    expected = np.round(values / 257.0).astype(np.uint8)
    for data in (
        saved(Image.fromarray(values), "PNG"),
        saved(Image.fromarray(values), "TIFF"),
        b"P5 9 1 65535\n" + values.astype(">u2").tobytes(),
    ):
        assert np.array_equal(pixels(read_picture(data))[..., 1], expected)
    assert np.array_equal(pixels(read_picture(Image.fromarray(values.astype(np.int32))))[..., 0], expected)
    refused(Image.fromarray(np.array([[0, 70000]], np.int32)), "32-bit pixels")
    refused(saved(Image.fromarray(np.full((3, 3), 200, np.int32)), "TIFF"), "32-bit pixels")
    refused(saved(Image.new("F", (3, 3)), "TIFF"), "floating-point pixels")


def transparent(mode: str) -> Image.Image | bytes:
    """A 2 x 1 picture: red or grey 200 at the left, nothing at the right."""
    rgba = Image.fromarray(np.array([[(200, 0, 0, 255), (9, 9, 9, 0)]], np.uint8), "RGBA")
    if mode == "P bytes":
        palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
        palette.putpalette([200, 0, 0, 9, 9, 9])
        return saved(palette, "PNG", transparency=b"\xff\x00")
    if mode == "RGB key":
        return saved(rgba.convert("RGB"), "PNG", transparency=(9, 9, 9))
    if mode == "L key":
        return saved(Image.fromarray(np.array([[200, 9]], np.uint8)), "PNG", transparency=9)
    if mode == "I;16 key":
        return saved(Image.fromarray(np.array([[200 * 257, 9]], np.uint16)), "PNG", transparency=9)
    if mode == "PA":
        palette = Image.new("PA", (2, 1))
        palette.putpalette([200, 0, 0, 9, 9, 9])
        palette.putpixel((0, 0), (0, 255))
        palette.putpixel((1, 0), (1, 0))
        return palette
    grey = Image.fromarray(np.array([[(200, 255), (9, 0)]], np.uint8), "LA")
    return {"RGBA": rgba, "LA": grey, "La": grey.convert("La"), "RGBa": rgba.convert("RGBa")}[mode]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa", "P bytes", "RGB key", "L key", "I;16 key"])
def test_transparency_needs_a_colour(mode):
    picture = transparent(mode)
    refused(picture, "transparent pixels.*--alpha does over white, black or #rrggbb")
    left = (200, 200, 200) if mode[0] in "LI" else (200, 0, 0)
    for alpha, right in (("white", (255, 255, 255)), ("black", (0, 0, 0)), ("#10fF80", (16, 255, 128))):
        assert pixels(as_picture(picture, alpha)).tolist() == [[list(left), list(right)]]


def test_half_transparency_blends_and_opaque_alpha_is_dropped():
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert np.abs(pixels(read_picture(half, "white"))[0, 0].astype(int) - (255, 127, 127)).max() <= 1
    opaque = photo(8, 8)
    opaque.putalpha(255)
    assert np.array_equal(pixels(read_picture(opaque)), np.asarray(photo(8, 8)))
    opaque = saved(Image.new("L", (2, 2), 7), "PNG", transparency=9)
    assert pixels(read_picture(opaque)).tolist() == [[[7] * 3] * 2] * 2


@pytest.mark.parametrize("text", ["red", "#fff", "#12345g", "", "White", "#1234567", (255, 255, 255), ["white"]])
def test_other_colours_are_refused(text):
    with pytest.raises(InputError, match="use white, black or #rrggbb"):
        parse_colour(text)
    refused(photo(4, 4), "use white, black or #rrggbb", text)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_several_frames_are_refused(kind):
    data = saved(photo(16, 16), kind, save_all=True, append_images=[photo(16, 16, 1), photo(16, 16, 2)])
    refused(data, "holds 3 frames or pages")


def test_cameras_previews_are_no_frames():
    data = saved(photo(16, 16), "MPO", save_all=True, append_images=[photo(8, 8, 1)])
    assert read_picture(data).size == (16, 16)


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    refused(tmp_path / "missing.png", "does not exist")
    refused(str(tmp_path), "is a folder")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", r"is empty \(0 bytes\)")
    (tmp_path / "text.png").write_text("hello there, this is no picture")
    refused(tmp_path / "text.png", "text.png is not a picture that can be read$")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    media._register_heif.cache_clear()
    refused(b"\0\0\0\x18ftypnone" + bytes(32), "for HEIC install pillow-heif")
    media._register_heif.cache_clear()


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged, under another name."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_an_embedded_profile_is_converted_to_srgb():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    read = {
        name: read_picture(saved(red, "PNG", icc_profile=profile)).getpixel((4, 4))
        for name, profile in {"swapped": swapped_profile(), "sRGB": own, "no profile at all": b"nonsense"}.items()
    }
    assert read["sRGB"] == read["no profile at all"] == (255, 0, 0)
    assert np.abs(np.subtract(read["swapped"], (0, 255, 0))).max() <= 2


def made_profile(space: bytes, connection: bytes, **tags: bytes) -> bytes:
    """The smallest ICC profile, version 2, that has these tags."""
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name.encode(), start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"prtr", space, connection)
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50
    return (head + bytes(12) + b"acsp" + bytes(28) + white).ljust(128, b"\0") + table + body


def test_embedded_profiles_of_grey_and_of_inks():
    white = struct.pack(">4sIiii", b"XYZ ", 0, 63190, 65536, 54061)
    gamma1 = struct.pack(">4sII", b"curv", 0, 0)
    grey = made_profile(b"GRAY", b"XYZ ", wtpt=white, kTRC=gamma1)
    shown = read_picture(saved(Image.new("L", (8, 8), 128), "PNG", icc_profile=grey)).getpixel((4, 4))
    assert np.abs(np.subtract(shown, 188)).max() <= 1  # half of the light is 188 in sRGB
    # Every ink takes a quarter of the lightness, L* of 100, that is in the paper.
    lightness = [255 * (4 - bin(corner).count("1")) // 4 for corner in range(16)]
    ramp = bytes(range(256))
    cube = b"".join(bytes([light, 128, 128]) for light in lightness)
    table = struct.pack(">4sIBBBx9i", b"mft1", 0, 4, 3, 2, *[65536 * (place % 4 == 0) for place in range(9)])
    inks = made_profile(b"CMYK", b"Lab ", wtpt=white, A2B0=table + 4 * ramp + cube + 3 * ramp)
    black = Image.new("CMYK", (8, 8), (0, 0, 0, 255))
    assert read_picture(saved(black, "TIFF")).getpixel((4, 4)) == (0, 0, 0)
    shown = read_picture(saved(black, "TIFF", icc_profile=inks)).getpixel((4, 4))
    assert np.abs(np.subtract(shown, 185)).max() <= 2  # L* of 75 in sRGB
    # A profile of something else than the picture says nothing.
    assert read_picture(saved(photo(8, 8), "PNG", icc_profile=inks)).getpixel((4, 4)) == photo(8, 8).getpixel((4, 4))


def test_the_colour_under_transparency_is_in_srgb_whatever_the_picture_is_in():
    halves = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    halves.paste((255, 0, 0, 255), (4, 0, 8, 8))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    for image in (halves, palette):
        data = saved(image, "PNG", icc_profile=swapped_profile())
        shown = read_picture(data, "#ff0000")
        assert np.abs(np.subtract(shown.getpixel((6, 4)), (0, 255, 0))).max() <= 2
        assert image.mode == "P" or shown.getpixel((1, 4)) == (255, 0, 0)


def test_programs_are_not_run(monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    refused(saved(photo(16, 16), "EPS"), "PostScript program, not a picture")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_damage_is_said_in_one_sentence(kind):
    data = saved(photo(64, 64), kind)
    refused(data[: len(data) // 2], "damaged or truncated|not a picture")
    garbled = bytearray(data)
    garbled[len(data) // 3 : len(data) // 3 + 40] = b"\xff\x00" * 20
    try:  # not every format notices, but none may fail in another way
        read_picture(bytes(garbled))
    except InputError as refusal:
        assert "\n" not in str(refusal)


def test_huge_claims_are_refused_before_decoding(monkeypatch):
    header = b"P6 60000 60000 255\n" + bytes(100)
    refused(header, "over the limit of 178956970 pixels")
    monkeypatch.setattr(media, "MAX_PIXELS", 100)
    refused(photo(20, 20), "the picture is 20 x 20, over the limit of 100 pixels")
    refused(saved(photo(20, 20), "PNG"), "over the limit of 100 pixels")


@pytest.mark.filterwarnings("error")
def test_large_pictures_raise_no_pillow_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert read_picture(saved(photo(20, 20), "PNG")).size == (20, 20)


def test_arrays_and_tensors():
    picture = photo(20, 12)
    array = np.array(picture)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    readonly = array.copy()
    readonly.setflags(write=False)
    for same in (
        array, readonly, array[:, ::-1].copy()[:, ::-1], array.astype(np.float32) / 255, array / 255,
        (array / 255).astype(">f8"), tensor, tensor[None], tensor.float() / 255, tensor.double() / 255, saved(picture, "PNG"),
    ):  # fmt: skip
        assert np.array_equal(pixels(as_picture(same)), array)
    assert np.array_equal(pixels(as_picture(array[..., 0]))[..., 2], array[..., 0])
    assert np.abs(pixels(as_picture((array / 255).astype(np.float16))).astype(int) - array).max() <= 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\).*\(H, W, 3\)"),
        (np.zeros((3, 4, 4), np.uint8), r"shape \(3, 4, 4\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "not a picture"),
        (np.zeros((4, 4), np.uint16), "must be uint8, or floating point"),
        (np.zeros((4, 4), bool), "must be uint8, or floating point"),
        (np.full((4, 4), 255.0), r"must lie in \[0, 1\]"),
        (np.full((4, 4, 3), np.nan), r"must lie in \[0, 1\]"),
        (torch.full((3, 4, 4), -0.1), r"must lie in \[0, 1\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "must be uint8, or floating point"),
        (torch.zeros(4, 4, 3), r"shape \(4, 4, 3\).*\(3, H, W\)"),
        (torch.zeros(2, 3, 4, 4), r"shape \(2, 3, 4, 4\)"),
        (torch.zeros(3, 0, 4), r"shape \(3, 0, 4\)"),
        ([[1, 2], [3, 4]], "list is not a picture"),
        (None, "NoneType is not a picture"),
    ],
)
def test_other_values_are_refused(value, words):
    refused(value, words)


def test_rounding_to_eight_bits():
    steps = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 254.4 / 255, 254.6 / 255, 1.0, 7.0])
    image = to_image(steps.expand(3, 1, 8))
    assert pixels(image)[0, :, 0].tolist() == [0, 0, 0, 1, 254, 255, 255, 255]
    every = torch.arange(256).float().div(255).reshape(1, 1, 1, 256).expand(1, 3, 1, 256)
    assert torch.equal(to_tensor(to_image(every)), every)
    with pytest.raises(InputError, match="NaN"):
        to_image(torch.full((3, 2, 2), float("nan")))
    with pytest.raises(InputError, match="shape"):
        to_image(torch.zeros(1, 4, 4))


def test_to_tensor_takes_any_mode():
    assert to_tensor(Image.new("L", (3, 2), 51)).shape == (1, 3, 2, 3)
    assert to_tensor(Image.new("L", (3, 2), 51)).max() == pytest.approx(0.2)


def test_path_types_agree(tmp_path):
    photo(9, 9).save(tmp_path / "a.png")
    assert np.array_equal(pixels(as_picture(str(tmp_path / "a.png"))), pixels(as_picture(Path(tmp_path / "a.png"))))
