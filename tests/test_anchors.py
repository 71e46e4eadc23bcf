"""The peers: real files both ways, sizes kept, chroma and container bytes as their labels state."""

from __future__ import annotations

import io
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import Image, JpegImagePlugin

from live.errors import InputError, ModelError
from testing.anchors import ANCHORS, _ffmpeg
from testing.ours import Checkpoints, codec_of

OPTIONAL = ("jxl", "vvc", "vtm")
FULL_CHROMA = ("jpeg444", "heif", "avif", "jxl", "vtm")


@pytest.fixture(params=ANCHORS)
def anchor(request: pytest.FixtureRequest):
    if request.param in OPTIONAL:
        try:
            ANCHORS[request.param].encode(photo(16, 16), ANCHORS[request.param].settings[0])
        except ModelError as error:
            pytest.skip(str(error))
    return ANCHORS[request.param]


def error_of(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(a, int) - np.asarray(b, int))


@pytest.mark.parametrize("size", [(17, 33), (1, 1)])
def test_round_trip_keeps_odd_sizes(anchor, size):
    picture = photo(*size)
    decoded = anchor.decode(anchor.encode(picture, anchor.settings[-1]))
    assert decoded.size == size and decoded.mode == "RGB"
    assert error_of(decoded, picture).mean() < 12


def test_rate_rises_with_the_settings(anchor):
    picture = photo(64, 48)
    lowest, highest = (len(anchor.encode(picture, anchor.settings[end])) for end in (0, -1))
    assert lowest < highest


def test_chroma_is_what_the_label_says(anchor):
    """A red and blue edge inside a 2x2 block: only full chroma keeps it sharp."""
    picture = Image.new("RGB", (33, 17), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 15, 17))
    quality = {"jxl": 1, "vvc": 10, "vtm": 10}.get(anchor.name, 90)
    beside_the_edge = error_of(anchor.decode(anchor.encode(picture, quality)), picture)[:, 14:16]
    assert ("4:4:4" in anchor.label) == (anchor.name in FULL_CHROMA)
    assert (beside_the_edge.max() < 30) == (anchor.name in FULL_CHROMA)


@pytest.mark.parametrize(("name", "code"), [("jpeg", 2), ("jpeg444", 0)])
def test_jpeg_subsampling(name, code):
    data = ANCHORS[name].encode(photo(40, 24), 50)
    assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(data))) == code


@pytest.mark.parametrize("name", ["heif", "avif"])
def test_container_bytes_are_all_but_the_coded_picture(name):
    data, position, payload = ANCHORS[name].encode(photo(64, 48), 40), 0, 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        payload += (length - 8) * (kind == b"mdat")
        position += length
    assert len(data) - payload == pytest.approx(ANCHORS[name].container, abs=40)


def test_vvc_size_is_not_lost_to_padding():
    try:
        data = ANCHORS["vvc"].encode(photo(19, 33), 40)
    except ModelError as error:
        pytest.skip(str(error))
    assert data[0] == 1 << 4 | 1
    assert ANCHORS["vvc"].decode(data).size == (19, 33)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
@pytest.mark.parametrize("name", ["heif", "avif", "jxl", "vvc"])
def test_one_processor_makes_the_same_file_as_all(name):
    picture, anchor = photo(400, 300), ANCHORS[name]
    together, allowed = anchor.encode(picture, anchor.settings[1]), os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert anchor.encode(picture, anchor.settings[1]) == together
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ModelError, match="pillow-heif"):
        ANCHORS["heif"].encode(photo(8, 8), 40)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ModelError, match="imageio-ffmpeg"):
        _ffmpeg.__wrapped__("libjxl")


def test_a_missing_encoder_is_named():
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(ModelError, match="libnothing"):
        _ffmpeg("libnothing")


def test_ffmpeg_failures_are_refusals():
    try:
        _ffmpeg("libvvenc")
    except ModelError as error:
        pytest.skip(str(error))
    with pytest.raises(ModelError, match="ffmpeg with libvvenc failed"):
        ANCHORS["vvc"].decode(b"\0not a bitstream")


def test_unknown_codecs_are_refused():
    with pytest.raises(
        InputError, match="unknown codec nothing; choose from live_plus, live_plus_refined, live_paper, glc"
    ):
        codec_of("nothing")


def test_a_folder_of_checkpoints_is_a_codec(small_live: Path, tmp_path: Path):
    codec, picture = codec_of(str(small_live)), photo(40, 24)
    assert isinstance(codec, Checkpoints) and codec.settings == (1, 2)
    for quality in codec.settings:
        data = codec.encode(picture, quality)
        assert codec.decode(data).size == picture.size
        assert data == codec_of("live_plus").encode(picture, quality)
    with pytest.raises(InputError, match="no codec checkpoints"):
        _ = Checkpoints(tmp_path).settings


def test_a_folder_of_checkpoints_is_one_curve(small_live: Path, tmp_path: Path):
    """None of one setting is passed over for another, and two codecs are not mixed."""
    for name in ("one", "other"):
        shutil.copy(small_live / "live_plus_q1.safetensors", tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match=r"one\.safetensors and other\.safetensors are of one lambda"):
        _ = Checkpoints(tmp_path).settings
    (tmp_path / "other.safetensors").unlink()
    shutil.copy(Path(__file__).parent.parent / "checkpoints" / "live_paper_q2.safetensors", tmp_path)
    with pytest.raises(InputError, match="checkpoints of live_paper and live_plus"):
        _ = Checkpoints(tmp_path).settings


def test_a_folder_with_a_codec_of_several_rates_has_its_anchors_for_settings(glc_live: Path, tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "glc.safetensors").write_bytes((glc_live / "glc_compact.safetensors").read_bytes())
    codec, embedded, picture = codec_of(str(folder)), codec_of("glc"), photo(70, 64)
    assert codec.name == "mine" and codec.settings == tuple(embedded.settings)
    for quality in codec.settings:
        data = codec.encode(picture, quality)
        assert data == embedded.encode(picture, quality) and codec.decode(data).size == picture.size
    (folder / "other.safetensors").write_bytes((glc_live / "glc_compact.safetensors").read_bytes())
    with pytest.raises(InputError, match="give each a folder of its own"):
        _ = codec_of(str(folder)).settings
