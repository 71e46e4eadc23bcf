"""Clips as LIVE files: the command and the API, frame by frame and with a codec that predicts; damage, salvage, kills, memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from PIL import Image
from test_cli import refused
from test_clip_format import flipped
from test_clips import make_clip, moving, psnr

import live
from live import api
from live.__main__ import main
from live.errors import DamagedFile, DecodeMismatch, InputError, OutputError, UnknownModel
from live.video import api as clips
from live.video.codec import ClipCodec
from live.video.container import ClipReader, ClipWriter
from live.video.source import open_source

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("small_live")


class Differences(ClipCodec):
    """A temporal codec for tests: what a frame's latents differ by from the decoded ones before, every third frame whole."""

    intra_period = 3

    def __init__(self, codec) -> None:
        self._codec = codec

    def encode(self, port, latents, state):
        before = 0 if state is None else state
        coded = self._codec.reconstruct(self._codec.encode(port, latents - before))
        return coded[:, :, : latents.shape[2], : latents.shape[3]] + before

    def decode(self, port, height, width, state):
        latents = self._codec.decode(port, height, width) + (0 if state is None else state)
        return latents, latents

    def symbol_count(self, height, width, intra):
        return self._codec.symbol_count(*self._codec.padded(height, width))


@pytest.fixture
def predicted(monkeypatch) -> None:
    """Clips are coded by differences."""
    monkeypatch.setattr(clips, "clip_codec", Differences)


def frames_of(path: Path, **options) -> list[np.ndarray]:
    with live.clip_frames(path, **options) as frames:
        return [np.asarray(frame) for frame in frames]


def places(path: Path) -> list[tuple[int, int]]:
    with open(path, "rb") as file:
        return [(frame.place, frame.length) for frame in ClipReader(file).frames()]


def hurt(path: Path, number: int) -> Path:
    """A copy of a clip with one bit of a frame's stream flipped."""
    place, length = places(path)[number]
    copy = path.with_name(f"hurt-{number}.live")
    copy.write_bytes(flipped(path.read_bytes(), 8 * (place + length // 2)))
    return copy


@pytest.fixture
def clip(tmp_path) -> Path:
    """A LIVE file of eight frames of 37 x 21."""
    live.compress_clip(moving(37, 21, 8), tmp_path / "clip.live", 2, fps="30000/1001")
    return tmp_path / "clip.live"


def test_there_and_back_by_the_command(tmp_path, capsys):
    make_clip(tmp_path / "a.mp4", rate="30000/1001")
    assert (
        main(["compress", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.live"), "--quality", "2", "--verify"]) == 0
    )
    size = (tmp_path / "b.live").stat().st_size
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'b.live'}: 5 frames, {size} bytes, {8 * size / 5 / 48 / 32:.4f} bpp\n"
    assert "live:" not in captured.err
    assert main(["decompress", str(tmp_path / "b.live")]) == 0
    assert capsys.readouterr().out.endswith("b.mp4: 5 frames, 48 x 32, 30000/1001 a second\n")
    decoded = open_source(tmp_path / "b.mp4")
    assert decoded.properties == open_source(tmp_path / "a.mp4").properties
    for name in ("c.y4m", "frames"):
        assert main(["decompress", str(tmp_path / "b.live"), "-o", str(tmp_path / name)]) == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 5
    assert main(["decompress", str(tmp_path / "b.live"), "-o", str(tmp_path / "d.mp4"), "--lossless"]) == 0
    exact = [np.asarray(frame) for frame in open_source(tmp_path / "d.mp4").frames()]
    assert psnr(exact, frames_of(tmp_path / "b.live")) == np.inf


def test_frames_are_coded_as_pictures_are(clip):
    """Frame by frame a clip is what its pictures are: the same latents, the same pixels."""
    for frame, decoded in zip(moving(37, 21, 8), frames_of(clip), strict=True):
        assert (np.asarray(live.decompress(live.compress(frame, 2))) == decoded).all()


@pytest.mark.parametrize("size", [(1, 1), (37, 21), (64, 48)])
@pytest.mark.parametrize("count", [1, 4])
def test_sizes_and_counts(tmp_path, size, count, predicted):
    done = live.compress_clip(moving(*size, count), tmp_path / "a.live", 2, fps=Fraction(24000, 1001))
    assert (done.frames, done.width, done.height, done.rate) == (count, *size, Fraction(24000, 1001))
    assert done.bytes == (tmp_path / "a.live").stat().st_size
    again = live.decompress_clip(tmp_path / "a.live", tmp_path / "a.mp4")
    assert (again.frames, again.lost, again.notes) == (count, 0, ())
    found = open_source(tmp_path / "a.mp4").properties
    assert (found.width, found.height, found.rate) == (*size, Fraction(24000, 1001))


def test_a_folder_becomes_one_clip_when_it_is_told_its_rate(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(moving(20, 16, 11)):
        frame.save(tmp_path / "in" / f"{number}.png")
    assert main(["compress", str(tmp_path / "in"), "-q", "1", "--fps", "25"]) == 0
    assert "in.live: 11 frames" in capsys.readouterr().out
    assert "--fps 25" in refused(capsys, "compress", tmp_path / "in", "-o", tmp_path / "b.live")
    assert main(["compress", str(tmp_path / "in"), "-o", str(tmp_path / "each"), "-q", "1"]) == 0
    assert len(list((tmp_path / "each").glob("*.live"))) == 11


def test_a_gif_that_moves_is_a_clip_and_one_that_does_not_a_picture(tmp_path, capsys):
    frames = list(moving(20, 16, 4))
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "still.gif")
    assert main(["compress", str(tmp_path / "moves.gif"), "-q", "1"]) == 0
    assert "moves.live: 4 frames" in capsys.readouterr().out
    assert main(["compress", str(tmp_path / "still.gif"), "-q", "1"]) == 0
    assert "frames" not in capsys.readouterr().out


def test_what_is_not_kept_is_one_line(tmp_path, capsys):
    make_clip(tmp_path / "a.mp4", "-c:a", "aac", before=("-f", "lavfi", "-i", "sine=duration=0.2"))
    assert main(["compress", str(tmp_path / "a.mp4"), "-q", "1"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "live:" in line]
    assert [line[line.index("live:") :] for line in said] == [f"live: {tmp_path / 'a.mp4'}: the audio is not kept"]


def test_info_tells_a_clip_without_torch(tmp_path, clip, capsys):
    assert main(["info", str(clip), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    size = clip.stat().st_size
    assert (facts["kind"], facts["frames"], facts["width"], facts["height"]) == ("clip", 8, 37, 21)
    assert (facts["frames_per_second"], facts["seconds"]) == ("30000/1001", 0.267)
    assert (facts["bytes"], facts["bytes_a_frame"]) == (size, round(size / 8, 1))
    assert facts["bpp"] == round(8 * size / 8 / 37 / 21, 5) and facts["shortest_frame"] <= facts["longest_frame"]
    assert (facts["intra_frames"], facts["intra_period"]) == (8, 1)
    assert (facts["codec"], facts["quality"], facts["checkpoint_here"]) == ("live_plus", 2, True)
    assert (facts["damaged_frames"], facts["damage"]) == (0, None)
    assert main(["info", str(clip)]) == 0
    assert "30000/1001" in capsys.readouterr().out
    script = (
        "import sys; from live.__main__ import main\n"
        "code = main(sys.argv[1:])\n"
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, "info", str(clip)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
        assert f"frame {number} does not have its checksum" in refused(
            capsys, "decompress", damaged, "-o", tmp_path / "x.mp4"
        )
        damaged.unlink()
    data = clip.read_bytes()
    cut = tmp_path / "cut.live"
    for length in range(4, len(data), 31):
        cut.write_bytes(data[:length])
        assert "damaged" in refused(capsys, "decompress", cut, "-o", tmp_path / "x.mp4")
    cut.unlink()
    assert "8 frames, over the limit of 7" in refused(capsys, "decompress", clip, "--max-frames", "7")
    assert "over the limit of 100 pixels" in refused(capsys, "decompress", clip, "--max-pixels", "100")
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


def test_salvage_of_predicted_frames_waits_for_the_next_intra_frame(tmp_path, predicted):
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
        assert said.startswith("live: frame 5: ") and said.count("\n") == 1 and not (tmp_path / "x.mp4").exists()
        assert psnr(frames_of(bad, salvage=True), [*whole[:5], whole[4], *whole[6:]]) == np.inf


def test_a_clip_and_a_picture_are_told_apart(tmp_path, clip, capsys):
    with pytest.raises(InputError, match="holds a clip"):
        live.decompress(clip.read_bytes())
    (tmp_path / "p.live").write_bytes(live.compress(photo(30, 20), 1))
    with pytest.raises(InputError, match="no clip"):
        live.clip_frames(tmp_path / "p.live")
    assert "holds a clip" in refused(capsys, "latents", "unpack", clip)
    assert "--salvage are for clips" in refused(capsys, "decompress", tmp_path / "p.live", "--salvage")
    assert "no clip format" in refused(capsys, "decompress", clip, "-o", tmp_path / "x.png")


def test_choices_that_do_not_fit_are_refused(tmp_path, clip, capsys):
    make_clip(tmp_path / "a.mp4")
    before = sorted(tmp_path.iterdir())
    assert "unknown quality 9" in refused(capsys, "compress", tmp_path / "a.mp4", "-q", "9")
    assert "--alpha is for pictures" in refused(capsys, "compress", tmp_path / "a.mp4", "--alpha", "white")
    assert "instead of --target-bpp" in refused(capsys, "compress", tmp_path / "a.mp4", "--target-bpp", "0.1")
    assert "--fps is for folders" in refused(capsys, "compress", tmp_path / "a.mp4", "--fps", "25")
    assert "over the limit of 99 pixels" in refused(capsys, "compress", tmp_path / "a.mp4", "--max-pixels", "99")
    assert "does not exist" in refused(capsys, "compress", tmp_path / "missing.mp4")
    assert "must end in .live" in refused(capsys, "compress", tmp_path / "a.mp4", "-o", tmp_path / "a.mp4", "--force")
    assert "--force" in refused(capsys, "compress", tmp_path / "a.mp4", "-o", clip)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(InputError, match="frames 0 to 7, and no frame 8"):
        live.clip_frames(clip, 8)


def test_another_model_is_named(tmp_path, clip, monkeypatch):
    with open(clip, "rb") as file:
        header = ClipReader(file).header
    with open(tmp_path / "other.live", "wb") as file:
        writer = ClipWriter(file, type(header)(**(vars(header) | {"model": bytes(8)})))
        writer.add(b"stream", 0, True)
        writer.finish()
    with pytest.raises(UnknownModel, match="0000000000000000"):
        live.decompress_clip(tmp_path / "other.live", tmp_path / "x.mp4")


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


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize(("verb", "source", "output"), [("compress", "a.y4m", "b.live"), ("decompress", "a.live", "b")])
def test_a_kill_while_writing_leaves_nothing(small_models, long_clip, tmp_path, ending, verb, source, output):
    """Nothing under the output's name; what SIGKILL leaves is hidden."""
    environment = {"LIVE_CHECKPOINTS": str(small_models), "PATH": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "live", verb, str(long_clip / source), "-o", str(tmp_path / output)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".live-*")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(ending)
    _, said = process.communicate(timeout=60)
    left = [path.name for path in tmp_path.iterdir()]
    if ending == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL and left and all(name.startswith(".live-") for name in left)
    else:
        assert process.returncode == 130 and not left
        assert "live: interrupted; nothing half-written" in said


def test_no_frame_is_kept(tmp_path, monkeypatch):
    """Of forty frames three are alive at any time: the last, this one, and the one that is on its way."""
    seen, most = [], []

    def watched(frame: Image.Image) -> Image.Image:
        seen.append(weakref.ref(frame))
        most.append(sum(reference() is not None for reference in seen))
        return frame

    decode = clips.decode_picture
    monkeypatch.setattr(clips, "decode_picture", lambda *arguments: watched(decode(*arguments)))
    live.compress_clip(map(watched, moving(24, 16, 40)), tmp_path / "a.live", 1, fps=25)
    live.decompress_clip(tmp_path / "a.live", tmp_path / "a.mp4")
    assert len(most) == 80 and max(most) <= 3


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    """300 frames of 64 x 48 would be 2.7 MB of pixels."""
    peaks = {}
    for count in (3, 30, 300):  # the first loads what stays
        make_clip(tmp_path / f"{count}.y4m", "-pix_fmt", "yuv420p", size=(64, 48), count=count)
        tracemalloc.start()
        live.compress_clip(tmp_path / f"{count}.y4m", tmp_path / f"{count}.live", 1)
        live.decompress_clip(tmp_path / f"{count}.live", tmp_path / f"{count}.mp4")
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[300] < 1.1 * peaks[30] + 50_000


@pytest.mark.slow
@pytest.mark.skipif("LIVE_VIDEO" not in os.environ, reason="LIVE_VIDEO names no folder of clips")
def test_a_real_clip_there_and_back(tmp_path):
    source = next(path for path in sorted(Path(os.environ["LIVE_VIDEO"]).rglob("*.mp4")) if "carphone" in path.name)
    done = live.compress_clip(source, tmp_path / "a.live", 2, verify=True)
    live.decompress_clip(tmp_path / "a.live", tmp_path / "a.mp4")
    assert open_source(tmp_path / "a.mp4").properties == open_source(source).properties
    assert sum(1 for _ in open_source(tmp_path / "a.mp4").frames()) == done.frames
