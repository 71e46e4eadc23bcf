"""The clip format: frames <-> records of a file, one at a time. Standard library only; knows nothing of networks.

Layout, format version 2 (numbers as in ``live.container``; the page is docs/format.md)::

    header, sections, tag 0, CRC-32 of them
    records, each: 1 tag, varint length, that many bytes, CRC-32 over header's CRC, number of the frame, and record
        tag 1, an intra frame, or 2, a predicted one: the entropy-coded stream, CRC-32 over the decoded symbols
        tag 0, the last: of every intra frame the distance to the one before it, in frames and in bytes;
               the number of frames, the length of this record
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NamedTuple

from ..container import LATENT_PIXELS, MAX_PIXELS, MIN_BYTES, MUST_KNOW, Reader, check_size, varint
from ..errors import DamagedFile, InputError, NewerFormat
from .header import ClipHeader, unpack_header

END, INTRA, PREDICTED = 0, 1, 2
MAX_FRAMES = 1_000_000
"""Most frames of a clip that is decoded unless the caller raises it: nine hours at 30 a second."""
MAX_HEADER = 1 << 16
MIN_RECORD = 1 + 1 + 4 + 4
TAIL = 4 + 4 + 4
"""Bytes that a file ends with: the number of frames, the length of the last record, its CRC-32."""
BYTES_PER_PIXEL = 16
"""No frame takes more, beside the symbols that the smallest takes."""
TRUNCATED = "the file is damaged: it is truncated, or its index is damaged"
PART = 1 << 16
"""Bytes of the index that are in memory at a time."""


class Frame(NamedTuple):
    """A frame's record: ``stream`` is None when it is lost; ``place`` and ``length`` in the file, in bytes."""

    number: int
    intra: bool
    stream: bytes | None
    symbols_crc: int
    place: int
    length: int


class ClipWriter:
    """Writes a clip to a binary file, frame by frame, and keeps none."""

    def __init__(self, file: BinaryIO, header: ClipHeader) -> None:
        head = header.pack()
        file.write(head)
        self._file, self._place, self._header_crc = file, len(head), struct.unpack("<I", head[-4:])[0]
        self._spool, self._index = SpooledTemporaryFile(max_size=PART), _Index()  # noqa: SIM115 - until ``finish``
        self.count = 0

    def add(self, stream: bytes, symbols_crc: int, intra: bool) -> None:
        """The next frame: its entropy-coded bytes and the CRC-32 over its symbols."""
        if intra:
            self._spool.write(self._index.entry(self.count, self._place))
        record = bytes([INTRA if intra else PREDICTED]) + varint(len(stream) + 4)
        record += stream + struct.pack("<I", symbols_crc)
        record += struct.pack("<I", zlib.crc32(record, _seed(self._header_crc, self.count)))
        self._file.write(record)
        self._place += len(record)
        self.count += 1

    def finish(self) -> None:
        """Write the index; the file is whole then."""
        entries = self._spool.tell()
        head = bytes([END]) + varint(entries + TAIL - 4)
        self._spool.seek(0)
        crc = zlib.crc32(head, _seed(self._header_crc, self.count))
        self._file.write(head)
        while part := self._spool.read(PART):
            crc = zlib.crc32(part, crc)
            self._file.write(part)
        tail = struct.pack("<II", self.count, len(head) + entries + TAIL)
        self._file.write(tail + struct.pack("<I", zlib.crc32(tail, crc)))
        self._spool.close()


class ClipReader:
    """Reads a clip from a binary file that can be sought, frame by frame.

    max_pixels, max_frames: more are refused before anything is decoded. salvage: damage behind the header is passed over
    (see ``frames``). Raises NotLiveFile, NewerFormat or DamagedFile; InputError for a picture's file. ``count`` is the
    number of frames, None where the index that tells it is missing or damaged, which salvage alone allows.
    """

    def __init__(
        self, file: BinaryIO, max_pixels: int = MAX_PIXELS, max_frames: int = MAX_FRAMES, salvage: bool = False
    ) -> None:
        self._file, self._salvage, self._max_pixels, self._max_frames = file, salvage, max_pixels, max_frames
        self._size = file.seek(0, 2)
        self.header, self._start, self._header_crc = unpack_header(self._read(0, MAX_HEADER))
        clip, self._share = self.header.properties, LATENT_PIXELS if self.header.latents else 1
        self._check_size(self._size)
        self._largest = BYTES_PER_PIXEL * self._share * clip.width * clip.height + MAX_HEADER
        self.count: int | None = None
        self._end = self._entries_place = self._size
        try:
            self._find_end()
        except DamagedFile:
            if not salvage:
                whole = sum(1 for _ in self.frames())  # which names a damaged frame, if it is one
                raise DamagedFile(f"{TRUNCATED}, behind {whole} whole frames") from None
        self._check_count(self.count or 0)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Frames in order, from the last intra frame at or before ``start`` on. DamagedFile names the first damaged one.

        When salvaging, lost frames come with a stream of None: a damaged one, and those behind it up to the next intra
        frame that the index knows. Without an index the next record is looked for where the damaged one says it ends.
        """
        index, number, place, since = self._entries(), 0, self._start, self.header.intra_period
        if start:
            number, place = max((entry for entry in self._entries() if entry[0] <= start), default=(number, place))
        while place < self._end:
            try:
                frame = self._record(place, number, since + 1)
            except DamagedFile:
                if not self._salvage:
                    raise
                following, place = self._behind_damage(index, number, place)
                yield from (Frame(lost, False, None, 0, 0, 0) for lost in range(number, following))
                number, since = following, 0
                continue
            if isinstance(frame, int):
                place = frame
                continue
            yield frame
            place, since, number = frame.place + frame.length, 0 if frame.intra else since + 1, number + 1
            self._check_count(number)
        if self.count is not None and number != self.count:
            raise DamagedFile(f"the file is damaged: it claims {self.count} frames and holds {number}")

    def check(self) -> None:
        """Read every record and compare the index: DamagedFile names the first frame that is not whole."""
        index, crc, length = _Index(), 0, 0
        for frame in self.frames():
            if frame.intra:
                entry = index.entry(frame.number, frame.place)
                crc, length = zlib.crc32(entry, crc), length + len(entry)
        stored = self._size - TAIL - self._entries_place
        if length != stored or crc != self._crc(self._entries_place, stored, 0):
            raise DamagedFile("the file is damaged: its index does not fit its frames")

    def check_latents(self, factor: int) -> None:
        """DamagedFile where latents are too large, now that it is known how many pixels a side of a position stands for."""
        if self.header.latents:
            self._share = factor**2
            self._check_size(self._size)

    def _check_size(self, length: int) -> None:
        clip = self.header.properties
        check_size(clip.width, clip.height, self._share, length, self._max_pixels)

    def _record(self, place: int, number: int, since: int) -> Frame | int:
        """The frame recorded at a place, or the place behind the section that lies there and may be skipped."""
        where = f"the file is damaged: frame {number}"
        tag, head, length = self._head(place, where)
        end = place + head + length
        if tag == END and self.count is None:  # the index, which is known to be damaged
            return self._end
        if end + 4 > self._end:
            raise DamagedFile(f"{where} is cut off")
        crc = struct.unpack("<I", self._read(end, 4))[0]
        if tag not in (INTRA, PREDICTED):
            return self._skipped(tag, place, end, crc, number)
        if not 4 <= length <= self._largest:
            raise DamagedFile(f"{where} cannot be {length} bytes long")
        record = self._read(place, head + length)
        if zlib.crc32(record, _seed(self._header_crc, number)) != crc:
            raise DamagedFile(f"{where} does not have its checksum")
        if tag == PREDICTED and since >= self.header.intra_period:
            raise DamagedFile(f"{where} is not an intra frame and should be")
        if tag == INTRA:
            self._check_size(length + MIN_BYTES)
        symbols_crc = struct.unpack("<I", record[-4:])[0]
        return Frame(number, tag == INTRA, record[head:-4], symbols_crc, place, head + length + 4)

    def _skipped(self, tag: int, place: int, end: int, crc: int, number: int) -> int:
        if tag == END or self._crc(place, end - place, _seed(self._header_crc, number)) != crc:
            raise DamagedFile(f"the file is damaged: frame {number} is not where it should be")
        if tag >= MUST_KNOW:
            raise NewerFormat(f"the file has a section {tag} that this release does not know: update live")
        return end + 4

    def _head(self, place: int, where: str) -> tuple[int, int, int]:
        """A record's tag, the bytes that tag and length take, and the bytes that follow up to its CRC-32."""
        reader = Reader(self._read(place, 6), 0)
        try:
            tag, length = reader.byte(), reader.varint()
        except DamagedFile:
            raise DamagedFile(f"{where} is cut off") from None
        return tag, reader.position, length

    def _behind_damage(self, index: Iterator[tuple[int, int]], number: int, place: int) -> tuple[int, int]:
        """The number and the place of the next frame that may be whole; of the end, when there is none."""
        if self.count is not None:
            further = (e for e in index if number < e[0] < self.count and place < e[1] < self._end)
            return next(further, (self.count, self._end))
        try:
            _, head, length = self._head(place, "")
            self._record(place + head + length + 4, number + 1, 0)
        except DamagedFile:
            return number, self._end
        return number + 1, place + head + length + 4

    def _find_end(self) -> None:
        """Find the last record by its length, which the file ends with, and believe what it says if it is whole."""
        damaged = DamagedFile(TRUNCATED)
        tail = self._read(max(self._size - TAIL, 0), TAIL)
        if len(tail) < TAIL:
            raise damaged
        count, length, crc = struct.unpack("<III", tail)
        place = self._size - length
        if not self._start <= place <= self._size - TAIL:
            raise damaged
        tag, head, rest = self._head(place, "")
        whole = self._crc(place, length - 4, _seed(self._header_crc, count)) == crc
        if tag != END or head + rest + 4 != length or not whole or not 0 < count <= self._size // MIN_RECORD:
            raise damaged
        self.count, self._end, self._entries_place = count, place, place + head

    def _entries(self) -> Iterator[tuple[int, int]]:
        """Number and place of every intra frame, as the index has them."""
        reader = Reader(self._read(self._entries_place, self._size - TAIL - self._entries_place), 0)
        number = place = 0
        while reader.position < len(reader.data):
            number, place = number + reader.varint(), place + reader.varint()
            yield number, place

    def _check_count(self, count: int) -> None:
        if count > self._max_frames:
            raise DamagedFile(
                f"the file claims {count} frames, over the limit of {self._max_frames}; raise it with --max-frames"
            )

    def _read(self, place: int, length: int) -> bytes:
        try:
            self._file.seek(place)
            return self._file.read(max(length, 0))
        except OSError as error:
            raise InputError(f"cannot read the clip: {error.strerror}") from None

    def _crc(self, place: int, length: int, seed: int) -> int:
        for part in range(0, length, PART):
            seed = zlib.crc32(self._read(place + part, min(PART, length - part)), seed)
        return seed


class _Index:
    """What the index says of an intra frame: the distances from the one before it, in frames and in bytes."""

    def __init__(self) -> None:
        self._number = self._place = 0

    def entry(self, number: int, place: int) -> bytes:
        packed = varint(number - self._number) + varint(place - self._place)
        self._number, self._place = number, place
        return packed


def _seed(header_crc: int, number: int) -> int:
    """What a record's CRC-32 begins with, so that no frame passes in another's place or in another file."""
    return zlib.crc32(struct.pack("<II", header_crc, number))
