"""Damaged clips, interrupted work: the frame is named, salvage goes on, nothing half-written is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from films import Differences, frames_of, live_clip, make_clip, moving, places, psnr
from PIL import Image
from test_cli import refused
from test_clip_format import flipped

import live
from live import api
from live.__main__ import main
from live.errors import DamagedFile, DecodeMismatch, InputError, OutputError
from live.video import api as clips
from live.video.container import ClipReader, ClipWriter

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("small_live")


@pytest.fixture
def clip(tmp_path) -> Path:
    return live_clip(tmp_path)


def hurt(path: Path, number: int) -> Path:
    """A copy of a clip with one bit of a frame's stream flipped."""
    place, length = places(path)[number]
    copy = path.with_name(f"hurt-{number}.live")
    copy.write_bytes(flipped(path.read_bytes(), 8 * (place + length // 2)))
    return copy


def test_info_of_damaged_clips(tmp_path, clip, capsys):
    assert main(["info", str(hurt(clip, 3)), "--json"]) == 1
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert (facts["frames"], facts["damaged_frames"], facts["first_damaged"]) == (8, 1, [3])
    assert "frame 3 does not have its checksum" in facts["damage"] and facts["damage"] in captured.err
    cut = tmp_path / "cut.live"
    cut.write_bytes(clip.read_bytes()[: sum(places(clip)[5]) + 4])
    assert main(["info", str(cut), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["frames"] == 6 and "frame 6 is cut off" in facts["damage"]
    cut.write_bytes(flipped(clip.read_bytes(), 8 * 20))  # in the header
    assert "header does not have its checksum" in refused(capsys, "info", cut)


def test_damage_is_refused_by_its_frame_before_anything_is_decoded(tmp_path, clip, capsys, monkeypatch):
    monkeypatch.setattr(clips, "decode_picture", lambda *_: pytest.fail("decoded"))
    before = sorted(tmp_path.iterdir())
    for number in range(8):
        damaged = hurt(clip, number)
        said = refused(capsys, "decompress", damaged, "-o", tmp_path / "x.mp4")
        assert f"frame {number} does not have its checksum" in said and "--salvage" in said
        damaged.unlink()
    data = clip.read_bytes()
    cut = tmp_path / "cut.live"
    for length in range(4, len(data), 31):
        cut.write_bytes(data[:length])
        said = refused(capsys, "decompress", cut, "-o", tmp_path / "x.mp4")
        assert "damaged" in said and ("--salvage" in said) == ("header" not in said)
    cut.unlink()
    for limit, words in (
        ("--max-frames", "8 frames, over the limit of 7"),
        ("--max-pixels", "over the limit of 7 pixels"),
    ):
        said = refused(capsys, "decompress", clip, limit, "7")
        assert words in said and "--salvage" not in said
    assert sorted(tmp_path.iterdir()) == before


def test_salvage_repeats_the_last_good_frame(tmp_path, clip, capsys):
    whole = frames_of(clip)
    assert main(["decompress", str(hurt(clip, 3)), "--salvage", "-o", str(tmp_path / "x")]) == 1
    captured = capsys.readouterr()
    assert "8 frames" in captured.out and "lost frames: 1, the first is 3" in captured.err
    found = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "x").iterdir())]
    assert psnr(found, [*whole[:3], whole[2], *whole[4:]]) == np.inf
    assert main(["decompress", str(clip), "--salvage", "-o", str(tmp_path / "y.mp4")]) == 0
    assert "lost frames" not in capsys.readouterr().err
    assert psnr(frames_of(hurt(clip, 0), salvage=True), [whole[1], *whole[1:]]) == np.inf


def test_salvage_of_predicted_frames_waits_for_the_next_intra_frame(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "clip_codec", Differences)
    live.compress_clip(moving(37, 21, 8), tmp_path / "a.live", 2, fps=25)
    with open(tmp_path / "a.live", "rb") as file:
        assert [frame.number for frame in ClipReader(file).frames() if frame.intra] == [0, 3, 6]
    whole = frames_of(tmp_path / "a.live")
    assert psnr(whole, [np.asarray(frame) for frame in moving(37, 21, 8)]) > 15
    assert psnr(frames_of(tmp_path / "a.live", start=4), whole[4:]) == np.inf
    assert psnr(frames_of(hurt(tmp_path / "a.live", 1), salvage=True), [*whole[:1] * 3, *whole[3:]]) == np.inf
    assert (
        psnr(frames_of(hurt(tmp_path / "a.live", 3), salvage=True), [*whole[:3], *whole[2:3] * 3, *whole[6:]]) == np.inf
    )
    assert psnr(frames_of(hurt(tmp_path / "a.live", 7), salvage=True), [*whole[:7], whole[6]]) == np.inf
    with live.clip_frames(hurt(tmp_path / "a.live", 4), 5, salvage=True) as frames:  # 5 hangs on 4, and 3 is good
        assert psnr([np.asarray(frame) for frame in frames], [whole[3], *whole[6:]]) == np.inf
        assert frames.lost == 1
    data = hurt(tmp_path / "a.live", 1).read_bytes()
    (tmp_path / "no index.live").write_bytes(data[:-5])
    with live.clip_frames(tmp_path / "no index.live", salvage=True) as frames:
        assert psnr([np.asarray(frame) for frame in frames], [*whole[:1] * 3, *whole[3:]]) == np.inf
        assert frames.count is None and "the end of the file is lost" in frames.notes[1]


def test_every_truncation_is_salvaged_as_far_as_it_goes(tmp_path, clip):
    whole, ends = frames_of(clip), [place + length for place, length in places(clip)]
    cut, data = tmp_path / "cut.live", clip.read_bytes()
    for length in sorted({end + more for end in ends for more in (-1, 0, 3)} | {len(data) - 1}):
        cut.write_bytes(data[:length])
        expected = whole[: sum(end <= length for end in ends)]
        if not expected:
            with pytest.raises(DamagedFile, match="none of its frames"):
                frames_of(cut, salvage=True)
            continue
        assert psnr(frames_of(cut, salvage=True), expected) == np.inf


def rewritten(path: Path, number: int, alter) -> Path:
    """A copy with one frame's stream and symbols' CRC altered and every other checksum right."""
    copy = path.with_name("rewritten.live")
    with open(path, "rb") as source, open(copy, "wb") as target:
        reader = ClipReader(source)
        writer = ClipWriter(target, reader.header)
        for frame in reader.frames():
            stream, crc = (frame.stream, frame.symbols_crc)
            writer.add(*(alter(stream, crc) if frame.number == number else (stream, crc)), frame.intra)
        writer.finish()
    return copy


def test_symbols_that_are_not_those_written_are_named_by_their_frame(tmp_path, clip, capsys):
    whole = frames_of(clip)
    for alter in (lambda s, c: (s, c ^ 1), lambda s, c: (bytes(len(s)), c), lambda s, c: (b"\xff" * len(s), c)):
        bad = rewritten(clip, 5, alter)
        assert main(["decompress", str(bad), "-o", str(tmp_path / "x.mp4")]) == 2
        said = capsys.readouterr().err.split("\r")[-1]  # behind the progress bar
        assert (
            said.startswith(f"live: {bad}: frame 5: ") and said.count("\n") == 1 and not (tmp_path / "x.mp4").exists()
        )
        assert psnr(frames_of(bad, salvage=True), [*whole[:5], whole[4], *whole[6:]]) == np.inf


def test_the_frames_before_a_bad_one_come_first(tmp_path, clip):
    frames = live.clip_frames(rewritten(clip, 5, lambda stream, crc: (stream, crc ^ 1)))
    before = [np.asarray(next(frames)) for _ in range(5)]
    assert psnr(before, frames_of(clip)[:5]) == np.inf
    with pytest.raises(DecodeMismatch, match="frame 5: "):
        next(frames)
    frames.close()


def test_verify_refuses_what_does_not_decode(tmp_path, monkeypatch):
    (tmp_path / "a.live").write_bytes(b"old")
    monkeypatch.setattr("live.coder._bounded", lambda symbols: symbols)
    encode = api.Write._code
    monkeypatch.setattr(api.Write, "_code", lambda self, symbols, *rest: encode(self, symbols + 1, *rest) - 1)
    with pytest.raises(DecodeMismatch, match=r"frame 0: .*not kept"):
        live.compress_clip(moving(37, 21, 2), tmp_path / "a.live", 1, fps=25, verify=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.live"] and (tmp_path / "a.live").read_bytes() == b"old"


def test_a_source_that_ends_badly_leaves_the_old_file(tmp_path, capsys):
    """A clip that is found to be truncated at its end, and frames that raise."""
    make_clip(tmp_path / "a.mkv", count=20)
    (tmp_path / "cut.mkv").write_bytes((tmp_path / "a.mkv").read_bytes()[:-200])
    (tmp_path / "old.live").write_bytes(b"old")
    before = sorted(tmp_path.iterdir())
    arguments = ["compress", str(tmp_path / "cut.mkv"), "-q", "1", "-o", str(tmp_path / "old.live"), "--force"]
    assert main(arguments) == 2
    assert "damaged or truncated" in capsys.readouterr().err
    with pytest.raises(InputError):
        live.compress_clip([photo(20, 20), "missing.png"], tmp_path / "old.live", 1, fps=25)
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "old.live").read_bytes() == b"old"


def test_a_full_disk_is_said(tmp_path, clip, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    for name in ("x.mp4", "frames"):
        with pytest.raises(OutputError, match="No space left"):
            live.decompress_clip(clip, tmp_path / name)
    with pytest.raises(OutputError, match="No space left"):
        live.compress_clip(moving(37, 21, 2), tmp_path / "b.live", 1, fps=25)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.live"]


@pytest.fixture(scope="module")
def long_clip(small_models, tmp_path_factory) -> Path:
    """A folder with a clip of 500 frames, as ``a.y4m`` and ``a.live``."""
    folder = tmp_path_factory.mktemp("long")
    make_clip(folder / "a.y4m", "-pix_fmt", "yuv420p", size=(64, 48), count=500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVE_CHECKPOINTS", str(small_models))
        live.compress_clip(folder / "a.y4m", folder / "a.live", 1)
    return folder


def holds_a_file_in(folder: Path, process: int) -> bool:
    """Whether a process has a file open there, though it have no name yet; False where there is no /proc."""
    try:
        return any(os.readlink(file).startswith(f"{folder}{os.sep}") for file in Path(f"/proc/{process}/fd").iterdir())
    except OSError:  # the process has closed one meanwhile, or is not yet what it will be
        return False


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(("verb", "source", "output"), [("compress", "a.y4m", "b.live"), ("decompress", "a.live", "b")])
def test_a_kill_while_writing_leaves_nothing(small_models, long_clip, tmp_path, ending, verb, source, output):
    """Nothing under the output's name; what SIGKILL leaves of a folder is hidden."""
    environment = {"LIVE_CHECKPOINTS": str(small_models), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "live", verb, str(long_clip / source), "-o", str(tmp_path / output)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (list(tmp_path.glob(".live-*")) or holds_a_file_in(tmp_path, process.pid)) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(ending)
    _, said = process.communicate(timeout=60)
    left = [path.name for path in tmp_path.iterdir()]
    if ending == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL and all(name.startswith(".live-") for name in left)
    else:
        assert process.returncode == 130 and not left
        assert "live: interrupted; nothing half-written" in said
