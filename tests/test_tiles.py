"""Any size: what is computed by tiles is what is computed whole, to the last bit, and memory stays bounded."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_PLUS, perturb, photo
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image

import live
from live import coder, pictures
from live.checkpoints import export_codec
from live.codecs import halves
from live.codecs.paper import LivePaper, PaperConfig
from live.codecs.plus import LivePlus
from live.coder import Count, Read, Write
from live.container import TILES_TAG, pack, unpack
from live.errors import DamagedFile
from live.latents import load_autoencoder
from live.latents.base import Statistics
from live.latents.compact_net import CompactConfig, CompactNet
from live.media import to_tensor
from live.tiles import ALIGN, Box, Geometry, Tiled, blended, boxes, halo_of
from scripts.sample_photos import shipped

WIDE = CompactConfig(8, (8, 8, 8), (1, 3, 2), (8, 8, 8), (2, 4, 3))
"""The shape of a compact with a branch at H/16, narrow."""


def networks() -> dict[str, tuple]:
    """(network, channels, inputs, outputs) of every bounded network of the project, with weights that all matter."""
    torch.manual_seed(0)
    wide, plain, codec = (
        CompactNet(WIDE),
        CompactNet(CompactConfig(4, (8, 8), (1, 3), (8, 8), (2, 4))),
        LivePlus(SMALL_PLUS),
    )
    paper = LivePaper(PaperConfig(channels=4, n=6, m=8))
    widths = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    taesd = AutoencoderTiny(**widths, num_encoder_blocks=(1, 1, 2, 1), num_decoder_blocks=(1, 2, 1, 1))
    for net in (wide, plain, codec, paper, taesd):
        net.eval().requires_grad_(False)
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return {
        "wide encoder": (wide.encoder, 3, 8, 1), "wide decoder": (wide.decoder, 8, 1, 8),
        "encoder": (plain.encoder, 3, 8, 1), "decoder": (plain.decoder, 4, 1, 8),
        "taesd encoder": (lambda x: taesd.encode(x).latents, 3, 8, 1),
        "taesd decoder": (lambda x: taesd.decode(x).sample, 4, 1, 8),
        "g_a": (codec.analyse, 4, 1, 1), "h_a": (codec.hyper.h_a, 4, 4, 1),
        "h_s": (codec.hyper.features, 4, 1, 4), "g_s": (codec.synthesise, 4, 1, 1),
        "paper g_a": (paper.g_a, 4, 8, 4), "paper h_s": (paper.h_s, 6, 1, 4), "paper g_s": (paper.g_s, 8, 4, 8),
    }  # fmt: skip


NETWORKS = networks()


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_the_halo_is_the_field_of_view(name):
    """What lies beyond the halo changes nothing at all, and without the halo's outer cells something changes."""
    network, channels, inputs, outputs = NETWORKS[name]
    halo = halo_of(network, channels, inputs, outputs)
    side, middle = 2 * halo + 4 * ALIGN, halo + 2 * ALIGN
    random = torch.Generator().manual_seed(1)

    def changed(kept: int) -> bool:
        """Whether the middle ALIGN x ALIGN cells see anything that is more than ``kept`` cells away from them."""
        before = torch.rand(1, channels, side * inputs, side * inputs, generator=random)
        after = 100 * torch.rand(before.shape, generator=random)
        core = Box(middle, middle + ALIGN, middle, middle + ALIGN)
        near = core.grown(kept, side, side)
        near.of(after, inputs).copy_(near.of(before, inputs))
        return not torch.equal(core.of(network(before), outputs), core.of(network(after), outputs))

    assert not changed(halo)
    assert changed(halo - ALIGN)


def test_a_field_of_view_without_bound_is_found():
    norm = torch.nn.GroupNorm(2, 4)
    assert halo_of(norm, 4, 1, 1) is None
    assert halo_of(torch.nn.Conv2d(1, 1, 71, padding=35), 1, 1, 1) == 36


@pytest.mark.parametrize("rows, columns", [(1, 1), (8, 8), (9, 8), (17, 31), (64, 5)])
def test_boxes_cover_every_cell_once(rows, columns):
    covered, tiles = torch.zeros(rows, columns), list(boxes(rows, columns, 8))
    for box in tiles:
        box.of(covered).add_(1)
        assert box.top % ALIGN == box.left % ALIGN == 0 and max(box.bottom - box.top, box.right - box.left) <= 8
    assert (covered == 1).all()
    assert len(tiles) == -(-rows // 8) * -(-columns // 8)


def in_small_tiles(autoencoder, core: int):
    """A copy whose pictures go by tiles of core x core cells."""
    small = copy.copy(autoencoder)
    for name in ("tiled_encode", "tiled_decode"):
        tiled = copy.copy(getattr(autoencoder, name))
        tiled.core = core
        setattr(small, name, tiled)
    return small


def autoencoders(folder: Path) -> dict[str, object]:
    torch.manual_seed(0)
    widths = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(**widths, num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1)).save_pretrained(folder)
    return {"compact": load_autoencoder("compact"), "taesd": load_autoencoder(str(folder))}


@pytest.mark.parametrize("name", ["compact", "taesd"])
def test_real_photos_by_tiles_are_the_same_pictures(name, tmp_path, monkeypatch):
    """8-bit pixels to the last bit, odd sizes too."""
    whole = autoencoders(tmp_path)[name]
    for photo_name, size, core in (("chelsea", (321, 203), 16), ("coffee", (151, 210), 12)):
        image = Image.fromarray(shipped()[photo_name]).crop((0, 0, *size))
        latents, _ = pictures.encode_picture(whole, image)
        expected = pictures.decode_picture(whole, latents, size, None)
        with monkeypatch.context() as patch:
            patch.setattr(pictures, "WHOLE", 100)
            small = in_small_tiles(whole, core)
            tiled_latents, geometry = pictures.encode_picture(small, image)
            found = pictures.decode_picture(small, latents, size, None)
        assert geometry is None
        assert (tiled_latents - latents).abs().max() <= 1e-5 * latents.abs().max()
        assert found.tobytes() == expected.tobytes()


@pytest.mark.usefixtures("small_live")
@pytest.mark.parametrize("size", [(128, 128), (129, 128), (128, 130), (515, 331)])
def test_files_by_tiles_are_the_same_files(size, monkeypatch):
    """At the limit, just above it, and far above: bytes and pictures of tiles of 128 px are those of one pass."""
    whole, image = load_autoencoder("compact"), photo(*size)
    data = live.compress(image, 2, vae=whole)
    expected = live.decompress(data, vae=whole)
    monkeypatch.setattr(pictures, "WHOLE", 0)
    monkeypatch.setattr(coder, "CHUNK", 1000)
    monkeypatch.setattr(halves, "EXACT_TILE", 16)
    small = in_small_tiles(whole, 16)
    assert live.compress(image, 2, vae=small) == data
    assert live.decompress(data, vae=small).tobytes() == expected.tobytes()


@pytest.fixture(params=["plus", "paper"])
def codec(request, tmp_path):
    torch.manual_seed(0)
    if request.param == "plus":
        codec = LivePlus(SMALL_PLUS, Statistics(torch.zeros(4), torch.ones(4)), 0.3)
    else:
        codec = LivePaper(PaperConfig(channels=4, n=6, m=8))
        codec.g_a[0].weight.data.mul_(20)
    perturb(codec, 0)
    return export_codec(
        codec, tmp_path / "codec.safetensors", {"quality": 1, "autoencoder": None, "autoencoder_name": None}
    )


def tile_codec(codec, monkeypatch, core: int) -> None:
    """Let every network of a codec go by tiles of core x core cells."""
    if isinstance(codec, LivePaper):
        tiled = list(codec._tiled.values())
    else:
        tiled = [codec.tiled_analyse, codec._tiled_h_a, codec._tiled_synthesise]
        monkeypatch.setattr(halves, "EXACT_TILE", 4 * core)
    for each in tiled:
        each.core = core


@pytest.mark.parametrize("size", [(64, 64), (65, 63), (131, 77)])
def test_symbols_by_tiles_are_the_same_symbols(codec, size, monkeypatch):
    x = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(3))
    write = Write()
    encoded = codec.reconstruct(codec.encode(write, x))[:, :, : size[0], : size[1]]
    stream = write.stream()
    tile_codec(codec, monkeypatch, 8)
    monkeypatch.setattr(coder, "CHUNK", 777)
    tiled_write = Write()
    codec.encode(tiled_write, x)
    assert (tiled_write.stream(), tiled_write.crc) == (stream, write.crc)
    read = Read(stream, codec.symbol_count(*codec.padded(*size)))
    decoded = codec.decode(read, *size)
    assert read.crc == write.crc
    assert (decoded - encoded).abs().max() <= 1e-5 * encoded.abs().max()


def test_counted_bits_do_not_depend_on_chunks(codec, monkeypatch):
    x = torch.randn(1, 4, 40, 48, generator=torch.Generator().manual_seed(3))
    bits = []
    for chunk in (1 << 18, 100):
        monkeypatch.setattr(coder, "CHUNK", chunk)
        count = Count()
        codec.encode(count, x)
        bits.append(count.bits)
    assert bits[0] == pytest.approx(bits[1], rel=1e-9)


@pytest.mark.parametrize("rows, columns", [(5, 7), (16, 16), (17, 40), (61, 33)])
def test_blended_tiles_add_up(rows, columns):
    """Of a network that gives back what it is given, blending makes the same again."""
    x = torch.rand(1, 3, 2 * rows, 2 * columns)
    out, ends = torch.zeros_like(x), []

    def write(box: Box, band: torch.Tensor) -> None:
        box.of(out, 2).copy_(band)
        ends.append((box.top, box.bottom))

    blended(Tiled(lambda part: part, 3, 2, 2, 8), Geometry(16, 4), rows, columns, lambda box: box.of(x, 2), write)
    assert (out - x).abs().max() < 1e-6
    assert ends[0][0] == 0 and ends[-1][1] == rows
    assert all(before[1] == after[0] for before, after in pairwise(ends))


@pytest.fixture
def unbounded(tmp_path):
    """An autoencoder that looks at the whole picture and a codec on it: (autoencoder, checkpoint)."""
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (16, 16, 32, 32),
    }  # fmt: skip
    AutoencoderKL(**blocks, latent_channels=4, norm_num_groups=8).save_pretrained(tmp_path / "kl")
    autoencoder = load_autoencoder(str(tmp_path / "kl"))
    codec = LivePlus(SMALL_PLUS, Statistics(torch.zeros(4), torch.ones(4)), 0.1)
    card = {"quality": 1, "autoencoder": autoencoder.identity, "autoencoder_name": str(tmp_path / "kl"), "factor": 8}
    export_codec(codec, tmp_path / "codec.safetensors", card)
    return autoencoder, tmp_path / "codec.safetensors"


def test_an_unbounded_autoencoder_tiles_above_a_limit_and_the_file_says_how(unbounded, monkeypatch):
    autoencoder, checkpoint = unbounded
    assert autoencoder.tiled_encode.halo is None and autoencoder.tiled_decode.halo is None
    image = photo(300, 203)
    options = {"checkpoint": checkpoint, "vae": autoencoder}
    assert TILES_TAG not in unpack(live.compress(image, **options)).sections
    monkeypatch.setattr(pictures, "WHOLE", 500)
    monkeypatch.setattr(pictures, "UNBOUNDED", Geometry(16, 4))
    data = live.compress(image, **options)
    assert Geometry.unpack(unpack(data).sections[TILES_TAG]) == (16, 4)
    decoded = live.decompress(data, **options)
    monkeypatch.undo()  # a decoder follows the file, not its own limits
    assert live.decompress(data, **options).tobytes() == decoded.tobytes()
    assert decoded.size == image.size
    without = pack(replace(unpack(data), sections={}))
    with monkeypatch.context() as patch, pytest.raises(DamagedFile, match="lacks the tiles"):
        patch.setattr(pictures, "WHOLE", 500)
        live.decompress(without, **options)
    latents = live.decompress_latents(data, checkpoint=checkpoint)
    whole = pictures.decode_picture(autoencoder, latents, image.size, None)
    likeness = np.corrcoef(np.asarray(whole).ravel(), np.asarray(decoded).ravel())[0, 1]
    assert likeness > 0.8, "tiles blend into about the picture that one pass makes"
    assert whole.tobytes() != decoded.tobytes()


@pytest.mark.parametrize("data", [b"", b"\x40\0\x10", b"\x01\0\0\0", b"\x40\0\x21\0", b"\xff\xff\x10\0", b"\x40\0\0\0"])
def test_impossible_tiles_are_damage(data):
    with pytest.raises(DamagedFile, match="impossible tiles"):
        Geometry.unpack(data)


def test_geometry_survives():
    assert Geometry.unpack(Geometry(64, 16).pack()) == (64, 16)


@pytest.mark.usefixtures("small_live")
def test_the_limit_can_be_raised(monkeypatch, tmp_path):
    """Ours and Pillow's, both ways, by argument and by flag; refused in words otherwise."""
    from live.__main__ import main

    path, out = tmp_path / "photo.png", tmp_path / "photo.live"
    photo(40, 30).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = live.compress(path, 1, max_pixels=1200)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert live.decompress(data, max_pixels=1200).size == (40, 30)
    with pytest.raises(live.LiveError, match="over the limit of 1199 pixels; raise it with --max-pixels"):
        live.compress(path, 1, max_pixels=1199)
    assert main(["compress", str(path), "-o", str(out), "-q", "1", "--max-pixels", "1199"]) == 2 and not out.exists()
    assert main(["compress", str(path), "-o", str(out), "-q", "1", "--max-pixels", "1200"]) == 0
    assert out.read_bytes() == data


def test_reading_a_large_picture_leaves_no_copy(tmp_path):
    """A picture as ``read_picture`` gives them passes through as it is; any other is a new one without its metadata."""
    from live.media import read_picture

    photo(20, 10).save(tmp_path / "a.png", dpi=(300, 300))
    picture = read_picture(tmp_path / "a.png")
    assert read_picture(picture) is picture and picture.info == {}
    given = Image.open(tmp_path / "a.png")
    assert read_picture(given) is not given and given.info
    assert torch.equal(to_tensor(read_picture(given)), to_tensor(photo(20, 10)))


@pytest.mark.slow
def test_memory_does_not_grow_as_the_picture_does(tmp_path):
    """Whole processes at 4 and at 16 megapixels: 4 times the picture takes few times its own pixels more."""
    from testing.sizes import SIZES, measure

    files = []
    for name, array in shipped().items():
        files.append(tmp_path / f"{name}.png")
        Image.fromarray(array).save(files[-1])
    small, large = (measure(files, SIZES[size], None, tmp_path) for size in (4, 16))
    pixels = large["width"] * large["height"] - small["width"] * small["height"]
    for verb in ("compress", "decompress"):
        assert large[f"{verb}_mib"] < 2.5 * 1024
        grown = (large[f"{verb}_mib"] - small[f"{verb}_mib"]) * 2**20 / pixels
        assert grown < 40, f"{verb} takes {grown:.0f} bytes a pixel more"
