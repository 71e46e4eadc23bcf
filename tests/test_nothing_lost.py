"""A file that does not decode, a bad picture, too little memory, Ctrl-C in a folder job: nothing that was good is lost."""

from __future__ import annotations

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
from live.errors import DecodeMismatch

ROOT = Path(__file__).resolve().parent.parent
OLD = b"old and whole" * 1000


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
        return (
            data[:30] + bytes([data[30] ^ 1]) + data[31:]
            if path.name.startswith(".live-") or path.parts[1] == "proc"
            else data
        )

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
