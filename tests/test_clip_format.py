"""The clip format: fields survive, a damaged frame is named, salvage finds the next intra frame, claims are not believed."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live.container import LiveFile, pack, unpack, varint
from live.errors import DamagedFile, InputError, LiveError, NewerFormat, NotLiveFile
from live.video.container import ClipReader, ClipWriter
from live.video.header import ClipHeader
from live.video.properties import Colour, Properties
from testing.mutations import mutate

CLIP = Properties(65, 49, Fraction(30000, 1001), Fraction(32, 27), Colour(5, True, 9, 16))
HEADER = ClipHeader(2, bytes(range(8)), b"abcd", 3, CLIP, intra_period=4, sections={7: b"note"})
STREAMS = [bytes([number]) * (20 + number) for number in range(10)]
"""Frames 0, 4 and 8 are intra frames."""


def written(header: ClipHeader = HEADER, streams: list[bytes] = STREAMS) -> bytes:
    file = io.BytesIO()
    writer = ClipWriter(file, header)
    for number, stream in enumerate(streams):
        writer.add(stream, 1000 + number, intra=number % header.intra_period == 0)
    writer.finish()
    return file.getvalue()


def reader(data: bytes, **options) -> ClipReader:
    return ClipReader(io.BytesIO(data), **options)


def places(data: bytes) -> list[tuple[int, int]]:
    """Where every frame's record begins and ends."""
    return [(frame.place, frame.place + frame.length) for frame in reader(data).frames()]


def flipped(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


def salvaged(data: bytes) -> list[int | None]:
    """The numbers of the frames that salvage gives, None for a lost one; every stream is the one that was written."""
    found = []
    for number, frame in enumerate(reader(data, salvage=True).frames()):
        assert frame.number == number and frame.stream in (None, STREAMS[number])
        found.append(None if frame.stream is None else number)
    return found


def record(header: ClipHeader, number: int, tag: int, body: bytes) -> bytes:
    """A record with a checksum that holds."""
    crc = struct.unpack("<I", header.pack()[-4:])[0]
    data = bytes([tag]) + varint(len(body)) + body
    return data + struct.pack("<I", zlib.crc32(data, zlib.crc32(struct.pack("<II", crc, number))))


def closed(header: ClipHeader, records: bytes, count: int, entries: bytes) -> bytes:
    """A file of records with an index that says what it is told to."""
    length = 1 + len(varint(len(entries) + 8)) + len(entries) + 12
    body = entries + struct.pack("<II", count, length)
    return header.pack() + records + record(header, count, 0, body)


def test_fields_and_frames_survive():
    data = written()
    clip = reader(data)
    assert clip.header == HEADER and clip.count == 10
    clip.check()
    frames = list(clip.frames())
    assert [frame.stream for frame in frames] == STREAMS
    assert [frame.symbols_crc for frame in frames] == list(range(1000, 1010))
    assert [frame.number for frame in frames if frame.intra] == [0, 4, 8]


def test_defaults_take_few_bytes():
    header = replace(HEADER, properties=Properties(640, 272, Fraction(25)), sections={})
    data = written(header, STREAMS[:1])
    assert reader(data).header == header
    assert len(header.pack()) == 34 and len(data) - len(header.pack()) - len(STREAMS[0]) == 10 + 16


def test_seeking_begins_at_the_intra_frame_before():
    for start, first in ((0, 0), (3, 0), (4, 4), (7, 4), (9, 8)):
        assert [frame.number for frame in reader(written()).frames(start)] == list(range(first, 10))


def test_every_truncation_is_refused_and_names_the_frame():
    data = written()
    ends = [end for _, end in places(data)]
    for length in range(len(data)):
        with pytest.raises((NotLiveFile, DamagedFile, InputError)) as refusal:
            reader(data[:length])
        whole = sum(end <= length for end in ends)
        if length >= places(data)[0][0]:
            named = int(re.search(r"frame (\d+)|behind (\d+) whole", str(refusal.value))[0].split()[1])
            assert named == whole
        if whole == len(ends) and length > ends[-1] + 1:  # its tag and length are there, so no frame is missed
            assert f"behind {whole} whole frames" in str(refusal.value)


def test_every_bit_flip_is_refused_and_names_the_frame():
    data, spans = written(), places(written())
    for bit in range(8 * len(data)):
        with pytest.raises((NotLiveFile, NewerFormat, DamagedFile, InputError)) as refusal:
            reader(flipped(data, bit)).check()
        hurt = [number for number, (start, end) in enumerate(spans) if start <= bit // 8 < end]
        if hurt:
            assert f"frame {hurt[0]} " in str(refusal.value)
        if bit // 8 >= 4:
            assert refusal.type is DamagedFile


def test_salvage_goes_on_at_the_next_intra_frame():
    """Wherever a frame is hurt, in its length too: the index knows where the next one lies."""
    data = written()
    for number, (start, end) in enumerate(places(data)):
        resumed = min(4 * (number // 4 + 1), 10)
        expected = [*range(number), *[None] * (resumed - number), *range(resumed, 10)]
        for place in range(start, end):
            assert salvaged(flipped(data, 8 * place + place % 8)) == expected


def test_salvage_without_an_index_goes_by_the_lengths():
    data, spans = written(), places(written())
    damaged_index = flipped(data, 8 * (len(data) - 3))
    assert reader(damaged_index, salvage=True).count is None
    assert salvaged(damaged_index) == list(range(10))
    hurt = flipped(damaged_index, 8 * (spans[2][0] + 5))  # in its stream
    assert salvaged(hurt) == [0, 1, None, *range(3, 10)]
    lost = flipped(damaged_index, 8 * (spans[2][0] + 1) + 6)  # in its length: nothing leads on from there
    assert salvaged(lost) == [0, 1]
    for length in range(spans[0][0], len(data)):
        assert salvaged(data[:length]) == list(range(sum(end <= length for _, end in spans)))


def test_frames_cannot_change_places():
    """Each record's checksum knows its number and its file."""
    data, spans = written(), places(written())
    (a, b), (c, d) = spans[5], spans[6]
    swapped = data[:a] + data[c:d] + data[a:b] + data[d:]
    with pytest.raises(DamagedFile, match="frame 5 "):
        reader(swapped).check()
    other = written(replace(HEADER, quality=4))
    first = places(other)[0][1]
    with pytest.raises(DamagedFile, match="frame 1 "):
        reader(other[:first] + data[first:]).check()


def test_limits_are_checked_before_anything_is_read():
    data = written()
    with pytest.raises(DamagedFile, match="10 frames, over the limit of 9"):
        reader(data, max_frames=9)
    with pytest.raises(DamagedFile, match="over the limit of 3000 pixels"):
        reader(data, max_pixels=3000)
    with pytest.raises(DamagedFile, match="60000 x 60000"):
        reader(written(replace(HEADER, properties=Properties(60000, 60000, Fraction(25)))))
    with pytest.raises(DamagedFile, match="cannot hold"):
        reader(written(replace(HEADER, properties=Properties(13000, 13000, Fraction(25))), STREAMS[:1]))
    index_lost = flipped(data, 8 * (len(data) - 3))
    with pytest.raises(DamagedFile, match="over the limit of 5"):
        list(reader(index_lost, max_frames=5, salvage=True).frames())


def test_claims_with_right_checksums_are_refused():
    frames = b"".join(record(HEADER, number, 1, STREAMS[number] + bytes(4)) for number in range(3))
    entries, at = b"", len(HEADER.pack())
    for number, length in enumerate((0, 30, 31)):
        entries += varint(number > 0) + varint(length or at)
    reader(closed(HEADER, frames, 3, entries)).check()
    for count in (2, 4, 5000):  # more or fewer than there are
        with pytest.raises(DamagedFile):
            reader(closed(HEADER, frames, count, entries)).check()
    with pytest.raises(DamagedFile, match="index does not fit"):
        reader(closed(HEADER, frames, 3, entries[:-1] + b"\x05")).check()
    with pytest.raises(DamagedFile, match="frame 0 is not an intra frame"):
        reader(closed(HEADER, record(HEADER, 0, 2, STREAMS[0]), 1, b"")).check()
    late = b"".join(record(HEADER, n, 1 if n == 0 else 2, STREAMS[n] + bytes(4)) for n in range(5))
    with pytest.raises(DamagedFile, match="frame 4 is not an intra frame"):
        reader(closed(HEADER, late, 5, varint(0) + varint(at))).check()
    with pytest.raises(DamagedFile, match="bytes long"):
        reader(closed(HEADER, record(HEADER, 0, 1, bytes(200_000)), 1, varint(0) + varint(at))).check()
    far = varint(0) + varint(at) + varint(2) + varint(1 << 34)  # an index that leads astray
    assert salvaged(flipped(closed(HEADER, frames, 3, far), 8 * (at + 40))) == [0, None, None]


def test_numbers_out_of_bounds_are_refused():
    for clip in (
        replace(CLIP, rate=Fraction(1 << 32)), replace(CLIP, aspect=Fraction(0)), replace(CLIP, width=0),
    ):  # fmt: skip
        with pytest.raises(DamagedFile):
            reader(written(replace(HEADER, properties=clip), STREAMS[:1]))
    with pytest.raises(NewerFormat, match="matrix 14"):
        reader(written(replace(HEADER, properties=replace(CLIP, colour=Colour(14)))))


def test_sections_that_are_not_known():
    def with_section(tag: int) -> bytes:
        frames = [record(HEADER, number, 1, STREAMS[number] + bytes(4)) for number in range(2)]
        between = record(HEADER, 1, tag, b"sound")
        at = len(HEADER.pack())
        entries = varint(0) + varint(at) + varint(1) + varint(len(frames[0]) + len(between))
        return closed(HEADER, frames[0] + between + frames[1], 2, entries)

    clip = reader(with_section(99))
    clip.check()
    assert [frame.stream for frame in clip.frames()] == STREAMS[:2]
    with pytest.raises(NewerFormat, match="section 200"):
        reader(with_section(200)).check()
    with pytest.raises(NewerFormat, match="section 200"):
        reader(written(replace(HEADER, sections={200: b"later"})))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.booleans())
def test_altered_files_are_refused_and_salvage_ends(seed, right_checksum):
    """Damage by the fuzzer's means. With the last record's checksum right again, what it says is false."""
    data = written()
    altered = mutate(data, Random(seed))
    if right_checksum and len(altered) > 60:
        altered = altered[:-4] + record(HEADER, 10, 0, altered[-13:-4])[-4:]
    try:
        reader(altered).check()
        assert altered == data
    except LiveError:
        pass
    try:
        found = list(reader(altered, salvage=True).frames())
    except LiveError:
        return
    assert len(found) <= len(altered) // 10
    assert all(frame.stream in (None, STREAMS[frame.number]) for frame in found[:10])


def test_pictures_and_clips_are_told_apart():
    picture = pack(LiveFile(2, False, bytes(8), bytes(4), 3, 64, 64, b"stream", 1))
    with pytest.raises(InputError, match="no clip"):
        reader(picture)
    with pytest.raises(InputError, match="holds a clip"):
        unpack(written())
    with pytest.raises(NewerFormat, match="version 3; this release reads up to 2"):
        reader(b"LIV\3" + written()[4:])
    with pytest.raises(NotLiveFile):
        reader(b"something else")


def test_writing_and_reading_keep_no_frame(tmp_path: Path):
    """Neither frames nor, beyond 64 kB, their index: 12,000 frames of 300 bytes would be 3.6 MB."""
    peaks, header = [], replace(HEADER, intra_period=1)
    for count in (2000, 12000):
        tracemalloc.start()
        with open(tmp_path / "clip", "w+b") as file:
            writer = ClipWriter(file, header)
            for number in range(count):
                writer.add(bytes(300), number, intra=True)
            writer.finish()
            ClipReader(file).check()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 17) < 500_000


def test_the_page_shows_a_clip_to_the_byte():
    page = (Path(__file__).resolve().parent.parent / "docs" / "format.md").read_text()
    block = page.split("## A clip, to the byte")[1].split("```")[1]
    data = bytes.fromhex("".join(re.findall(r"^((?:[0-9a-f]{2} ?)+)", block, re.MULTILINE)))
    header = ClipHeader(
        2, bytes.fromhex("048f760dff633782"), bytes.fromhex("825a1a1e"), 1,
        Properties(33, 17, Fraction(30000, 1001)), intra_period=2,
    )  # fmt: skip
    assert data == written(header, [b"intra", b"next", b"again"])
    reader(data).check()
