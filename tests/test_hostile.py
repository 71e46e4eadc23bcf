"""Damaged and hostile files: named errors, in bounded time and memory; the same picture or none."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_format import SecondDecoder
from test_golden import GOLDEN
from trials import Misbehaves

import live
from live.__main__ import main
from live.checkpoints import load_codec
from live.coder import FEWEST, SYMBOL_LIMIT, Read, Write
from live.container import MAX_PIXELS_PER_BYTE, LiveFile, pack, unpack
from live.errors import DamagedFile, DecodeMismatch, NewerFormat, NotLiveFile, UnknownModel
from live.priors.tables import MAX_ESCAPE, Tables
from testing import attacks, fuzz, isolated
from testing.mutations import rechecked

ROOT = GOLDEN.parent.parent
NAMED = (NotLiveFile, NewerFormat, UnknownModel, DamagedFile, DecodeMismatch)
SMALL = ("plus_q1_33x17", "plus_q2_64x48", "paper_50x70", "glc_45x70", "glc_factorised_70x33")
QUICK = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def golden_models(monkeypatch):
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(GOLDEN))


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.live").read_bytes()


def flipped(data: bytes, bit: int) -> bytes:
    altered = bytearray(data)
    altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


@pytest.mark.parametrize("name", SMALL)
def test_every_bit_flip_and_every_truncation_is_named(name):
    data = golden(name)
    assert live.decompress(data).size == (unpack(data).width, unpack(data).height)
    for bit in range(8 * len(data)):
        with pytest.raises(NAMED):
            live.decompress(flipped(data, bit))
    for length in range(len(data)):
        with pytest.raises((NotLiveFile, DamagedFile)):
            live.decompress(data[:length])


@pytest.mark.parametrize(("name", "stride"), [("plus_q1_33x17", 1), ("glc_45x70", 7)])
def test_bit_flips_under_a_right_checksum(name, stride):
    """Every layer behind the checksum is reached. What still decodes has the very symbols, and unless it claims another
    size or quality, which the file's checksum alone covers, it is the very picture."""
    data = golden(name)
    original, picture = unpack(data), live.decompress(data).tobytes()
    symbols, refused, claims = attacks.symbols_of(original)[0], set(), 0
    for bit in range(0, 8 * (len(data) - 4), stride):
        altered = rechecked(flipped(data, bit))
        try:
            decoded = live.decompress(altered)
        except live.LiveError as error:
            refused.add(type(error))
            continue
        file = unpack(altered)
        assert attacks.symbols_of(file)[0] == symbols
        assert decoded.size == (file.width, file.height)
        if (file.width, file.height, file.quality) == (original.width, original.height, original.quality):
            assert decoded.tobytes() == picture
        else:
            claims += 1
    assert set(NAMED) <= refused and claims < 0.05 * 8 * len(data) / stride


def hostile(**fields: object) -> bytes:
    return pack(LiveFile(**(vars(unpack(golden("plus_q1_33x17"))) | fields)))


def test_sixty_bytes_that_claim_60000_pixels_a_side(tmp_path, capsys):
    path = tmp_path / "huge.live"
    path.write_bytes(hostile(width=60000, height=60000, stream=b"x" * 27))
    assert path.stat().st_size == 60
    start = time.process_time()
    assert main(["decompress", str(path)]) == 2
    assert "60000 x 60000, over the limit" in capsys.readouterr().err
    assert main(["decompress", str(path), "--max-pixels", str(10**10)]) == 2
    assert "60 bytes cannot hold 60000 x 60000" in capsys.readouterr().err
    assert time.process_time() - start < 0.5
    assert not (tmp_path / "huge.png").exists()


@pytest.mark.parametrize("size", [(3_497_553, 1), (1, 3_497_553)])
def test_a_thin_picture_counts_as_what_is_coded(size):
    """Of one row of pixels 32 are coded: 68 bytes took gigabytes."""
    with pytest.raises(DamagedFile, match="cannot hold"):
        unpack(hostile(width=size[0], height=size[1]))


@pytest.mark.parametrize(("width", "why"), [(42522, "over the limit"), (20000, "cannot hold")])
def test_a_claimed_position_of_latents_counts_as_its_pixels(width, why):
    """At f = 16 four times as many as at 8: 759 bytes of GLC's latents took a minute."""
    data = pack(LiveFile(**(vars(unpack(golden("glc_latents"))) | {"width": width, "height": 20})))
    assert unpack(data).width == width  # the container does not know f
    start = time.process_time()
    with pytest.raises(DamagedFile, match=why):
        live.decompress_latents(data)
    assert time.process_time() - start < 0.5


MEASURED = """
import resource, sys, time, live
from pathlib import Path
live.decompress(Path(sys.argv[1]).read_bytes())
memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    live.decompress(Path(sys.argv[2]).read_bytes())
except live.LiveError as error:
    print(type(error).__name__)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) // 1024, time.process_time() - start)
"""


@pytest.mark.slow
def test_the_largest_claim_that_a_small_file_may_make_is_bounded(tmp_path):
    """8 megapixels out of 65 bytes: whatever these are, a decoder takes no more than for such a picture."""
    side = math.isqrt(65 * MAX_PIXELS_PER_BYTE)
    path = tmp_path / "large.live"
    path.write_bytes(hostile(width=side, height=side))
    command = [sys.executable, "-c", MEASURED, str(GOLDEN / "plus_q1_33x17.live"), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    kind, figures = done.stdout.splitlines()
    megabytes, seconds = map(float, figures.split())
    assert kind == "DecodeMismatch" and megabytes < 600 and seconds < 20, done.stdout


@QUICK
@given(st.binary(max_size=120), st.booleans())
def test_the_container_on_any_bytes(tail, right_checksum):
    data = b"LIV\1" + tail
    if right_checksum and len(data) >= 8:
        data = rechecked(data)
    try:
        file = unpack(data)
    except NAMED:
        return
    assert unpack(pack(file)) == file


@QUICK
@given(st.binary(max_size=300), st.lists(st.integers(0, 63), max_size=200), st.sampled_from([b"", b"\xff" * 200]))
def test_the_coder_on_any_stream(stream, rows, end):
    tables = load_codec(GOLDEN / "live_plus_q1.safetensors").tables["y"]
    try:
        symbols = Read(stream + end, len(rows)).code(None, np.array(rows, np.int32), tables)
    except DamagedFile:
        return
    assert len(symbols) == len(rows) and (abs(symbols.astype(np.int64)) <= SYMBOL_LIMIT).all()


class Room:
    """In the decoder's place: how many words it is given."""

    words = 0

    def set_stream(self, stream: bytes) -> None:
        Room.words = len(stream) // 4


def assert_room_enough(stream: bytes, rows: list[int], tables: Tables) -> int:
    decoder = SecondDecoder(stream)
    decoder.symbols(np.array(rows, np.int32), tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("live.coder.RansDecoder", Room)
        Read(stream, len(rows))
    assert decoder.taken <= Room.words
    return decoder.taken


@QUICK
@given(st.binary(max_size=100), st.lists(st.integers(0, 63), max_size=300), st.integers(0, 60))
def test_the_coder_stays_within_its_bytes(stream, rows, ones):
    tables = load_codec(GOLDEN / "live_plus_q1.safetensors").tables["y"]
    assert_room_enough(b"\xff" * ones + stream, rows, tables)


def test_endless_digits_stay_within_the_bytes():
    """The worst stream: an escape, then nothing but digits of 15, each of which announces 15 more."""
    tables = Tables(np.array([[0, 65535, 65536]], np.int32), np.array([3], np.int32), np.zeros(1, np.int32))
    tables.check()
    for words in (3, 20, 200):
        assert assert_room_enough(b"\xff" * 4 * words, [0] * 5, tables) > 15 * (words - 2)


@settings(QUICK, max_examples=60)
@given(
    st.sampled_from(SMALL), st.integers(1, 90), st.integers(1, 90), st.binary(max_size=200), st.integers(0, 2**32 - 1)
)
def test_the_codec_on_any_stream(name, width, height, stream, crc):
    file = LiveFile(**(vars(unpack(golden(name))) | {"width": width, "height": height, "stream": stream}))
    with pytest.raises((DamagedFile, DecodeMismatch)):
        live.decompress(pack(LiveFile(**(vars(file) | {"symbols_crc": crc}))))
    forged = LiveFile(**(vars(file) | {"symbols_crc": attacks.symbols_of(file)[1]}))  # as far as the pixels
    try:
        assert live.decompress(pack(forged)).size == (width, height)
    except DamagedFile as error:  # glc's transform multiplies what it is given
        assert "latents are out of all bounds" in str(error) and name.startswith("glc")


@pytest.mark.parametrize("count", range(FEWEST + 2))
def test_few_symbols_are_written_in_bounds(count):
    """CompressAI's encoder makes room for one word a symbol, and writes two for its state alone."""
    tables = load_codec(GOLDEN / "live_plus_q1.safetensors").tables["y"]
    symbols, rows = np.arange(count, dtype=np.int32) - 3, np.zeros(count, np.int32)
    for _ in range(50):  # a heap that was written over is noticed later
        write = Write()
        write.code(symbols, rows, tables)
        stream = write.stream()
    assert (Read(stream, count).code(None, rows, tables) == symbols).all() and len(stream) >= 8


def test_a_symbol_without_a_magnitude_is_out_of_bounds(monkeypatch):
    """-2^31 has none in int32."""
    read = Read(bytes(8), 1)
    monkeypatch.setattr(read, "_decoder", type("Decoder", (), {"decode_stream": lambda *_: [-(1 << 31)]})())
    tables = load_codec(GOLDEN / "live_plus_q1.safetensors").tables["y"]
    with pytest.raises(DamagedFile, match="out of bounds"):
        read.code(None, np.zeros(1, np.int32), tables)


@pytest.mark.parametrize(
    ("row", "offset", "words"),
    [
        ([0, 65536], 0, "sizes"),
        ([0, 65535 - MAX_ESCAPE, 65536], 0, "escape"),
        ([0, 65535, 65536], 1 << 20, "sizes"),
        ([0, 70000, 65536], 0, "no distribution"),
    ],
)
def test_tables_that_would_mislead_the_coder_are_refused(row, offset, words):
    tables = Tables(np.array([row], np.int32), np.array([len(row)], np.int32), np.array([offset], np.int32))
    with pytest.raises(ValueError, match=words):
        tables.check()


def test_a_crash_and_a_hang_are_recorded_not_suffered():
    with isolated.Isolated(Misbehaves(), seconds=1, memory=200 << 20) as runner:
        results = [runner.run(number) for number in range(6)]
    assert [result.outcome for result in results] == [
        "fine", isolated.CRASH, isolated.HANG, isolated.NO_MEMORY, isolated.CRASH, "fine",
    ]  # fmt: skip
    assert "7" in results[1].detail and "surprise" in results[4].detail


@pytest.mark.slow
def test_the_fuzzer_counts_every_file(capsys):
    assert fuzz.main(["--count", "200", "--seed", "3", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["count"] == 200 and not table["failures"]
    assert sum(sum(layer["outcomes"].values()) for layer in table["layers"].values()) == 200
    assert set(table["layers"]) == set(fuzz.LAYERS) and "| crash |" + " 0 |" * len(fuzz.LAYERS) in fuzz.text(table)


def file_attack() -> attacks.File:
    attack = attacks.File(3)
    attack.prepare()
    return attack


def test_whole_files_altered_and_left_so():
    outcomes = Counter(map(file_attack(), range(600)))
    assert {"DamagedFile", "NotLiveFile", attacks.SAME} <= set(outcomes)
    assert not set(outcomes) & set(fuzz.FAILURES)


def test_a_decoder_that_checks_no_checksum_is_found(monkeypatch):
    attack = file_attack()
    monkeypatch.setattr("live.api.check_decoded", lambda *_: None)
    for module in ("live.api", "testing.attacks"):
        monkeypatch.setattr(f"{module}.unpack", lambda data, *limit: unpack(rechecked(data.ljust(4)), *limit))
    assert attacks.SILENT in map(attack, range(100))


@pytest.mark.skipif(
    not (ROOT / "results" / "fuzz.json").exists(), reason="python -m testing.fuzz makes results/fuzz.json"
)
def test_the_committed_campaign_found_nothing():
    table = json.loads((ROOT / "results" / "fuzz.json").read_text())
    assert table["count"] >= 100_000 and table["failures"] == []
    for layer in table["layers"].values():
        assert not set(layer["outcomes"]) & set(fuzz.FAILURES)
