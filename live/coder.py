"""The range coder behind three ports: Count, Write and Read.

A codec walks its symbols once, against a port, so that encoder and decoder cannot diverge::

    symbols = port.code(symbols_or_None, indices, tables)

``Count`` adds up the exact bits, ``Write`` codes them (CompressAI's rANS), ``Read`` ignores its first argument and gives
back what was written. Every port keeps a CRC-32 over the symbols that passed, which the container stores and checks.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod

import numpy as np

from .borrowed import BufferedRansEncoder, RansDecoder
from .errors import DamagedFile, InputError
from .priors.tables import PRECISION, Tables

SYMBOL_LIMIT = 1 << 14
"""A symbol of larger magnitude is refused, when written and when read."""
CHUNK = 1 << 18
"""Symbols that pass the range coder at a time: as Python integers they take ten times their memory. No byte depends on it."""

FEWEST, FREE = 8, ([[0, (1 << PRECISION) - 1, 1 << PRECISION]], [3], [0])
"""The encoder makes room for one word a symbol, too little for its own state when there are fewer than four: so that many
more follow, under a table that charges nothing for them and which no reader asks for."""


class Port(ABC):
    """One end of the walk. ``crc`` is the CRC-32 over all symbols so far (int32, little endian)."""

    def __init__(self) -> None:
        self.crc = 0

    def code(self, symbols: np.ndarray | None, indices: np.ndarray, tables: Tables) -> np.ndarray:
        """Pass symbols (n,), coded under table rows ``indices`` (n,), both of any integer type; returns them (n,) int32."""
        passed = np.empty(len(indices), np.int32)
        for start in range(0, len(indices), CHUNK):
            part = slice(start, start + CHUNK)
            passed[part] = self._code(None if symbols is None else symbols[part], indices[part], tables)
            self.crc = zlib.crc32(passed[part].astype("<i4", copy=False), self.crc)
        return passed

    @abstractmethod
    def _code(self, symbols: np.ndarray | None, indices: np.ndarray, tables: Tables) -> np.ndarray: ...


class Count(Port):
    """Adds up what the tables charge, in ``bits`` (float); nothing is written."""

    def __init__(self) -> None:
        super().__init__()
        self.bits = 0.0

    def _code(self, symbols: np.ndarray | None, indices: np.ndarray, tables: Tables) -> np.ndarray:
        symbols = _bounded(symbols)
        self.bits += tables.bits(symbols, indices)
        return symbols


class Write(Port):
    """Collects symbols; ``stream()`` gives the bytes, and then no more symbols are taken."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder, self._count = BufferedRansEncoder(), 0
        self._stream: bytes | None = None

    def _code(self, symbols: np.ndarray | None, indices: np.ndarray, tables: Tables) -> np.ndarray:
        if self._stream is not None:
            raise RuntimeError("the stream is complete: no symbol can be added")
        symbols = _bounded(symbols)
        self._encoder.encode_with_indexes(symbols.tolist(), indices.tolist(), *tables.lists)
        self._count += len(symbols)
        return symbols

    def stream(self) -> bytes:
        if self._stream is None:  # a second flush of the encoder would crash
            if self._count < FEWEST:
                self._encoder.encode_with_indexes([0] * FEWEST, [0] * FEWEST, *FREE)
            self._stream = self._encoder.flush()
        return self._stream


class Read(Port):
    """Reads symbols back from ``Write``'s bytes. The caller has checked the bytes' CRC before.

    The decoder trusts its input, so zeros are appended: 15 bytes for each of the stream's, the most that its 4-bit escape
    digits can announce, and 4 for every symbol asked for. Once in the zeros a symbol takes 2 bytes at most, and an escape
    up to 72 more, which ``Tables.check`` keeps to one symbol in 64. A stream that claims more than it holds runs into
    zeros, never past the end of memory, and the symbols' CRC then refuses it.
    """

    def __init__(self, stream: bytes, symbols: int) -> None:
        super().__init__()
        self._decoder = RansDecoder()
        self._decoder.set_stream(stream.ljust(4 * symbols + 17 * len(stream) + 4096, b"\0"))  # one copy, not two

    def _code(self, symbols: np.ndarray | None, indices: np.ndarray, tables: Tables) -> np.ndarray:
        read = np.array(self._decoder.decode_stream(indices.tolist(), *tables.lists), np.int32)
        if _out_of_bounds(read):
            raise DamagedFile("the file is damaged: a symbol is out of bounds")
        return read


def _bounded(symbols: np.ndarray | None) -> np.ndarray:
    assert symbols is not None
    if _out_of_bounds(symbols):
        raise InputError("the latents are far outside what the codec was trained on; check their scale")
    return symbols.astype(np.int32)


def _out_of_bounds(symbols: np.ndarray) -> bool:
    """Not by their magnitude: -2^31 has none in int32."""
    return bool(symbols.size) and (symbols.min() < -SYMBOL_LIMIT or symbols.max() > SYMBOL_LIMIT)
