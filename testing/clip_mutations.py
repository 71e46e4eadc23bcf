"""Damage to clips for the fuzzer: records that are no records, and frames that lie, under right checksums."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from random import Random

from live.container import LiveFile, Reader, varint
from live.video.container import END, INTRA, PREDICTED, TAIL, ClipReader, ClipWriter, Frame
from live.video.header import ClipHeader

from .mutations import false_stream, mutate


def opened(data: bytes) -> tuple[ClipHeader, list[Frame]]:
    """A clip's header and its frames; LiveError where these are not whole."""
    reader = ClipReader(io.BytesIO(data))
    return reader.header, list(reader.frames())


def written(header: ClipHeader, frames: list[Frame]) -> bytes:
    """The clip of these, numbered anew, under right checksums."""
    file = io.BytesIO()
    writer = ClipWriter(file, header)
    for frame in frames:
        writer.add(frame.stream, frame.symbols_crc, frame.intra)
    writer.finish()
    return file.getvalue()


def resealed(data: bytes, random: Random) -> bytes:
    """A clip whose header, records or index were altered as bytes, every checksum made right again."""
    _, frames = opened(data)
    head = data[: frames[0].place - 4]
    records = [data[frame.place : frame.place + frame.length - 4] for frame in frames]
    part = random.randrange(4)
    if part == 0:
        head = mutate(head, random)
    elif part < 3:
        number = random.randrange(len(records))
        records[number] = mutate(records[number], random) if part == 1 else _refilled(records[number], random)
        if random.random() < 0.2:
            records.insert(random.randrange(len(records)), random.choice(records))
    return _sealed(head, records, random if part == 3 else None)


def _refilled(record: bytes, random: Random) -> bytes:
    """Altered behind its length, which is right."""
    reader = Reader(record, 1)
    reader.varint()
    content = mutate(reader.rest(), random)
    return record[:1] + varint(len(content)) + content


def _sealed(head: bytes, records: list[bytes], random: Random | None) -> bytes:
    """Under right checksums. random: alters what the index says."""
    crc, entries = zlib.crc32(head), b""
    data = head + struct.pack("<I", crc)
    number, last = 0, (0, 0)
    for record in records:
        if record[:1] == bytes([INTRA]):
            entries += varint(number - last[0]) + varint(len(data) - last[1])
            last = number, len(data)
        data += _record(record, crc, number)
        number += record[:1] in (bytes([INTRA]), bytes([PREDICTED]))
    if random is not None:
        entries = random.choice((mutate(entries, random), entries))
        number = random.choice((number, number + random.randint(-2, 2), random.getrandbits(32))) % (1 << 32)
    end = bytes([END]) + varint(len(entries) + TAIL - 4)
    end += entries + struct.pack("<II", number, len(end) + len(entries) + TAIL)
    return data + _record(end, crc, number)


def _record(record: bytes, header_crc: int, number: int) -> bytes:
    """With its CRC-32, which knows its place and its file."""
    return record + struct.pack("<I", zlib.crc32(record, zlib.crc32(struct.pack("<II", header_crc, number))))


def false_frame(frames: list[Frame], others: list[Frame], random: Random) -> list[Frame]:
    """One frame has a wrong stream, checksum of symbols or kind. others: frames to take a stream from."""
    number = random.randrange(len(frames))
    frame = frames[number]
    stream = false_stream(frame.stream, random.choice(others).stream, random)
    changed = random.choice(
        (
            {"stream": stream},
            {"stream": stream},
            {"stream": stream, "intra": not frame.intra},
            {"symbols_crc": random.getrandbits(32)},
            {"intra": not frame.intra},
        )
    )
    return [*frames[:number], frame._replace(**changed), *frames[number + 1 :]]


def false_order(frames: list[Frame], random: Random) -> list[Frame]:
    """A frame is missing, doubled or in another's place, or all that follow it are missing."""
    number = random.randrange(1, len(frames))
    before, frame, after = frames[:number], frames[number], frames[number + 1 :]
    return random.choice(([*before, *after], [*before, frame, frame, *after], [*after, frame, *before], before))


def false_header(header: ClipHeader, others: list[ClipHeader | LiveFile], random: Random) -> ClipHeader:
    """One field is wrong. others: what to take a codec from."""
    other, clip = random.choice(others), header.properties

    def size(side: int) -> int:
        return random.choice((side + random.randint(-9, 9), random.getrandbits(random.randint(1, 34)))) % (1 << 34)

    changed = random.choice(
        (
            {"properties": replace(clip, width=size(clip.width), height=size(clip.height))},
            {"quality": random.randrange(256)},
            {"codec_id": random.randrange(256)},
            {"codec_id": other.codec_id, "model": other.model},
            {"autoencoder": random.randbytes(4)},
            {"intra_period": random.choice((1, 2, 1 << 20))},
            {"sections": {random.randrange(1, 256): random.randbytes(random.choice((0, 1, 12, 300)))}},
        )
    )
    return replace(header, **changed)
