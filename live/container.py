"""The file format: bytes <-> named fields and sections. Standard library only; knows nothing of networks.

Layout, version 1 (integers little endian; varint: LEB128, 7 bits a byte, low first)::

    3  magic "LIV"                 1  format version
    1  codec id, +128 for latents  8  model: first bytes of the codec checkpoint's identity
    4  autoencoder: first bytes of its identity
    1  quality (0: none)           varint width, varint height (px; of latents: positions)
    optional sections: 1 tag (1..255), varint length, bytes; unknown tags below 128 are skipped, from 128 on refused;
       known: 128, overlapping tiles
    1  tag 0: the entropy-coded stream follows, up to the two checks
    4  CRC-32 over the decoded symbols (int32 little endian, in coding order)
    4  CRC-32 over everything before it

Up to 16383 x 16383 the header and checks take at most 31 bytes, and overlapping tiles 6 more.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Container
from dataclasses import dataclass, field

from .errors import DamagedFile, InputError, NewerFormat, NotLiveFile

MAGIC = b"LIV"
VERSION, CLIP_VERSION = 1, 2
"""Of pictures and latents, and of clips (``live.video.container``)."""
LATENTS_FLAG = 0x80
STREAM_TAG = 0
MUST_KNOW = 0x80
TILES_TAG = 0x80
"""Section: the overlapping tiles of an autoencoder that looks at the whole picture (see ``live.tiles.Geometry``)."""
MAX_PIXELS = 178_956_970
"""Largest width x height accepted unless the caller raises it: Pillow's own limit."""
RATE_STEPS = 16
"""Of a codec that holds several rates the quality byte is 1 + this times the quality, which then is a fraction."""
CLIP_LEVELS = 63
"""Of a codec of clips that holds several rates the quality byte is 1 to 1 + this, from the lowest quality to the highest."""
LATENT_PIXELS = 64
"""Pixels that a latent position stands for in these limits, while its autoencoder is not known: at f = 8."""
LEAST_SIDE = 64
"""Pixels that a shorter side counts as in these limits: that much is coded anyway, of one row as well."""
MIN_BYTES = 3 + 1 + 1 + 8 + 4 + 1 + 1 + 1 + 1 + 8
MAX_PIXELS_PER_BYTE = 1 << 17
"""A file that claims more pixels than this for each of its bytes is not plausible; decoding it could take all memory."""


@dataclass(frozen=True)
class LiveFile:
    """Everything a file says. ``model`` 8 bytes, ``autoencoder`` 4 bytes, sizes in px (or latent positions)."""

    codec_id: int
    latents: bool
    model: bytes
    autoencoder: bytes
    quality: int
    width: int
    height: int
    stream: bytes
    symbols_crc: int
    sections: dict[int, bytes] = field(default_factory=dict)

    @property
    def overhead(self) -> int:
        """Bytes of the file that are not the entropy-coded stream."""
        return len(pack(self)) - len(self.stream)


def pack(file: LiveFile) -> bytes:
    """The bytes of a file."""
    head = struct.pack("<3sBB8s4sB", MAGIC, VERSION, file.codec_id | LATENTS_FLAG * file.latents, file.model,
                       file.autoencoder, file.quality)  # fmt: skip
    body = bytearray(head + varint(file.width) + varint(file.height))
    body += pack_sections(file.sections) + file.stream + struct.pack("<I", file.symbols_crc)
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def pack_sections(sections: dict[int, bytes]) -> bytes:
    """Optional sections in the order of their tags, and tag 0."""
    packed = b"".join(bytes([tag]) + varint(len(data)) + data for tag, data in sorted(sections.items()))
    return packed + bytes([STREAM_TAG])


def unpack(data: bytes, max_pixels: int = MAX_PIXELS) -> LiveFile:
    """Parse and check a file: NotLiveFile, NewerFormat or DamagedFile, each in words. Nothing is allocated by claims."""
    if data[:3] != MAGIC:
        raise NotLiveFile("not a LIVE file (it does not begin with LIV)")
    if len(data) > 3 and data[3] == CLIP_VERSION:
        raise InputError("the file holds a clip, not a picture; use live.decompress_clip or: live decompress")
    check_version(data[3:4])
    if len(data) < MIN_BYTES:
        raise DamagedFile("the file is damaged: it is truncated")
    body, (crc,) = data[:-4], struct.unpack("<I", data[-4:])
    if zlib.crc32(body) != crc:
        raise DamagedFile("the file is damaged: its checksum does not hold")
    if data[3] != VERSION:
        raise DamagedFile(f"the file is damaged: there is no format version {data[3]}")
    _, _, codec, model, autoencoder, quality = struct.unpack_from("<3sBB8s4sB", body)
    reader = Reader(body[:-4], 18)
    width, height = reader.varint(), reader.varint()
    check_size(width, height, LATENT_PIXELS if codec & LATENTS_FLAG else 1, len(data), max_pixels)
    sections = reader.sections()
    check_sections(sections, (TILES_TAG,))
    return LiveFile(codec & ~LATENTS_FLAG, bool(codec & LATENTS_FLAG), model, autoencoder, quality, width, height,
                    reader.rest(), struct.unpack("<I", body[-4:])[0], sections)  # fmt: skip


def check_version(version: bytes) -> None:
    """NewerFormat when a file's fourth byte (or none) is a version that this release does not read."""
    if version and version[0] > CLIP_VERSION:
        raise NewerFormat(
            f"the file has format version {version[0]}; this release reads up to {CLIP_VERSION}: update live"
        )


def check_sections(sections: dict[int, bytes], known: Container[int]) -> None:
    """NewerFormat when a section must be known and is not."""
    for tag in sections:
        if tag >= MUST_KNOW and tag not in known:
            raise NewerFormat(f"the file has a section {tag} that this release does not know: update live")


def rate_bytes(steps: int) -> range:
    """The quality bytes of a codec that holds several rates, ``steps`` of them between the lowest and the highest."""
    return range(1, 2 + steps)


def check_quality(byte: int, known: Container[int]) -> None:
    """DamagedFile unless a file's quality byte is one of those that its codec has."""
    if byte not in known:
        raise DamagedFile("the file is damaged: its codec does not have the quality that it states")


def check_size(width: int, height: int, share: int, length: int, max_pixels: int) -> None:
    """DamagedFile for a size over the limit or more than ``length`` bytes hold. share: pixels a claimed position stands for."""
    if not width or not height:
        raise DamagedFile("the file is damaged: it claims an empty picture")
    if width * height * share > max_pixels:
        over = f"over the limit of {max_pixels} pixels, which --max-pixels raises; not decoded"
        raise DamagedFile(f"the file claims {width} x {height}, {over}")
    least = LEAST_SIDE // math.isqrt(share)
    coded = max(width, least) * max(height, least) * share
    if coded > min(length * MAX_PIXELS_PER_BYTE, max(max_pixels, MAX_PIXELS)):
        raise DamagedFile(f"the file is damaged: {length} bytes cannot hold {width} x {height}")


class Reader:
    """Exact-length reads; running out raises DamagedFile."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise DamagedFile("the file is damaged: a section is longer than the file")
        self.position += count
        return self.data[self.position - count : self.position]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise DamagedFile("the file is damaged: a number is too long")

    def sections(self) -> dict[int, bytes]:
        """The optional sections by their tags, up to and with tag 0."""
        sections: dict[int, bytes] = {}
        while (tag := self.byte()) != STREAM_TAG:
            sections[tag] = self.take(self.varint())
        return sections

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.position)


def varint(value: int) -> bytes:
    """LEB128: 7 bits a byte, low first, the high bit set on all bytes but the last."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])
