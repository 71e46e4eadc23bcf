"""The file format: fields survive, damage is named, nothing is believed before it is checked."""

import struct
import zlib
from dataclasses import replace

import pytest

from live.container import MAX_PIXELS, LiveFile, pack, unpack
from live.errors import DamagedFile, NewerFormat, NotLiveFile

FILE = LiveFile(
    codec_id=2, latents=False, model=bytes(range(8)), autoencoder=b"abcd", quality=3, width=768, height=512,
    stream=bytes(range(200)) * 5, symbols_crc=0xDEADBEEF,
)  # fmt: skip

GOLDEN = bytes.fromhex("4c4956010200010203040506076162636403800680040068656c6c6f04030201")


def rechecked(data: bytes) -> bytes:
    """The bytes with a CRC that holds again: reaches the layers behind it."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (768, 512), (16383, 8191)])
@pytest.mark.parametrize("latents", [False, True])
def test_fields_survive(size, latents):
    if latents:  # positions: each stands for 8 x 8 pixels
        size = tuple(-(-side // 8) for side in size)
    file = replace(FILE, width=size[0], height=size[1], latents=latents, sections={7: b"note"})
    assert unpack(pack(file)) == file


def test_header_and_checks_fit_32_bytes():
    assert FILE.overhead == 31
    assert replace(FILE, width=16383, height=10000).overhead <= 32


def test_bytes_are_pinned():
    file = replace(FILE, stream=b"hello", symbols_crc=0x01020304)
    assert pack(file) == GOLDEN + struct.pack("<I", zlib.crc32(GOLDEN))


def test_every_truncation_is_named():
    data = pack(replace(FILE, stream=b"x" * 40))
    for length in range(len(data)):
        with pytest.raises((NotLiveFile, DamagedFile)):
            unpack(data[:length])


def test_every_bit_flip_is_named():
    data = pack(replace(FILE, stream=b"x" * 40))
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises((NotLiveFile, DamagedFile, NewerFormat)):
            unpack(bytes(flipped))


def test_newer_format_is_said():
    data = bytearray(pack(FILE))
    data[3] = 9
    with pytest.raises(NewerFormat, match="version 9"):
        unpack(bytes(data))


def test_unknown_optional_section_is_kept_and_a_mandatory_one_refused():
    assert unpack(pack(replace(FILE, sections={99: b"later"}))).stream == FILE.stream
    with pytest.raises(NewerFormat, match="section 200"):
        unpack(pack(replace(FILE, sections={200: b"later"})))


def test_claimed_sizes_are_refused():
    with pytest.raises(DamagedFile, match="60000 x 60000"):
        unpack(pack(replace(FILE, width=60000, height=60000, stream=b"x" * 20)))
    with pytest.raises(DamagedFile, match="cannot hold"):
        unpack(pack(replace(FILE, width=13000, height=13000, stream=b"x" * 20)))
    with pytest.raises(DamagedFile, match="empty"):
        unpack(pack(replace(FILE, width=0)))
    large = replace(FILE, width=20000, height=20000, stream=b"x" * 10000)
    assert unpack(pack(large), max_pixels=MAX_PIXELS * 4).width == 20000


def test_section_longer_than_the_file():
    data = bytearray(pack(replace(FILE, sections={7: b"note"})))
    data[data.index(b"\x07\x04note") + 1] = 0x7F
    with pytest.raises(DamagedFile, match="section"):
        unpack(rechecked(bytes(data[:60])))
