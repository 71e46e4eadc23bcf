"""The coder: what is written is read, what is counted is what is written, escapes included."""

import numpy as np
import pytest
import torch

from live.coder import SYMBOL_LIMIT, Count, Read, Write
from live.errors import DamagedFile
from live.priors.hyper import SCALE_LEVELS, scale_table
from live.priors.tables import Tables, categorical_shares, categorical_tables, gaussian_tables

TABLES = gaussian_tables(scale_table())


def draw(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    indices = random.integers(0, SCALE_LEVELS, count).astype(np.int32)
    symbols = np.rint(random.normal(size=count) * np.array(scale_table())[indices]).astype(np.int32)
    return symbols, indices


def coded(symbols: np.ndarray, indices: np.ndarray) -> tuple[bytes, float, int]:
    write, count = Write(), Count()
    for port in (write, count):
        for part in np.array_split(np.arange(len(symbols)), 3):
            port.code(symbols[part], indices[part], TABLES)
    assert write.crc == count.crc
    return write.stream(), count.bits, write.crc


def test_round_trip_in_several_calls():
    symbols, indices = draw(20000)
    stream, _, crc = coded(symbols, indices)
    read = Read(stream, len(symbols))
    parts = [read.code(None, indices[part], TABLES) for part in np.array_split(np.arange(len(symbols)), 3)]
    assert np.array_equal(np.concatenate(parts), symbols)
    assert read.crc == crc


@pytest.mark.parametrize("count", [0, 3, 500])
def test_the_stream_can_be_had_twice_and_is_then_complete(count):
    symbols, indices = draw(count)
    port = Write()
    port.code(symbols, indices, TABLES)
    stream = port.stream()
    assert port.stream() == stream and len(stream) > 0
    with pytest.raises(RuntimeError, match="complete"):
        port.code(*draw(1), TABLES)
    assert np.array_equal(Read(stream, count).code(None, indices, TABLES), symbols)


@pytest.mark.parametrize("outliers", [0, 200])
def test_count_is_what_is_written(outliers):
    symbols, indices = draw(20000)
    random = np.random.default_rng(2)
    symbols[random.integers(0, len(symbols), outliers)] = random.integers(-SYMBOL_LIMIT, SYMBOL_LIMIT, outliers)
    stream, bits, _ = coded(symbols, indices)
    assert abs(8 * len(stream) - bits) < 0.002 * bits + 64


def test_far_symbols_survive_by_escape():
    symbols = np.array([0, SYMBOL_LIMIT, -SYMBOL_LIMIT, 5000, -1], np.int32)
    indices = np.zeros(5, np.int32)
    stream, _, _ = coded(symbols, indices)
    assert np.array_equal(Read(stream, 5).code(None, indices, TABLES), symbols)


def test_tables_are_distributions():
    for row, size in zip(TABLES.cdfs, TABLES.sizes, strict=True):
        assert row[0] == 0 and row[size - 1] == 1 << 16
        assert (np.diff(row[:size]) > 0).all()


def test_tables_charge_the_gaussian_entropy():
    symbols, indices = draw(200000)
    wide = indices > 25
    bits = TABLES.bits(symbols[wide], indices[wide]) / wide.sum()
    entropy = np.mean(0.5 * np.log2(2 * np.pi * np.e * np.array(scale_table())[indices[wide]] ** 2))
    assert abs(bits - entropy) < 0.02


def test_reading_noise_ends_in_bounds():
    random = np.random.default_rng(3)
    for length in (0, 4, 8, 64):
        stream = random.integers(0, 256, length, np.uint8).tobytes()
        try:
            read = Read(stream.ljust(8, b"\0"), 5000).code(None, np.zeros(5000, np.int32), TABLES)
        except DamagedFile:
            continue
        assert np.abs(read).max() <= SYMBOL_LIMIT


def test_tables_survive_a_checkpoint():
    tensors = TABLES.to_tensors("tables.y")
    again = Tables.from_tensors(dict(tensors), "tables.y", len(TABLES.sizes))
    assert all(np.array_equal(getattr(TABLES, name), getattr(again, name)) for name in ("cdfs", "sizes", "offsets"))


@pytest.mark.parametrize("size", [1, 16, 512, 16384])
@pytest.mark.parametrize("skew", [0, 1, 8], ids=lambda skew: f"skew {skew}")
def test_a_categorical_table_charges_its_shares(size, skew):
    """Any codebook's: also the published one of 16,384 entries, of which many can have but one part in 65,536."""
    usage = torch.rand(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** skew
    usage /= usage.sum()
    tables, shares = categorical_tables(usage), categorical_shares(usage).numpy()
    tables.check()
    frequencies = np.diff(tables.cdfs[0])
    assert tables.sizes.tolist() == [size + 2] and frequencies[-1] == 1 and (tables.cdfs[0] >= 0).all()
    bits, best = -(shares * np.log2(frequencies[:-1] / 65536)).sum(), -(shares * np.log2(shares)).sum()
    floor = np.maximum(1 / 65536 - shares, 0).sum()  # what lifting the rare ones to one part takes from the others
    assert bits - best < 0.002 - np.log2(1 - floor)


def test_what_was_never_seen_is_still_possible():
    tables = categorical_tables(torch.tensor([1.0, 0.0, 0.0]))
    assert (np.diff(tables.cdfs[0])[1:3] > 500).all()
    symbols, indices = np.array([0, 2, 1, 0, 7, -1], np.int32), np.zeros(6, np.int32)
    write = Write()
    write.code(symbols, indices, tables)
    assert np.array_equal(Read(write.stream(), 6).code(None, indices, tables), symbols)
