"""Damage for the fuzzer: bytes altered at random, and files whose fields lie while their checksum is right."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from random import Random

from live.container import LiveFile, pack

TELLING = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
"""Bytes at which lengths, signs and varints turn over."""


def rechecked(data: bytes) -> bytes:
    """The bytes with the file's CRC-32 made right again: what reaches the layers behind it."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def mutate(data: bytes, random: Random) -> bytes:
    """One to three alterations: bits flipped, bytes set, cut off, cut out, put in, doubled, appended."""
    altered = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_ALTERATIONS)(altered, random)
    return bytes(altered)


def _flip(data: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        if data:
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _set(data: bytearray, random: Random) -> None:
    start, count = _slice(data, random)
    data[start : start + count] = bytes(random.choice(TELLING) for _ in range(len(data[start : start + count])))


def _truncate(data: bytearray, random: Random) -> None:
    del data[random.randrange(len(data) + 1) :]


def _cut(data: bytearray, random: Random) -> None:
    start, count = _slice(data, random)
    del data[start : start + count]


def _insert(data: bytearray, random: Random) -> None:
    start, count = _slice(data, random)
    data[start:start] = random.randbytes(count)


def _double(data: bytearray, random: Random) -> None:
    start, count = _slice(data, random)
    data[start:start] = data[start : start + count]


def _append(data: bytearray, random: Random) -> None:
    data += bytes([random.choice(TELLING)]) * random.choice((1, 4, 8, 64, 500))


_ALTERATIONS = (_flip, _flip, _set, _truncate, _cut, _insert, _double, _append)


def _slice(data: bytearray, random: Random) -> tuple[int, int]:
    return random.randrange(len(data) + 1), random.choice((1, 2, 4, 8, 32))


def false_stream(stream: bytes, other: bytes, random: Random) -> bytes:
    """An entropy-coded stream that was altered, made up, or is another's."""
    made = (
        mutate(stream, random),
        mutate(stream, random),
        random.randbytes(random.choice((0, 3, 8, 50, 400))),
        bytes([random.choice(TELLING)]) * random.choice((1, 8, 60, 5000)),
        stream[: random.randrange(9)] + b"\xff" * random.choice((16, 300)),  # escapes that announce endless digits
        other,
    )
    return random.choice(made)


def lie(file: LiveFile, others: list[LiveFile], random: Random) -> bytes:
    """A file with a right CRC, one or two of whose fields are wrong. others: files to take a field from."""
    for _ in range(random.choice((1, 1, 2))):
        file = random.choice(_LIES)(file, random.choice(others), random)
    return pack(file)


def _size(file: LiveFile, _: LiveFile, random: Random) -> LiveFile:
    def other(side: int) -> int:
        return random.choice((side, side + random.randint(-9, 9), random.getrandbits(random.randint(1, 34)))) % (
            1 << 34
        )

    return replace(file, width=other(file.width), height=other(file.height))


def _stream(file: LiveFile, other: LiveFile, random: Random) -> LiveFile:
    return replace(file, stream=false_stream(file.stream, other.stream, random))


def _head(file: LiveFile, other: LiveFile, random: Random) -> LiveFile:
    changes = (
        {"quality": random.randrange(256)},
        {"codec_id": random.randrange(128)},
        {"codec_id": other.codec_id, "model": other.model},
        {"latents": not file.latents},
        {"model": mutate(file.model, random)[:8].ljust(8, b"\0")},
        {"autoencoder": random.randbytes(4)},
        {"symbols_crc": random.getrandbits(32)},
    )
    return replace(file, **random.choice(changes))


def _sections(file: LiveFile, _: LiveFile, random: Random) -> LiveFile:
    tags = [random.randrange(1, 256 if random.random() < 0.3 else 128) for _ in range(random.choice((1, 2, 40)))]
    return replace(file, sections={tag: random.randbytes(random.choice((0, 1, 127, 128, 300))) for tag in tags})


_LIES = (_size, _stream, _stream, _stream, _head, _sections)
