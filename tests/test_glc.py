"""GLC: pictures through real files at every rate, real bits against the estimate, the quality's byte, hostile numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import SMALL_GLC, photo
from PIL import Image
from test_cli import refused

import live
from live.__main__ import main
from live.api import LARGEST_LATENT
from live.checkpoints import load_codec
from live.codecs import glc, make_codec
from live.codecs.glc import Glc, Transform
from live.coder import Count, Read, Write
from live.container import pack, unpack
from live.errors import ConfigError, DamagedFile, DecodeMismatch, InputError
from live.latents import load_autoencoder
from live.media import to_tensor
from live.metrics.distortion import psnr
from live.priors.fourpart import PASSES, put_quarter, quarter, quarter_mask
from testing import attacks
from testing.mutations import rechecked

SIZES = [(1, 1), (17, 33), (70, 50)]


@pytest.fixture
def codec(glc_live) -> Glc:
    return load_codec(glc_live / "glc_compact.safetensors")


def latents_of(size: int = 256, seed: int = 9) -> torch.Tensor:
    return load_autoencoder("glc-compact").encode(to_tensor(photo(size, size, seed)))


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_through_a_file(glc_live, tmp_path, size):
    photo(*size).save(tmp_path / "a.png")
    assert main(["compress", str(tmp_path / "a.png"), "--codec", "glc", "-q", "1.5", "--verify"]) == 0
    data = (tmp_path / "a.live").read_bytes()
    assert data == live.compress(photo(*size), 1.5, codec="glc")
    assert unpack(data).overhead <= 32
    assert main(["decompress", str(tmp_path / "a.live"), "-o", str(tmp_path / "again.png")]) == 0
    with Image.open(tmp_path / "again.png") as decoded:
        assert decoded.size == size
        if min(size) > 16:  # else half of the little that there is lies at the border
            assert psnr(to_tensor(decoded), to_tensor(photo(*size))) > 20


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (13, 22)])
def test_decoder_sees_what_the_encoder_saw(codec, size):
    x, at = torch.randn(1, 8, *size), codec.at(0.7)
    write = Write()
    encoded = at.reconstruct(at.encode(write, x))
    read = Read(write.stream(), at.symbol_count(*at.padded(*size)))
    assert torch.equal(at.decode(read, *size), encoded[:, :, : size[0], : size[1]])
    assert read.crc == write.crc


def test_count_is_what_is_written(codec):
    for x in (latents_of(), torch.randn(1, 8, 16, 16)):
        write, count = Write(), Count()
        codec.encode(write, x)
        codec.encode(count, x)
        # rANS ends with 8 bytes of state, of which 32 to 64 bits are no information.
        assert 0 < 8 * len(write.stream()) - count.bits < 0.005 * count.bits + 64
        assert count.crc == write.crc


@pytest.mark.parametrize("rate", [0, 1, 2])
def test_real_bits_are_the_trained_estimate(codec, rate):
    x, count = latents_of(512), Count()
    at = codec.at(rate)
    decoded = at.reconstruct(at.encode(count, x))
    estimate = at.estimate(x)
    estimated = (estimate.y_bits + estimate.z_bits).item()
    assert abs(count.bits - estimated) < 0.01 * estimated
    assert (decoded - estimate.latents).abs().mean() < 0.02 * x.std()


def test_the_bits_of_z_are_its_tables(codec):
    x = latents_of(512)
    z = codec.prior.h_a(codec.g_a(x, 0))
    if codec.prior.categorical is None:
        symbols, indices = torch.round(z), np.repeat(np.arange(8), z[0, 0].numel())
    else:
        symbols, indices = codec.prior.categorical.indices(z), np.zeros(z[0, 0].numel(), int)
    bits = codec.tables["z"].bits(symbols.flatten().int().numpy(), indices)
    assert codec.estimate(x).z_bits.item() == pytest.approx(bits, rel=0.02)


def test_every_quality_is_its_byte_and_rates_rise(codec):
    picture, sizes = photo(256, 192), []
    for byte, quality in ((1, 0), (9, 0.5), (17, 1), (18, 1.05), (33, 2.0), (49, 3)):
        data = live.compress(picture, quality, codec="glc")
        assert unpack(data).quality == byte
        assert codec.at(quality).rate == (byte - 1) / 16
        sizes.append(len(data))
    assert sizes == sorted(sizes) and sizes[-1] > 1.2 * sizes[0]
    assert live.compress(picture, codec="glc") == live.compress(picture, 1.5, codec="glc"), "the middle one by default"


def test_a_rate_between_anchors_is_their_geometric_mean():
    torch.manual_seed(0)
    transform, x = Transform(replace(SMALL_GLC, transform_blocks=0)), torch.randn(1, 8, 2, 2)
    transform.log_gain.data.copy_(torch.randn(4, 8))
    low, middle, high = (transform(x, rate) for rate in (1, 1.5, 2))
    assert torch.allclose(middle**2, low * high, rtol=1e-4) and torch.equal(
        low, x * transform.log_gain[1].exp()[:, None, None]
    )
    assert torch.allclose(transform(x, 3), x * transform.log_gain[3].exp()[:, None, None])


@pytest.mark.parametrize("quality", [-0.1, 3.01, float("nan"), float("inf"), "2", True, 99])
def test_unknown_qualities_are_refused(glc_live, quality):
    with pytest.raises(InputError, match=r"unknown quality .* of glc; choose from 0 to 3, fractions too"):
        live.compress(photo(8, 8), quality, codec="glc")


def test_a_quality_that_the_codec_lacks_is_damage(glc_live, tmp_path, capsys):
    data = live.compress(photo(40, 30), 0, codec="glc")
    for byte in (0, 50, 255):
        forged = pack(replace(unpack(data), quality=byte))
        with pytest.raises(DamagedFile, match="quality"):
            live.decompress(forged)
        (tmp_path / "a.live").write_bytes(forged)
        said = refused(capsys, "info", tmp_path / "a.live")
        assert "a.live: the file is damaged: its codec does not have the quality" in said


def test_numbers_that_no_entry_has_are_harmless(glc_live, codec, monkeypatch):
    """By escape a stream can state any number. Under right checksums such a file decodes to some picture, else it is named."""
    code, numbers = Write.code, np.array([-5, 16, 16384, -16384], np.int32)

    def forged(self, symbols, indices, tables):
        return code(self, symbols if tables is codec.tables["y"] else np.resize(numbers, len(symbols)), indices, tables)

    with monkeypatch.context() as patch:
        patch.setattr(Write, "code", forged)
        hostile = live.compress(photo(70, 130), 1, codec="glc")
    file = unpack(hostile)
    symbols = np.frombuffer(attacks.symbols_of(file)[0], np.int32)
    assert symbols[:4].tolist() == numbers.tolist()
    assert live.decompress(hostile).size == (70, 130)
    with pytest.raises(DecodeMismatch):
        live.decompress(pack(replace(file, symbols_crc=1)))


def test_altered_streams_under_a_right_checksum_are_noticed(glc_live):
    """Or change nothing: of the coder's last state some bits say nothing."""
    data, refused = live.compress(photo(40, 30), 1, codec="glc"), 0
    picture = live.decompress(data).tobytes()
    for position in range(21, len(data) - 8):
        altered = bytearray(data)
        altered[position] ^= 0x55
        try:
            assert live.decompress(rechecked(bytes(altered))).tobytes() == picture
        except (DamagedFile, DecodeMismatch):
            refused += 1
    assert refused > 0.8 * (len(data) - 29)


@pytest.mark.parametrize("codec_name", ["glc", "live_plus"])
def test_the_largest_file_within_a_target_rate(glc_live, codec_name):
    picture = photo(128, 96)
    if codec_name == "glc":
        sizes = [len(live.compress(picture, quality, codec="glc")) for quality in (0, 1.5, 3)]
    else:
        sizes = [len(live.compress(picture, quality)) for quality in (1, 2)]
    for wanted in (sizes[0], sizes[len(sizes) // 2], sizes[-1], 10 * sizes[-1]):
        data = live.compress(picture, codec=codec_name, target_bpp=8 * wanted / (128 * 96))
        assert len(data) <= wanted and len(data) >= 0.97 * min(wanted, sizes[-1])
        assert live.decompress(data).size == picture.size
    with pytest.raises(InputError, match=f"takes {sizes[0]} bytes, more than the {sizes[0] - 1} of the target"):
        live.compress(picture, codec=codec_name, target_bpp=8 * (sizes[0] - 0.5) / (128 * 96))


def test_the_target_of_a_checkpoint(glc_live):
    checkpoint = glc_live / "live_plus_q2.safetensors"
    data = live.compress(photo(40, 30), quality=2)
    assert live.compress(photo(40, 30), checkpoint=checkpoint, target_bpp=50) == data
    own = glc_live / "glc_compact.safetensors"
    assert live.compress(photo(40, 30), checkpoint=own, target_bpp=50) == live.compress(photo(40, 30), 3, codec="glc")


def test_refusals_of_the_command(glc_live, tmp_path, capsys):
    source, latents = tmp_path / "a.png", tmp_path / "z.safetensors"
    photo(40, 30).save(source)
    latents.write_bytes(b"")
    compress = ("compress", source, "--codec")
    assert "unknown quality 3.5 of glc" in refused(capsys, *compress, "glc", "-q", "3.5")
    assert "unknown quality nan of glc" in refused(capsys, *compress, "glc", "-q", "nan")
    assert "invalid number value" in refused(capsys, *compress, "glc", "-q", "high")
    assert "unknown quality 1.5; choose from 1, 2" in refused(capsys, *compress, "live_plus", "-q", "1.5")
    assert "not allowed with" in refused(capsys, *compress, "glc", "-q", "1", "--target-bpp", "1")
    for rate in ("0", "-1", "nan"):
        assert "above 0" in refused(capsys, *compress, "glc", "--target-bpp", rate)
        assert "above 0" in refused(capsys, "compress", tmp_path, "--codec", "glc", "--target-bpp", rate)
    assert "more than the 0 of the target rate" in refused(capsys, *compress, "glc", "--target-bpp", "0.001")
    assert "no vtm checkpoints" in refused(capsys, *compress, "vtm")
    own = glc_live / "glc_compact.safetensors"
    assert "a codec's name or a checkpoint" in refused(capsys, *compress, "glc", "--checkpoint", own)
    assert "choose a quality" in refused(capsys, "compress", latents, "--codec", "glc", "--target-bpp", "1")
    assert sorted(tmp_path.iterdir()) == [source, latents]


def test_info_and_models_name_the_rates(glc_live, tmp_path, capsys):
    photo(40, 30).save(tmp_path / "a.png")
    assert main(["compress", str(tmp_path / "a.png"), "--codec", "glc", "-q", "0.5"]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a.live"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["codec"], facts["quality"], facts["autoencoder_name"]) == ("glc", 0.5, "glc-compact")
    assert main(["models"]) == 0
    assert "glc          quality 0 to 3   on glc-compact  " in capsys.readouterr().out


def test_latents_alone(glc_live):
    x = latents_of(96)[:, :, :5]
    data = live.compress_latents(x, 2, codec="glc")
    assert live.decompress_latents(data).shape == x.shape
    assert live.decompress_latents(live.compress(photo(70, 50), 2, codec="glc")).shape == (1, 8, 4, 5)


@pytest.mark.parametrize("size", [(36, 8), (33, 70)])
def test_symbols_by_tiles_are_the_same_symbols(codec, size, monkeypatch):
    x = torch.randn(1, 8, *size, generator=torch.Generator().manual_seed(3))
    write = Write()
    encoded = codec.reconstruct(codec.encode(write, x))
    stream = write.stream()
    first, later = codec._exact
    monkeypatch.setattr(glc, "TILE", 8)
    for tiled, core in [(first, 4), *((each, 8) for each in later)]:
        monkeypatch.setattr(tiled, "core", core)
    again = Write()
    by_tiles = codec.reconstruct(codec.encode(again, x))
    assert (again.stream(), again.crc) == (stream, write.crc)
    assert (by_tiles - encoded).abs().max() <= 1e-5 * encoded.abs().max()
    read = Read(stream, codec.symbol_count(*codec.padded(*size)))
    codec.decode(read, *size)
    assert read.crc == write.crc


def test_four_passes_code_every_position_once():
    values = torch.arange(2 * 8 * 4 * 6).reshape(2, 8, 4, 6)
    rebuilt, times = torch.full_like(values, -1), torch.zeros(1, 8, 4, 6, dtype=torch.int64)
    for number in range(PASSES):
        mask = quarter_mask(8, 4, 6, number)
        times += mask
        assert (mask.unflatten(1, (4, 2)).sum(1) == 1).all(), "one quarter of the channels at every position"
        put_quarter(rebuilt, number, quarter(values, number))
        assert torch.equal(rebuilt[mask.expand_as(values)], values[mask.expand_as(values)])
    assert (times == 1).all() and torch.equal(rebuilt, values)


def test_later_passes_see_what_was_decoded(codec):
    """Else the context would be none: other symbols in the first pass move the predictions of the second."""
    first, later = codec._exact
    reduced = first(torch.zeros(1, 1 if codec.prior.categorical else 8, 2, 2, dtype=torch.int64)).chunk(4, 1)[3]
    u_hat = torch.zeros(1, 8, 8, 8, dtype=torch.int32)
    predictions = []
    for value in (0, 3 * 64):
        put_quarter(u_hat, 0, torch.full((1, 8, 4, 4), value, dtype=torch.int32))
        predictions.append(later[0](torch.cat([u_hat, reduced], 1)))
    assert not torch.equal(*predictions)


@pytest.mark.parametrize(
    "sizes",
    [
        {"channels": 6},
        {"channels": 0},
        {"codebook": -1},
        {"codebook": 16385},
        {"rates": 0},
        {"rates": 17},
        {"blocks": 0},
    ],
)
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ConfigError, match=f"^{next(iter(sizes))} must be"):
        make_codec("glc", sizes)


def test_latents_out_of_all_bounds_are_refused_both_ways(glc_live, codec, monkeypatch):
    """The transforms multiply what they are given; their products are bounded, and what is beyond a limit no autoencoder sees."""
    with pytest.raises(InputError, match="far outside"):
        live.compress_latents(torch.full((8, 8, 8), 1e12), 1, codec="glc")
    code = Write.code

    def forged(self, symbols, indices, tables):
        return code(self, np.full(len(symbols), 1 << 14) if tables is codec.tables["y"] else symbols, indices, tables)

    with monkeypatch.context() as patch:
        patch.setattr(Write, "code", forged)
        hostile = live.compress(photo(70, 50), 0, codec="glc")
    assert live.decompress_latents(hostile).abs().max() < LARGEST_LATENT
    monkeypatch.setattr("live.api.LARGEST_LATENT", 100.0)
    with pytest.raises(DamagedFile, match="out of all bounds"):
        live.decompress(hostile)
