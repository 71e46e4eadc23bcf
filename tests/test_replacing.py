"""A full disk, a killed process, Ctrl-C: what was there before stays whole, and nothing is left beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from live.command import run
from live.errors import OutputError
from live.files import _nameless, picture_files, replacing, replacing_folder, write_atomic

ROOT = Path(__file__).resolve().parent.parent
OLD, NEW = b"old and whole" * 1000, b"new" * 200_000


def write_in_a_process(path: Path, before: str) -> subprocess.Popen:
    """A process that replaces ``path`` by NEW, after ``before``; it says when it has begun."""
    script = f"""
import os, sys, time, resource
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from live.command import run
from live.files import write_atomic
{before}
def main():
    write_atomic(Path({str(path)!r}), {NEW[:3]!r} * {len(NEW) // 3})
    return 0
sys.exit(run(main))
"""
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


STALL = """
def stall(*_, **__):
    print("written", flush=True)
    time.sleep(60)
"""
BEFORE_THE_RENAME, BEFORE_ANY_NAME = STALL + "os.replace = stall", STALL + "os.replace = os.link = stall"
NAMED = "os.__dict__.pop('O_TMPFILE', None)\n"


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "photo.live"
    path.write_bytes(OLD)
    return path


@pytest.fixture(params=["", NAMED], ids=["without a name", "named"])
def way(request, tmp_path, monkeypatch) -> str:
    """How a file is written before it has its name: what another process runs for that; this one does it likewise."""
    if request.param:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    elif (file := _nameless(tmp_path)) is None:
        pytest.skip("this system or file system has no files without a name")
    else:
        file.close()
    return request.param


def test_replacing_works(old, way):
    before = os.umask(0o026)
    try:
        write_atomic(old, NEW)
    finally:
        os.umask(before)
    assert old.read_bytes() == NEW and list(old.parent.iterdir()) == [old]
    assert old.stat().st_mode & 0o777 == 0o640


def test_a_link_is_replaced_not_followed(old, way):
    link = old.with_name("link.live")
    link.symlink_to(old)
    write_atomic(link, NEW)
    assert link.read_bytes() == NEW and not link.is_symlink() and old.read_bytes() == OLD


def test_what_is_written_can_be_read_before_it_has_its_name(old, way):
    seen = []
    write_atomic(old, NEW, lambda data: seen.append((data, old.read_bytes())))
    assert seen == [(NEW, OLD)]


def test_a_full_disk_leaves_the_old_file_alone(old, way):
    """A limit of the file size fails the write halfway, as a full disk does."""
    halfway = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(NEW) // 2}, {len(NEW) // 2}))"
    process = write_in_a_process(old, f"{way}import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {halfway}")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith(f"live: cannot write {old}: ") and said.count("\n") == 1
    assert old.read_bytes() == OLD and list(old.parent.iterdir()) == [old]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always full device")
def test_no_space_left_is_said(old, monkeypatch):
    monkeypatch.setattr("live.files._nameless", lambda folder: open("/dev/full", "w+b"))  # noqa: SIM115
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomic(old, NEW)
    assert old.read_bytes() == OLD and list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize(
    ("begin", "where"), [(replacing, "live.files.open"), (replacing_folder, "live.files.Path.mkdir")]
)
def test_ctrl_c_just_after_the_output_was_begun_leaves_nothing(tmp_path, monkeypatch, begin, where):
    """As a signal may come before the call that made it has returned."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)  # without a name there is nothing to leave
    make = open if begin is replacing else Path.mkdir

    def interrupted(path, *mode):
        made = make(path, *mode)
        assert Path(path).exists()
        if mode:
            made.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt), begin(tmp_path / "out"):
        pass
    assert not list(tmp_path.iterdir())


def test_what_is_left_of_a_folder_is_not_read(tmp_path):
    """As a killed process leaves it, with whole pictures in it."""
    (tmp_path / "a.png").touch()
    temporary = replacing_folder(tmp_path / "frames")
    (temporary.__enter__() / "000000.png").touch()
    assert list(tmp_path.glob(".live-*/000000.png"))
    assert picture_files(tmp_path) == [tmp_path / "a.png"]


def killed_while_stalled(process: subprocess.Popen) -> None:
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.wait()
    process.communicate()


def test_a_killed_process_leaves_the_old_file_whole(old, way):
    """And nothing else; or, named, what is hidden and nothing reads: not a later write, nor a folder job."""
    killed_while_stalled(write_in_a_process(old, way + BEFORE_ANY_NAME))
    assert old.read_bytes() == OLD
    left = [path for path in old.parent.iterdir() if path != old]
    assert bool(left) == bool(way) and all(path.name.startswith(".live-") and not path.suffix for path in left)
    write_atomic(old, NEW)
    assert old.read_bytes() == NEW


CLIP_IN_A_PROCESS = """
import sys, time
from fractions import Fraction
from pathlib import Path
from PIL import Image
from live.video.properties import Properties
from live.video.sink import open_sink
with open_sink(Path(sys.argv[1]), Properties(64, 48, Fraction(25)), lossless=False) as sink:
    for number in range(100):
        sink.write(Image.new("RGB", (64, 48), (number, 0, 0)))
    print("written", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("way", [""], indirect=True)
def test_a_killed_process_leaves_no_part_of_a_clip(old, way):
    """ffmpeg, which writes it, ends by itself."""
    clip = old.rename(old.with_suffix(".mp4"))
    command = [sys.executable, "-c", CLIP_IN_A_PROCESS, str(clip)]
    killed_while_stalled(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    time.sleep(0.5)
    assert clip.read_bytes() == OLD and list(clip.parent.iterdir()) == [clip]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_ctrl_c_leaves_the_old_file_and_nothing_else(old, way, ending):
    """So do kill, a terminal that is closed, and Ctrl-\\."""
    process = write_in_a_process(old, way + BEFORE_THE_RENAME)
    assert process.stdout.readline() == "written\n"
    process.send_signal(ending)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said == "live: interrupted; nothing half-written\n"
    assert old.read_bytes() == OLD and list(old.parent.iterdir()) == [old]


def test_ctrl_c_waits_for_the_end_of_an_import(tmp_path, monkeypatch, capsys):
    """torch and numpy are left unusable by one in the middle, and end in tracebacks."""
    (tmp_path / "interrupted_module.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(signal.SIGINT)

    def main() -> int:
        import interrupted_module

        assert interrupted_module.whole
        time.sleep(60)
        return 0

    assert run(main) == 130 and capsys.readouterr().err == "live: interrupted; nothing half-written\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_nohup_stays_deaf():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
