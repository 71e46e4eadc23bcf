"""A full disk, a killed process, Ctrl-C, a file that does not decode, a bad picture: what was there before stays whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import photo
from safetensors.torch import save_file

from live import api
from live.__main__ import main
from live.command import run
from live.errors import DecodeMismatch, OutputError
from live.files import replacing, replacing_folder, write_atomic

ROOT = Path(__file__).resolve().parent.parent
OLD, NEW = b"old and whole" * 1000, b"new" * 200_000


def write_in_a_process(path: Path, before: str) -> subprocess.Popen:
    """A process that replaces ``path`` by NEW, after ``before``; it says when it has begun."""
    script = f"""
import os, sys, time, resource
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from live.command import run
from live.files import replacing, replacing_folder, write_atomic
{before}
def main():
    write_atomic(Path({str(path)!r}), {NEW[:3]!r} * {len(NEW) // 3})
    return 0
sys.exit(run(main))
"""
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


STALL_BEFORE_THE_RENAME = """
def stall(*_):
    print("written", flush=True)
    time.sleep(60)
os.replace = stall
"""


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "photo.live"
    path.write_bytes(OLD)
    return path


def test_replacing_works(old):
    write_atomic(old, NEW)
    assert old.read_bytes() == NEW and list(old.parent.iterdir()) == [old]


def test_a_full_disk_leaves_the_old_file_alone(old):
    """A limit of the file size fails the write halfway, as a full disk does."""
    halfway = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(NEW) // 2}, {len(NEW) // 2}))"
    process = write_in_a_process(old, f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); {halfway}")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said.startswith(f"live: cannot write {old}: ") and said.count("\n") == 1
    assert old.read_bytes() == OLD and list(old.parent.iterdir()) == [old]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always full device")
def test_no_space_left_is_said(old, monkeypatch):
    monkeypatch.setattr("live.files.open", lambda path, mode: open("/dev/full", "w+b"), raising=False)  # noqa: SIM115
    with pytest.raises(OutputError, match="No space left on device"):
        write_atomic(old, NEW)
    assert old.read_bytes() == OLD and list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize(
    ("begin", "where"), [(replacing, "live.files.open"), (replacing_folder, "live.files.Path.mkdir")]
)
def test_ctrl_c_just_after_the_output_was_begun_leaves_nothing(tmp_path, monkeypatch, begin, where):
    """As a signal may come before the call that made it has returned."""
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


def test_a_killed_process_leaves_the_old_file_whole(old):
    """What it leaves beside it is hidden, and nothing reads it: not a later write, nor a folder job."""
    process = write_in_a_process(old, STALL_BEFORE_THE_RENAME)
    assert process.stdout.readline() == "written\n"
    process.kill()
    process.wait()
    process.communicate()
    assert old.read_bytes() == OLD
    left = [path for path in old.parent.iterdir() if path != old]
    assert left and all(path.name.startswith(".live-") and not path.suffix for path in left)
    write_atomic(old, NEW)
    assert old.read_bytes() == NEW


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_ctrl_c_leaves_the_old_file_and_nothing_else(old, ending):
    """So do kill, a terminal that is closed, and Ctrl-\\."""
    process = write_in_a_process(old, STALL_BEFORE_THE_RENAME)
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


@pytest.mark.slow
def test_ctrl_c_in_a_folder_job(small_models, tmp_path):
    """The files that were finished stay, the one at work leaves nothing."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(240):
        photo(200, 150, number).save(source / f"{number:03d}.bmp")
    command = [sys.executable, "-m", "live", "compress", str(source), "-o", str(target), "-q", "1"]
    environment = {"LIVE_CHECKPOINTS": str(small_models), "PATH": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(target.glob("*.live")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.splitlines()[-1].startswith("live: interrupted")
    written = sorted(target.iterdir())
    assert 0 < len(written) < 240 and all(path.suffix == ".live" for path in written)
    assert all(api.unpack(path.read_bytes()).width == 200 for path in written)


def compress(*arguments: object) -> int:
    return main(["compress", *map(str, arguments)])


def test_verify_decodes_what_was_written(small_live, tmp_path, monkeypatch, capsys):
    photo(40, 30).save(tmp_path / "photo.png")
    save_file({"x": torch.randn(1, 4, 8, 8)}, tmp_path / "z.safetensors")
    seen, limits = [], []
    for name in ("decompress", "decompress_latents"):
        decode = getattr(api, name)

        def watched(data, _decode=decode, **how):
            seen.append(data)
            limits.append(how["max_pixels"])
            return _decode(data, **how)

        monkeypatch.setattr(api, name, watched)
    assert compress(tmp_path / "photo.png", "-q", "1", "--verify") == 0
    assert compress(tmp_path / "z.safetensors", "-q", "1", "--verify") == 0
    assert seen == [(tmp_path / name).read_bytes() for name in ("photo.live", "z.live")]
    assert min(limits) > 1 << 40, "what --max-pixels let in is not refused when it is verified"


def test_verify_refuses_what_does_not_decode(small_live, tmp_path, monkeypatch, capsys):
    """The old file stays, also under --force: the new one is refused before the rename."""
    photo(40, 30).save(tmp_path / "photo.png")
    (tmp_path / "photo.live").write_bytes(OLD)
    monkeypatch.setattr("live.coder._bounded", lambda symbols: symbols)  # a coder that writes what it was not given
    code = api.Write.code
    monkeypatch.setattr(api.Write, "code", lambda self, symbols, *rest: code(self, symbols + (symbols == 0), *rest))
    encode = api.Write._code
    monkeypatch.setattr(api.Write, "_code", lambda self, symbols, *rest: encode(self, symbols, *rest) + 1)
    assert compress(tmp_path / "photo.png", "-q", "1", "--force", "--verify") == 2
    said = capsys.readouterr().err
    assert (
        said.startswith(f"live: {tmp_path / 'photo.png'}: what was written does not decode") and said.count("\n") == 1
    )
    assert (tmp_path / "photo.live").read_bytes() == OLD
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.live", "photo.png"]


def test_verify_notices_a_disk_that_returns_other_bytes(small_live, tmp_path, monkeypatch, capsys):
    photo(40, 30).save(tmp_path / "photo.png")
    read = Path.read_bytes

    def rotten(path: Path) -> bytes:
        data = read(path)
        return data[:30] + bytes([data[30] ^ 1]) + data[31:] if path.name.startswith(".live-") else data

    monkeypatch.setattr(Path, "read_bytes", rotten)
    assert compress(tmp_path / "photo.png", "-q", "1", "--verify") == 2
    assert "not kept" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    "failure", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate"), DecodeMismatch("so")]
)
def test_a_folder_job_goes_on_and_names_every_failure(small_live, tmp_path, monkeypatch, capsys, failure):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        photo(40 + 8 * (name == "b"), 32).save(source / f"{name}.png")
    honest = api.compress

    def fails_on_one(image, *arguments, **options):
        if image.width == 48:
            raise failure
        return honest(image, *arguments, **options)

    monkeypatch.setattr(api, "compress", fails_on_one)
    assert compress(source, "-o", target, "-q", "1") == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1].startswith(f"live: {source / 'b.png'}: ")
    assert "2 pictures" in captured.out
    assert sorted(path.name for path in target.iterdir()) == ["a.png.live", "c.png.live"]


def test_a_folder_job_goes_on_after_a_name_that_grows_too_long(small_live, tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "l" * 248):
        photo(40, 32).save(source / f"{name}.png")
    assert compress(source, "-o", target, "-q", "1") == 1
    captured = capsys.readouterr()
    assert "File name too long" in captured.err.splitlines()[-1] and "1 picture," in captured.out
    assert [path.name for path in target.iterdir()] == ["a.png.live"]


def test_a_folder_job_on_a_full_disk_names_every_picture(small_live, tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b"):
        photo(40, 32).save(source / f"{name}.png")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert compress(source, "-o", target, "-q", "1") == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("live: ")]
    assert len(said) == 2 and all("No space left" in line for line in said)
    assert not list(target.iterdir())


def test_too_little_memory_is_said_in_words(small_live, tmp_path, monkeypatch, capsys):
    photo(40, 32).save(tmp_path / "a.png")

    def greedy(*_, **__):
        torch.empty(1 << 50)

    monkeypatch.setattr(api, "compress", greedy)
    assert compress(tmp_path / "a.png") == 2
    assert capsys.readouterr().err == "live: not enough memory for a picture of this size\n"
