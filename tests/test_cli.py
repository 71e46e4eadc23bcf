"""The ``live`` command: what it writes and prints, and every refusal as one line, exit code 2 and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from threading import Thread

import pytest
import torch
from conftest import photo
from PIL import Image
from safetensors.torch import load_file, save_file

import live
from live.__main__ import main

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("small_live")


def refused(capsys, *arguments) -> str:
    """Run the command, expect exit code 2 and one line on stderr; returns the line."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("live: ") and captured.err.count("\n") == 1 and not captured.out
    return captured.err


def test_picture_to_file_and_back(tmp_path, capsys):
    photo(50, 40).save(tmp_path / "photo.png")
    assert main(["compress", str(tmp_path / "photo.png"), "-q", "1"]) == 0
    size = (tmp_path / "photo.live").stat().st_size
    assert f"{size} bytes, {8 * size / 2000:.4f} bpp" in capsys.readouterr().out
    assert main(["decompress", str(tmp_path / "photo.live"), "-o", str(tmp_path / "again.png")]) == 0
    with Image.open(tmp_path / "again.png") as picture:
        assert picture.size == (50, 40)
    assert main(["decompress", str(tmp_path / "photo.live"), "-o", str(tmp_path / "again.jpg")]) == 0
    assert main(["compress", str(tmp_path / "photo.png"), "-q", "2", "--force"]) == 0
    assert (tmp_path / "photo.live").stat().st_size > size


def test_info_is_json_and_text(tmp_path, capsys):
    photo(50, 40).save(tmp_path / "photo.png")
    main(["compress", str(tmp_path / "photo.png"), "-q", "2"])
    capsys.readouterr()
    assert main(["info", str(tmp_path / "photo.live"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["width"], facts["height"], facts["quality"], facts["codec"]) == (50, 40, 2, "live_plus")
    assert facts["kind"] == "picture" and facts["checkpoint_here"] and facts["overhead_bytes"] <= 32
    assert main(["info", str(tmp_path / "photo.live")]) == 0
    assert "live_plus" in capsys.readouterr().out


def test_models_lists_checkpoints_and_autoencoders(capsys):
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [c["quality"] for c in listed["checkpoints"]] == [1, 2]
    assert {"compact", "sd-vae-ft-mse", "taesd"} <= {a["name"] for a in listed["autoencoders"]}
    assert main(["models"]) == 0
    assert "sd-vae-ft-mse" in capsys.readouterr().out


def test_folder_goes_on_after_a_bad_picture(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    photo(20, 20).save(source / "a.png")
    photo(30, 20).save(source / "deep" / "b.jpg")
    (source / "bad.png").write_bytes(b"\x89PNG nothing")
    (source / "moves.mp4").touch()
    assert main(["compress", str(source), "-o", str(target), "-q", "1"]) == 1
    captured = capsys.readouterr()
    *_, left, failed = captured.err.splitlines()
    assert "1 clip or file without a suffix, such as" in left and "bad.png" in failed
    assert "2 pictures" in captured.out
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*.live")) == ["a.png.live", "deep/b.jpg.live"]


def test_a_folder_comes_back(tmp_path, capsys):
    source, packed, back = (tmp_path / name for name in ("in", "packed", "back"))
    (source / "deep").mkdir(parents=True)
    photo(30, 20).save(source / "a.png")
    photo(24, 18).save(source / "deep" / "b.jpg")
    assert main(["compress", str(source), "-o", str(packed), "-q", "1"]) == 0
    (packed / "z.live").write_bytes(live.compress_latents(torch.randn(1, 4, 8, 8), 1))
    assert main(["decompress", str(packed), "-o", str(back)]) == 0
    assert "3 of 3 files" in capsys.readouterr().out
    names = sorted(path.relative_to(back).as_posix() for path in back.rglob("*") if path.is_file())
    assert names == ["a.png.png", "deep/b.jpg.png", "z.safetensors"]
    with Image.open(back / "a.png.png") as picture:
        assert picture.tobytes() == live.decompress((packed / "a.png.live").read_bytes()).tobytes()
    assert load_file(back / "z.safetensors")["latents"].shape == (1, 4, 8, 8)
    # Again: outputs are there already, unless told to replace them; a damaged file stops none of the others.
    assert main(["decompress", str(packed), "-o", str(back)]) == 1
    assert "3 outputs exist already, such as" in (error := capsys.readouterr().err) and error.count("--force") == 1
    (back / "a.png.png").unlink()
    assert main(["decompress", str(packed), "-o", str(back)]) == 1
    captured = capsys.readouterr()
    assert "1 of 3 files" in captured.out and "2 outputs exist already" in captured.err
    (packed / "a.png.live").write_bytes(b"LIV")
    assert main(["decompress", str(packed), "-o", str(back), "--force"]) == 1
    captured = capsys.readouterr()
    assert "a.png.live" in captured.err.splitlines()[-1] and "2 of 3 files" in captured.out


def test_folders_that_cannot_come_back(tmp_path, capsys):
    assert "no .live files" in refused(capsys, "decompress", tmp_path)
    photo(30, 20).save(tmp_path / "a.png")
    assert main(["compress", str(tmp_path), "-q", "1"]) == 0
    assert "needs a folder with -o" in refused(capsys, "decompress", tmp_path, "-o", tmp_path / "a.png")
    assert "--salvage are for clips" in refused(capsys, "decompress", tmp_path, "--salvage")
    assert main(["decompress", str(tmp_path), "--max-pixels", "100"]) == 1
    assert "over the limit" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "a.png.png").exists()
    photo(30, 20).save(tmp_path / "b.png")
    assert "is a file" in refused(capsys, "compress", tmp_path, "-o", tmp_path / "b.png" / "deep")
    assert "would be one clip" in refused(capsys, "compress", tmp_path, "-o", tmp_path / "all.live")


def test_latents_pack_and_unpack(tmp_path):
    latents = torch.randn(1, 4, 12, 16)
    save_file({"x": latents, "y": latents[:, :, :8].contiguous()}, tmp_path / "z.safetensors")
    arguments = ["latents", "pack", str(tmp_path / "z.safetensors"), "--key", "y", "-q", "2"]
    assert main([*arguments, "--vae", "compact"]) == 0
    assert main(["latents", "unpack", str(tmp_path / "z.live"), "-o", str(tmp_path / "again.safetensors")]) == 0
    assert load_file(tmp_path / "again.safetensors")["latents"].shape == (1, 4, 8, 16)
    assert main(["decompress", str(tmp_path / "z.live"), "-o", str(tmp_path / "once_more.safetensors")]) == 0


def test_bad_inputs(tmp_path, capsys):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not a picture")
    photo(60, 60).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:400])
    photo(20, 20).convert("RGBA").save(tmp_path / "opaque.png")
    clear = photo(20, 20).convert("RGBA")
    clear.putalpha(100)
    clear.save(tmp_path / "clear.png")
    (tmp_path / "nothing").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for name in ("missing.png", "empty.png", "text.png", "cut.png", "nothing"):
        assert name in refused(capsys, "compress", tmp_path / name)
    assert "--alpha" in refused(capsys, "compress", tmp_path / "clear.png")
    assert "not a whole number above 0" in refused(capsys, "compress", tmp_path / "whole.png", "--max-pixels=-3")
    assert "unknown quality 99" in refused(capsys, "compress", tmp_path / "whole.png", "-q", "99")
    assert "no checkpoint" in refused(
        capsys, "compress", tmp_path / "whole.png", "--checkpoint", tmp_path / "no.safetensors"
    )
    assert "not a readable" in refused(
        capsys, "compress", tmp_path / "whole.png", "--checkpoint", tmp_path / "text.png"
    )
    assert "known" in refused(capsys, "compress", tmp_path / "whole.png", "--vae", "nonsense")
    assert "does not exist" in refused(capsys, "compress", tmp_path / "whole.png", "-o", tmp_path / "no" / "x.live")
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["compress", str(tmp_path / "opaque.png")]) == 0
    assert main(["compress", str(tmp_path / "clear.png"), "--alpha", "white"]) == 0


def test_bad_files(tmp_path, capsys):
    photo(30, 30).save(tmp_path / "photo.png")
    main(["compress", str(tmp_path / "photo.png"), "-q", "1"])
    data = (tmp_path / "photo.live").read_bytes()
    (tmp_path / "cut.live").write_bytes(data[:-3])
    (tmp_path / "other.live").write_bytes(b"something else entirely")
    (tmp_path / "newer.live").write_bytes(data[:3] + b"\x07" + data[4:])
    (tmp_path / "empty.live").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    assert "damaged" in refused(capsys, "decompress", tmp_path / "cut.live")
    assert "not a LIVE file" in refused(capsys, "decompress", tmp_path / "other.live")
    assert "not a LIVE file" in refused(capsys, "decompress", tmp_path / "empty.live")
    assert "version 7" in refused(capsys, "decompress", tmp_path / "newer.live")
    assert "does not exist" in refused(capsys, "info", tmp_path / "missing.live")
    assert "no picture format" in refused(capsys, "decompress", tmp_path / "photo.live", "-o", tmp_path / "x.xyz")
    assert "over the limit" in refused(capsys, "decompress", tmp_path / "photo.live", "--max-pixels", "100")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device without end")
@pytest.mark.parametrize(
    "verb", [("compress",), ("decompress",), ("info",), ("latents", "pack"), ("latents", "unpack")]
)
def test_devices_are_not_read(verb, capsys):
    assert "is a device" in refused(capsys, *verb, "/dev/zero", *["-o", "x.live"][: 2 * (verb[0] == "compress")])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_once_and_has_no_output_of_its_own(tmp_path, capsys):
    photo(50, 40).save(tmp_path / "photo.png")

    def through(name: str, data: bytes) -> Path:
        os.mkfifo(pipe := tmp_path / name)
        Thread(target=pipe.write_bytes, args=(data,), daemon=True).start()
        return pipe

    pipe = through("a", (tmp_path / "photo.png").read_bytes())
    assert "name the output with -o" in refused(capsys, "compress", pipe)
    assert main(["compress", str(pipe), "-o", str(tmp_path / "photo.live")]) == 0
    pipe = through("b", (tmp_path / "photo.live").read_bytes())
    assert main(["decompress", str(pipe), "-o", str(tmp_path / "again.png")]) == 0
    pipe = through("c", b"....ftypisom")
    assert "if it is a clip" in refused(capsys, "compress", pipe, "-o", tmp_path / "clip.live")
    for verb, name in ((("compress",), "d.mp4"), (("latents", "pack"), "e")):
        os.mkfifo(tmp_path / name)
        assert "save it as one first" in refused(capsys, *verb, tmp_path / name, "-o", tmp_path / "clip.live")


def test_existing_output_needs_force(tmp_path, capsys):
    photo(30, 30).save(tmp_path / "photo.png")
    (tmp_path / "photo.live").write_bytes(b"precious")
    assert "--force" in refused(capsys, "compress", tmp_path / "photo.png")
    assert (tmp_path / "photo.live").read_bytes() == b"precious"


def test_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    from live.errors import OutputError
    from live.files import write_atomic

    (tmp_path / "old.live").write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space"):
        write_atomic(tmp_path / "old.live", b"new")
    assert (tmp_path / "old.live").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["old.live"]


def test_usage_errors_are_one_line(capsys):
    assert "invalid number value" in refused(capsys, "compress", "x.png", "-q", "many")
    assert "required" in refused(capsys)


def test_help_and_info_do_not_load_torch(tmp_path):
    photo(30, 30).save(tmp_path / "photo.png")
    main(["compress", str(tmp_path / "photo.png"), "-q", "1"])
    script = "import sys; from live.__main__ import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules; exit(code)"
    for arguments in (["info", str(tmp_path / "photo.live")], ["models"]):
        done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_process_says_one_line_and_nothing_else(tmp_path):
    """No library's warning joins ours on stderr, neither in success nor in refusal."""
    photo(24, 16).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "live", "compress", str(tmp_path / "a.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command, "-f", "-q", "77"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "unknown quality 77" in done.stderr


def test_names_that_would_lie_are_refused(tmp_path, capsys):
    """-o with a picture's suffix would, with --force, put a LIVE file in the place of the photo itself."""
    source = tmp_path / "photo.png"
    photo(24, 16).save(source)
    before = source.read_bytes()
    assert "must end in .live" in refused(capsys, "compress", source, "-o", source, "--force")
    assert source.read_bytes() == before
    assert main(["compress", str(source)]) == 0
    unpack = ("latents", "unpack", tmp_path / "photo.live", "-o", tmp_path / "latents.png")
    assert "must end in .safetensors" in refused(capsys, *unpack)


def test_refusals_name_the_file(tmp_path, capsys):
    junk = tmp_path / "junk.live"
    junk.write_bytes(b"no such thing")
    for verb in (["info"], ["decompress"], ["latents", "unpack"]):
        assert f"{junk}: not a LIVE file" in refused(capsys, *verb, junk)


@pytest.mark.parametrize("arguments", [("compress", ""), ("compress", "photo.png", "-o", ""), ("info", "")])
def test_an_empty_name_is_not_the_present_folder(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    photo(8, 8).save(tmp_path / "photo.png")
    assert "is a variable not set" in refused(capsys, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_live_file_is_not_compressed_again(tmp_path, capsys):
    (tmp_path / "a.live").write_bytes(b"LIV" + bytes(40))
    assert "is a LIVE file already" in refused(capsys, "compress", tmp_path / "a.live", "-o", tmp_path / "b.live")


def test_completion_offers_the_library():
    assert set(live.__all__) <= set(dir(live)) and all(getattr(live, name) for name in live.__all__)


def test_a_reader_that_goes_away_is_no_failure(tmp_path):
    """Also where output waits in a buffer, as it does without PYTHONUNBUFFERED."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = f"{sys.executable} -m live models | (exec 0<&-; sleep 1)"
    script = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and not done.stderr


def test_a_large_picture_is_read_without_pillows_warning(tmp_path, capsys):
    Image.new("1", (9500, 9500)).save(tmp_path / "large.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "over the limit" in refused(capsys, "compress", tmp_path / "large.png", "--max-pixels", "1000")
