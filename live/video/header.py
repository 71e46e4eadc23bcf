"""What a clip's file says before its frames: bytes <-> fields. Standard library only."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from fractions import Fraction

from ..container import CLIP_VERSION, MAGIC, TILES_TAG, Reader, check_sections, check_version, pack_sections, varint
from ..errors import DamagedFile, InputError, NewerFormat, NotLiveFile
from .properties import MATRICES, Colour, Properties

ASPECT_TAG = 1
"""Section: width over height of a pixel, two varints; without it 1."""
LATENTS_TAG = 0x81
"""Section, empty: the frames are latents, and width and height count their positions. It must be known: to a release that does not
know it the file is one of a later release, not a damaged one, nor one of small pictures."""
HOLDS_LATENTS = (
    "the file holds a clip of latents, not of pictures; use live.decompress_clip_latents or: live latents unpack"
)
MAX_NUMBER = (1 << 31) - 1
"""Of a frame rate's and an aspect's parts, and of the intra period."""


@dataclass(frozen=True)
class ClipHeader:
    """What a clip's file says before its frames. ``model`` 8 bytes, ``autoencoder`` 4; intra frames are at most
    ``intra_period`` frames apart. latents: frames are these, not pictures, and ``properties`` has their positions for pixels."""

    codec_id: int
    model: bytes
    autoencoder: bytes
    quality: int
    properties: Properties
    intra_period: int = 1
    sections: dict[int, bytes] = field(default_factory=dict)
    latents: bool = False

    def pack(self) -> bytes:
        """The header's bytes, its CRC-32 with them."""
        clip = self.properties
        head = struct.pack("<3sBB8s4sB", MAGIC, CLIP_VERSION, self.codec_id, self.model, self.autoencoder, self.quality)
        numbers = (clip.width, clip.height, clip.rate.numerator, clip.rate.denominator, self.intra_period)
        colour = (clip.colour.matrix, clip.colour.primaries, clip.colour.transfer, clip.colour.full_range)
        aspect = varint(clip.aspect.numerator) + varint(clip.aspect.denominator)
        sections = self.sections | ({} if clip.aspect == 1 else {ASPECT_TAG: aspect})
        sections |= {LATENTS_TAG: b""} if self.latents else {}
        body = head + b"".join(map(varint, numbers)) + bytes(colour) + pack_sections(sections)
        return body + struct.pack("<I", zlib.crc32(body))


def unpack_header(data: bytes) -> tuple[ClipHeader, int, int]:
    """A clip's header, where its records begin, and the CRC-32 that it ends with."""
    if data[:3] != MAGIC:
        raise NotLiveFile("not a LIVE file (it does not begin with LIV)")
    check_version(data[3:4])
    if data[3:4] != bytes([CLIP_VERSION]):
        raise InputError("the file holds no clip; use live.decompress, live.decompress_latents or: live decompress")
    reader = Reader(data, 4)
    try:
        codec_id, model, autoencoder, quality = reader.byte(), reader.take(8), reader.take(4), reader.byte()
        width, height, numerator, denominator, period = (reader.varint() for _ in range(5))
        matrix, primaries, transfer, full_range = reader.take(4)
        sections, end = reader.sections(), reader.position
        crc = struct.unpack("<I", reader.take(4))[0]
    except DamagedFile:
        raise DamagedFile("the file is damaged: its header is cut off") from None
    if crc != zlib.crc32(data[:end]):
        raise DamagedFile("the file is damaged: its header does not have its checksum")
    check_sections(sections, (TILES_TAG, LATENTS_TAG))
    if matrix not in MATRICES:
        raise NewerFormat(f"the clip has a colour matrix {matrix} that this release does not know: update live")
    latents = sections.pop(LATENTS_TAG, None)
    if latents:
        raise DamagedFile("the file is damaged: its section that says it holds latents is not empty")
    aspect = Reader(sections.pop(ASPECT_TAG, b"\1\1"), 0)
    aspect_width, aspect_height = aspect.varint(), aspect.varint()
    positive = (numerator, denominator, aspect_width, aspect_height, period)
    if not all(0 < number <= MAX_NUMBER for number in positive) or full_range > 1:
        raise DamagedFile("the file is damaged: its frame rate, intra period, aspect or range is out of bounds")
    colour = Colour(matrix, bool(full_range), primaries, transfer)
    shape = Fraction(aspect_width, aspect_height)
    clip = Properties(width, height, Fraction(numerator, denominator), shape, colour)
    header = ClipHeader(codec_id, model, autoencoder, quality, clip, period, sections, latents is not None)
    return header, end + 4, crc
