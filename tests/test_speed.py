"""The speed table measures every stage of real work; the command starts without torch; folders are coded side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import photo

from live import api
from live.errors import InputError
from live.parallel import ahead, side_by_side
from testing import aims, speed
from testing.anchors import ANCHORS
from testing.tables import speed_text

pytestmark = pytest.mark.usefixtures("small_live")


@pytest.mark.parametrize("arguments", [("--threads", "0"), ("--threads", "-1"), ("--repeat", "0")])
def test_nothing_is_measured_with_nothing(arguments):
    with pytest.raises(InputError, match="1 or more"):
        speed.main(list(arguments))


def test_table_of_speeds(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speed, "SIZE", (96, 64))
    monkeypatch.setattr(speed, "PEERS", (ANCHORS["heif"],))
    monkeypatch.setattr(speed, "FOLDER", 2)
    photo(120, 80).save(tmp_path / "photo.png")
    before = torch.get_num_threads()
    try:
        assert speed.main(["--data", str(tmp_path), "--repeat", "1", "--threads", "1", "--json"]) == 0
    finally:
        torch.set_num_threads(before)
    facts = json.loads(capsys.readouterr().out)
    assert facts["threads"] == 1 and facts["bytes"] == len(api.compress(speed_photo(tmp_path)))
    for direction in ("encoding_ms", "decoding_ms"):
        assert len(facts[direction]) == 5 and min(facts[direction].values()) > 0
        parts = list(facts[direction].values())
        assert parts[4] > 0.5 * parts[0], "the whole contains the autoencoder"
    assert set(facts["compressai_float_ms"]) == {"our networks", "ScaleHyperprior as published"}
    assert facts["peers_ms"]["heif"]["bytes"] > 0
    assert all(rate > 0 for rate in facts["pictures_per_second"].values())
    assert "| heif |" in (text := speed_text(facts)) and aims.speed_table(facts) in text


def test_aims_of_speed():
    facts = {
        "threads": 2,
        "encoding_ms": {"entropy_coding_and_container": 14, "latents_to_file": 61, "photo_to_file": 300},
        "decoding_ms": {"entropy_coding_and_container": 26, "file_to_latents": 55, "file_to_photo": 500},
        "compressai_float_ms": {"our networks": {"latents_to_file": 80, "file_to_latents": 54}},
        "peers_ms": {},
        "start_up_ms": {"live info": 501},
    }
    words = [line.split(" | ")[-1] for line in aims.speed_table(facts).splitlines()[2:]]
    assert words == ["no |", "no |", "no |", "yes |", "yes |", "no |"]
    facts["peers_ms"]["vvc_medium"] = {"photo_to_file": 1500}
    assert aims.speed_table(facts).splitlines()[-1].endswith("| ≥ 5 times | 5.0 times | yes |")


def speed_photo(folder):
    from PIL import ImageOps

    from live.media import read_picture

    return ImageOps.fit(read_picture(folder / "photo.png"), speed.SIZE)


def test_float_path_decodes_what_it_wrote():
    codec = api._codec(2, None)
    path, latents = speed.FloatPath(codec), torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    decoded = path.decompress(path.compress(latents), latents.shape[2:])
    assert (decoded - latents).abs().mean() < 0.2


@pytest.mark.parametrize("arguments", [["compress", "--help"], ["info", "FILE"]])
def test_start_up_does_without_torch(tmp_path, arguments):
    file = tmp_path / "photo.live"
    file.write_bytes(api.compress(photo(32, 32), 1))
    words = [str(file) if word == "FILE" else word for word in arguments]
    script = (
        "import sys; from live.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'compressai'} & set(sys.modules)))"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - start < 10


def test_side_by_side_keeps_the_order_and_overlaps():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=60)

    def work(item: int) -> int:
        assert torch.get_num_threads() == 1
        if item < 2:
            meeting.wait()  # passes only when two are at work together
        time.sleep(0.02 * (3 - item))
        return 10 * item

    try:
        assert list(side_by_side(work, range(4))) == [0, 10, 20, 30]
        assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError):
            list(side_by_side(lambda item: 1 // item, [1, 0, 2]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_ahead_makes_one_item_more_and_not_two():
    made, second = [], threading.Event()

    def items():
        for number in range(5):
            assert threading.current_thread() is not threading.main_thread()
            made.append(number)
            if number == 1:
                second.set()
            yield 10 * number

    taken = []
    for item in ahead(items()):
        assert second.wait(60), "the second item is not made while the first one is in use"
        time.sleep(0.02)  # enough for all of them, were there no bound
        taken.append(item)
        assert len(made) <= len(taken) + 1
    assert taken == [0, 10, 20, 30, 40]


def test_ahead_raises_at_the_item_and_ends_its_thread():
    threads, closed = threading.active_count(), []

    def items(last: int):
        try:
            for number in range(10):
                yield 1 // (last - number)
        finally:
            closed.append(last)

    taken = []
    with pytest.raises(ZeroDivisionError):
        for item in ahead(items(2)):
            taken.append(item)
    assert taken == [0, 1]
    started = ahead(items(20))
    next(started)
    started.close()
    assert closed == [2, 20] and threading.active_count() == threads


def test_ctrl_c_while_the_thread_of_ahead_starts(monkeypatch):
    """A pool that is interrupted there does not know its thread; what makes items is closed all the same."""
    start, closed = threading.Thread.start, []

    def interrupted(thread):
        start(thread)
        time.sleep(0.05)  # enough for the thread to begin what it has been given
        raise KeyboardInterrupt

    def items():
        try:
            time.sleep(0.2)
            yield 0
        finally:
            closed.append(True)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    making = items()
    with pytest.raises(KeyboardInterrupt):
        next(ahead(making))
    assert not closed and next(making, None) is None  # closed before it had begun
