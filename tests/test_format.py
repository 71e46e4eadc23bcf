"""docs/format.md is enough for a second decoder: this one, in Python's own integers, reads what the library wrote."""

from __future__ import annotations

import json
import re
import struct
import zlib
from hashlib import sha256

import numpy as np
import pytest
from test_golden import EXPECTED, FILES, GOLDEN

from live.checkpoints import load_codec
from live.coder import SYMBOL_LIMIT, Read, Write
from live.container import unpack
from live.priors.hyper import scale_table
from live.priors.tables import Tables, gaussian_tables
from testing import attacks

PAGE = GOLDEN.parent.parent / "docs" / "format.md"


class SecondDecoder:
    """The section "The stream", to the letter."""

    def __init__(self, stream: bytes):
        padded = stream + bytes(-len(stream) % 4)
        self.words = [int.from_bytes(padded[place : place + 4], "little") for place in range(0, len(padded), 4)]
        self.taken = 0
        low, high = self.word(), self.word()
        self.x = low + (high << 32)

    def word(self) -> int:
        self.taken += 1
        return self.words[self.taken - 1] if self.taken <= len(self.words) else 0

    def renewed(self, x: int) -> None:
        self.x = x if x >= 1 << 31 else (x << 32) + self.word()

    def digit(self) -> int:
        digit = self.x % 16
        self.renewed(self.x // 16)
        return digit

    def symbol(self, cdf: list[int], size: int, offset: int) -> int:
        c = self.x % 65536
        k = next(k for k in range(size - 1) if cdf[k] <= c < cdf[k + 1])
        self.renewed((cdf[k + 1] - cdf[k]) * (self.x // 65536) + c - cdf[k])
        top = size - 2
        if k < top:
            return offset + k
        count = digit = self.digit()
        while digit == 15:
            digit = self.digit()
            count += digit
        raw = sum(self.digit() << 4 * place for place in range(count))
        return offset + (-(raw + 1) // 2 if raw % 2 else raw // 2 + top)

    def symbols(self, indices: np.ndarray, tables: Tables) -> list[int]:
        cdfs, sizes, offsets = tables.lists
        return [self.symbol(cdfs[row], sizes[row], offsets[row]) for row in indices.tolist()]


def example() -> bytes:
    block = PAGE.read_text().split("## A worked example")[1].split("```")[1]
    return bytes.fromhex("".join(re.findall(r"^((?:[0-9a-f]{2} ?)+)", block, re.MULTILINE)))


def test_the_worked_example_is_the_golden_file():
    data = example()
    assert data == (GOLDEN / "plus_q1_33x17.live").read_bytes()
    assert (data[:3], data[3], data[4], data[17], data[18], data[19], data[20]) == (b"LIV", 1, 2, 1, 33, 17, 0)
    assert struct.unpack("<I", data[-4:])[0] == zlib.crc32(data[:-4]) == 0x3103357F
    text = PAGE.read_text()
    decoder, codec = SecondDecoder(data[21:-8]), load_codec(GOLDEN / "live_plus_q1.safetensors")
    assert f"{decoder.x:016x}" in text and f"c = {decoder.x % 65536:04x}, {decoder.x % 65536}" in text
    z = decoder.symbols(np.repeat(np.arange(4), 2), codec.tables["z"])
    y = decoder.symbols(np.full(128, 22), codec.tables["y"])
    symbols = np.array(z + y, "<i4")
    assert zlib.crc32(symbols.tobytes()) == struct.unpack("<I", data[-8:-4])[0]
    assert z == [0] * 8 and y[:5] == [-2, -1, -1, -1, 0] and y[64:69] == [-1] * 5
    assert sha256(symbols.tobytes()).hexdigest() == json.loads(EXPECTED.read_text())["plus_q1_33x17"]["symbols"]


@pytest.mark.parametrize("name", FILES)
def test_a_second_decoder_reads_every_golden_file(name, monkeypatch):
    """Given the rows, which the section "Exact arithmetic" yields (tests/test_exact.py)."""
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(GOLDEN))
    file = unpack((GOLDEN / f"{name}.live").read_bytes())
    decoder, calls = SecondDecoder(file.stream), []
    code = Read.code

    def compared(self, symbols, indices, tables):
        calls.append(decoder.symbols(indices, tables))
        decoded = code(self, symbols, indices, tables)
        assert calls[-1] == decoded.tolist()
        return decoded

    monkeypatch.setattr(Read, "code", compared)
    attacks.symbols_of(file)
    assert sum(map(len, calls)) == json.loads(EXPECTED.read_text())[name]["count"]


def test_a_second_decoder_reads_escapes():
    tables, random = gaussian_tables(scale_table()), np.random.default_rng(5)
    indices = random.integers(0, 64, 500).astype(np.int32)
    symbols = random.integers(-SYMBOL_LIMIT, SYMBOL_LIMIT + 1, 500).astype(np.int32)
    symbols[:200] //= 1000
    write = Write()
    write.code(symbols, indices, tables)
    assert SecondDecoder(write.stream()).symbols(indices, tables) == symbols.tolist()
