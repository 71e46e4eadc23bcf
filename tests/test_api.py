"""The library's front door: any picture, any size, bytes and back; latents; damaged and foreign files."""

import io
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import photo
from PIL import Image

import live
from live import container
from live.artefact import read_artefact, write_artefact
from live.checkpoints import conventions_of
from live.errors import DamagedFile, DecodeMismatch, InputError, ModelError, NotLiveFile, UnknownModel
from live.latents import load_autoencoder
from live.latents.base import identity_of
from live.pictures import decode_picture, encode_picture

pytestmark = pytest.mark.usefixtures("small_live")


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64), (511, 77)])
def test_any_size_comes_back(size):
    data = live.compress(photo(*size), quality=1)
    decoded = live.decompress(data)
    assert decoded.size == size and decoded.mode == "RGB"


def test_decoding_needs_the_file_alone_and_repeats(tmp_path):
    data = live.compress(photo(70, 50), quality=2)
    (tmp_path / "a.live").write_bytes(data)
    process = [sys.executable, "-m", "live", "decompress", str(tmp_path / "a.live")]
    subprocess.run(process, check=True, cwd=Path(__file__).parent.parent)
    with Image.open(tmp_path / "a.png") as decoded:
        assert decoded.tobytes() == live.decompress(data).tobytes()
    assert live.compress(photo(70, 50), quality=2) == data


@pytest.mark.parametrize("picture", [np.zeros((20, 20, 3), np.uint8), torch.zeros(3, 20, 20), photo(20, 20)])
def test_the_limit_holds_for_whatever_is_a_picture(picture):
    with pytest.raises(InputError, match="over the limit of 399 pixels"):
        live.compress(picture, 1, max_pixels=399)
    assert live.compress(picture, 1, max_pixels=400)


def test_what_would_not_be_decoded_is_not_made():
    """A line counts as 64 of them, of which a decoder would refuse so many."""
    line = Image.new("RGB", (container.MAX_PIXELS // 64 + 1, 1))
    with pytest.raises(InputError, match="a side counts as 64 at least"):
        live.compress(line, 1)


def test_quality_buys_fidelity():
    picture = photo(96, 96)
    errors, sizes = [], []
    for quality in live.qualities():
        data = live.compress(picture, quality=quality)
        difference = np.asarray(live.decompress(data), float) - np.asarray(picture, float)
        errors.append((difference**2).mean())
        sizes.append(len(data))
    assert sizes[0] < sizes[1] and errors[0] > errors[1]


def test_file_is_the_counted_bits_and_the_header():
    picture = photo(256, 192)
    data = live.compress(picture, quality=2)
    overhead = container.unpack(data).overhead
    assert overhead <= 32
    assert abs(8 * (len(data) - overhead) - live.estimate_bits(picture, quality=2)) < 0.01 * 8 * len(data) + 64


def test_arrays_and_tensors_are_pictures():
    array = np.asarray(photo(40, 24))
    expected = live.compress(photo(40, 24), quality=1)
    assert live.compress(array, quality=1) == expected
    assert live.compress(array.astype(np.float32) / 255, quality=1) == expected
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    assert live.compress(tensor, quality=1) == expected
    assert live.compress(tensor.float()[None] / 255, quality=1) == expected


def test_latents_round_trip_without_pixels():
    latents = torch.randn(1, 4, 13, 22)
    data = live.compress_latents(latents, quality=2)
    decoded = live.decompress_latents(data)
    assert decoded.shape == latents.shape and decoded.dtype == torch.float32
    assert (decoded - latents).abs().mean() < latents.abs().mean()
    assert live.compress_latents(latents[0].half().float(), quality=2)
    with pytest.raises(InputError, match="holds latents"):
        live.decompress(data)


def test_latents_of_a_picture_file_are_those_its_decoder_uses():
    data = live.compress(photo(50, 30), quality=2)
    latents = live.decompress_latents(data)
    assert latents.shape == (1, 4, 4, 7)
    shown = decode_picture(load_autoencoder("compact"), latents, (50, 30), None)
    assert shown.tobytes() == live.decompress(data).tobytes()


@pytest.mark.parametrize(
    "latents", [torch.zeros(2, 4, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros(8, 8), torch.zeros(1, 4, 0, 8)]
)
def test_latents_of_another_shape_are_refused(latents):
    with pytest.raises(InputError, match="latents have shape"):
        live.compress_latents(latents, quality=1)


def test_latents_with_nan_are_refused():
    with pytest.raises(InputError, match="NaN"):
        live.compress_latents(torch.full((4, 8, 8), float("nan")), quality=1)


@pytest.mark.parametrize("quality", [9, "1", [1], True])
def test_unknown_quality_names_the_known(quality):
    with pytest.raises(InputError, match=re.escape(f"unknown quality {quality!r}; choose from 1, 2")):
        live.compress(photo(8, 8), quality=quality)


def test_every_bit_flip_and_truncation_is_an_error():
    data = live.compress(photo(20, 20), quality=1)
    for bit in range(0, 8 * len(data), 3):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(live.LiveError):
            live.decompress(bytes(flipped))
    for length in range(len(data)):
        with pytest.raises((NotLiveFile, DamagedFile)):
            live.decompress(data[:length])


def test_altered_stream_with_a_right_checksum_is_noticed():
    data = bytearray(live.compress(photo(64, 64), quality=2))
    refused = 0
    for position in range(25, len(data) - 8, 7):
        altered = bytearray(data)
        altered[position] ^= 0x55
        altered[-4:] = struct.pack("<I", zlib.crc32(altered[:-4]))
        with pytest.raises((DecodeMismatch, DamagedFile)):
            live.decompress(bytes(altered))
        refused += 1
    assert refused > 5


def test_file_of_an_unknown_model_says_how_to_get_it(small_live, tmp_path):
    data = live.compress(photo(16, 16), quality=1)
    other = small_live / "live_plus_q2.safetensors"
    with pytest.raises(UnknownModel, match="is another one"):
        live.decompress(data, checkpoint=other)
    file = container.unpack(data)
    foreign = container.pack(container.LiveFile(**{**vars(file), "model": b"\1" * 8}))
    with pytest.raises(UnknownModel, match="--checkpoint"):
        live.decompress(foreign)
    foreign = container.pack(container.LiveFile(**{**vars(file), "autoencoder": b"\1" * 4}))
    with pytest.raises(UnknownModel, match="--vae"):
        live.decompress(foreign)


def test_another_autoencoder_than_the_codecs_is_refused(small_live, tmp_path):

    from live.artefact import read_artefact, write_artefact
    from live.latents.base import identity_of
    from live.latents.compact import CONVENTION

    tensors, card = read_artefact(small_live / "compact.safetensors", "autoencoder")
    tensors["decoder.patch.bias"] += 1
    path = tmp_path / "other.safetensors"
    write_artefact(path, tensors, card | {"identity": identity_of(tensors, CONVENTION)})
    with pytest.raises(ModelError, match="choose a checkpoint trained on it"):
        live.compress(photo(16, 16), quality=1, vae=str(path))


def test_autoencode_is_what_latents_that_nothing_was_lost_of_decode_to():
    picture = photo(45, 37)
    autoencoder = load_autoencoder("compact")
    shown = decode_picture(autoencoder, encode_picture(autoencoder, picture)[0], picture.size, None)
    assert live.autoencode(picture).tobytes() == shown.tobytes() != picture.tobytes()


def test_compress_reads_encoded_pictures(tmp_path):
    buffer = io.BytesIO()
    photo(30, 20).save(buffer, "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(buffer.getvalue())
    assert live.compress(path, quality=1) == live.compress(Image.open(buffer), quality=1)


@pytest.mark.parametrize("data", ["a.live", Path("a.live"), 3, None])
def test_what_are_no_bytes_is_refused_in_words(data):
    with pytest.raises(live.LiveError, match="give the bytes"):
        live.decompress(data)


@pytest.mark.parametrize("latents", [[[1.0]], None, "x", torch.zeros(4, 4, 4, dtype=torch.int64)])
def test_what_is_no_latent_tensor_is_refused_in_words(latents):
    with pytest.raises(live.LiveError, match="floating-point torch tensor"):
        live.compress_latents(latents, 1)


def test_latents_out_of_all_bounds_are_refused():
    with pytest.raises(live.LiveError, match="far outside"):
        live.compress_latents(torch.full((4, 8, 8), 1e7), 1)


@pytest.mark.parametrize("change", [{"latent_scale": 3.0}, {"factor": 16}, {"quality": 9}])
def test_a_card_that_would_decode_otherwise_is_noticed(small_live, tmp_path, change):
    tensors, card = read_artefact(small_live / "live_plus_q1.safetensors", "codec")
    write_artefact(tmp_path / "other.safetensors", tensors, card | change)
    with pytest.raises(live.LiveError, match="does not have the hash"):
        live.compress(photo(24, 16), checkpoint=tmp_path / "other.safetensors")


def test_tables_of_too_few_rows_are_refused(small_live, tmp_path):
    """The range coder trusts its row numbers."""
    tensors, card = read_artefact(small_live / "live_plus_q1.safetensors", "codec")
    for name in ("cdfs", "sizes", "offsets"):
        tensors[f"tables.y.{name}"] = tensors[f"tables.y.{name}"][:1]
    card["identity"] = identity_of(tensors, conventions_of(card))
    write_artefact(tmp_path / "short.safetensors", tensors, card)
    with pytest.raises(live.LiveError, match="1 rows instead of 64"):
        live.compress(photo(24, 16), checkpoint=tmp_path / "short.safetensors")
