"""Clips as LIVE files: the command and the API, frame by frame and with a codec that predicts; damage, salvage, kills, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from films import DEFAULT, Differences, frames_of, live_clip, make_clip, moving, psnr
from PIL import Image
from test_cli import refused

import live
from live.__main__ import main
from live.errors import InputError, UnknownModel
from live.video import api as clips
from live.video import encoder
from live.video.container import ClipReader, ClipWriter
from live.video.source import open_source

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("small_live")


@pytest.fixture
def clip(tmp_path) -> Path:
    return live_clip(tmp_path)


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
def test_sizes_and_counts(tmp_path, size, count, monkeypatch):
    """Also of predicted frames."""
    monkeypatch.setattr(clips, "clip_codec", Differences)
    done = live.compress_clip(moving(*size, count), tmp_path / "a.live", 2, fps=Fraction(24000, 1001))
    assert (done.frames, done.width, done.height, done.rate) == (count, *size, Fraction(24000, 1001))
    assert done.bytes == (tmp_path / "a.live").stat().st_size
    again = live.decompress_clip(tmp_path / "a.live", tmp_path / "a.mp4")
    assert (again.frames, again.lost, again.notes) == (count, 0, ())
    found = open_source(tmp_path / "a.mp4").properties
    assert (found.width, found.height, found.rate) == (*size, Fraction(24000, 1001))


def test_the_intra_period_is_chosen(tmp_path, monkeypatch, capsys):
    make_clip(tmp_path / "a.mp4", count=9)
    monkeypatch.setattr(clips, "clip_codec", Differences)
    for options, intra in (((), [0, 3, 6]), (("--intra-period", "4"), [0, 4, 8]), (("--intra-period", "99"), [0])):
        assert main(["compress", str(tmp_path / "a.mp4"), "--quality", "2", "--force", "--verify", *options]) == 0
        with open(tmp_path / "a.live", "rb") as file:
            reader = ClipReader(file)
            assert [frame.number for frame in reader.frames() if frame.intra] == intra
            assert reader.header.intra_period == int(options[1] if options else 3)
    (tmp_path / "a.live").unlink()
    for wrong in ("0", "-1", "2147483648"):
        said = refused(capsys, "compress", tmp_path / "a.mp4", f"--intra-period={wrong}")
        assert "must be 1 to 2147483647 frames" in said
    with pytest.raises(InputError, match=r"must be 1 to 2147483647 frames, not 2\.5"):
        live.compress_clip(tmp_path / "a.mp4", tmp_path / "a.live", intra_period=2.5)
    assert not (tmp_path / "a.live").exists()


def test_a_frame_that_is_dear_to_predict_becomes_an_intra_frame(tmp_path, monkeypatch, capsys):
    """At a cut, once; decoding may begin there."""
    monkeypatch.setattr(clips, "clip_codec", Differences)
    make_clip(tmp_path / "a.mp4", "-vf", "negate=enable='gte(n,4)'", *DEFAULT, count=9)
    size = {}
    for options, intra in (((), [0, 4]), (("--no-scene-cuts",), [0])):
        common = ["--quality", "2", "--force", "--verify", "--intra-period", "6"]
        assert main(["compress", str(tmp_path / "a.mp4"), *common, *options]) == 0
        size[options] = (tmp_path / "a.live").stat().st_size
        with open(tmp_path / "a.live", "rb") as file:
            numbers = [frame.number for frame in ClipReader(file).frames() if frame.intra]
        assert numbers == [*intra, *([6] if options else [])], "the period counts from the cut"
        whole = frames_of(tmp_path / "a.live")
        assert all((a == b).all() for a, b in zip(whole[5:], frames_of(tmp_path / "a.live", start=5), strict=True))
    assert size[()] < size[("--no-scene-cuts",)]
    photo(20, 20).save(tmp_path / "a.png")
    assert "is no clip" in refused(capsys, "compress", tmp_path / "a.png", "--no-scene-cuts")


@pytest.mark.parametrize("broken", ["out of bounds", "far off", "not a number"])
def test_a_frame_that_cannot_be_predicted_is_an_intra_frame(tmp_path, monkeypatch, broken):
    """Networks of products can run away on a frame that is unlike all that they were trained on."""

    class RunsAway(Differences):
        """Fails on the third frame."""

        count, intra_period = 0, 9

        def encode(self, port, latents, state):
            self.count += 1
            if self.count != 3:
                return super().encode(port, latents, state)
            if broken == "out of bounds":
                return super().encode(port, latents + 1e9, state)
            return super().encode(port, latents, state) + (1e3 if broken == "far off" else float("nan"))

    monkeypatch.setattr(clips, "clip_codec", RunsAway)
    make_clip(tmp_path / "a.mp4", count=6)
    assert main(["compress", str(tmp_path / "a.mp4"), "-q", "2", "--no-scene-cuts"]) == 0
    with open(tmp_path / "a.live", "rb") as file:
        assert [frame.number for frame in ClipReader(file).frames() if frame.intra] == [0, 2]
    assert len(frames_of(tmp_path / "a.live")) == 6


def test_an_intra_period_is_refused_where_it_means_nothing(tmp_path, capsys):
    make_clip(tmp_path / "a.mp4")
    photo(20, 20).save(tmp_path / "a.png")
    assert "every frame an intra frame" in refused(capsys, "compress", tmp_path / "a.mp4", "--intra-period", "5")
    assert "is no clip" in refused(capsys, "compress", tmp_path / "a.png", "--intra-period", "5")
    assert not list(tmp_path.glob("*.live"))


def test_a_folder_becomes_one_clip_when_it_is_told_its_rate(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(moving(20, 16, 11)):
        frame.save(tmp_path / "in" / f"{number}.png")
    assert main(["compress", str(tmp_path / "in"), "-q", "1", "--fps", "25"]) == 0
    assert "in.live: 11 frames" in capsys.readouterr().out
    assert "--fps 25" in refused(capsys, "compress", tmp_path / "in", "-o", tmp_path / "b.live")
    assert main(["compress", str(tmp_path / "in"), "-o", str(tmp_path / "each"), "-q", "1"]) == 0
    assert len(list((tmp_path / "each").glob("*.live"))) == 11


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_a_picture_that_moves_is_a_clip_and_one_that_does_not_a_picture(tmp_path, capsys, suffix):
    frames = list(moving(20, 16, 4))
    moves, still = tmp_path / f"moves.{suffix}", tmp_path / f"still.{suffix}"
    frames[0].save(moves, save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(still)
    assert main(["compress", str(moves), "-q", "1"]) == 0
    assert "moves.live: 4 frames" in capsys.readouterr().out
    assert main(["compress", str(still), "-q", "1"]) == 0
    assert "frames" not in capsys.readouterr().out
    frames[0].save(moves, save_all=True, append_images=frames[1:2], duration=100)  # whose rate ffmpeg does not know
    assert main(["compress", str(moves), "-q", "1", "--force"]) == 0
    assert "moves.live: 2 frames" in capsys.readouterr().out and open_source(moves).properties.rate == 10


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


def test_a_clip_and_a_picture_are_told_apart(tmp_path, clip, capsys):
    with pytest.raises(InputError, match="holds a clip"):
        live.decompress(clip.read_bytes())
    (tmp_path / "p.live").write_bytes(live.compress(photo(30, 20), 1))
    with pytest.raises(InputError, match="no clip"):
        live.clip_frames(tmp_path / "p.live")
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


def test_no_frame_is_kept(tmp_path, monkeypatch):
    """Of forty frames three are alive at any time: the last, this one, and the one that is on its way."""
    seen, most = [], []

    def watched(frame: Image.Image) -> Image.Image:
        seen.append(weakref.ref(frame))
        most.append(sum(reference() is not None for reference in seen))
        return frame

    decode = clips.decode_picture
    monkeypatch.setattr(clips, "decode_picture", lambda *arguments, **named: watched(decode(*arguments, **named)))
    live.compress_clip(map(watched, moving(24, 16, 40)), tmp_path / "a.live", 1, fps=25)
    live.decompress_clip(tmp_path / "a.live", tmp_path / "a.mp4")
    assert len(most) == 80 and max(most) <= 3


def test_autoencoder_and_codec_work_at_the_same_time(tmp_path, monkeypatch):
    """Each waits with the first frame until the other has had the second, so one after the other would never end well."""
    analysed, read = threading.Semaphore(0), threading.Semaphore(0)

    def then(release: threading.Semaphore, work):
        def done(*arguments):
            result = work(*arguments)
            release.release()
            return result

        return done

    def behind(wait: threading.Semaphore, work):
        waits = iter([True])

        def done(*arguments, **named):
            if next(waits, False):
                assert all(wait.acquire(timeout=60) for _ in range(2)), "the next frame is not on its way"
            return work(*arguments, **named)

        return done

    monkeypatch.setattr(encoder, "encode_picture", then(analysed, encoder.encode_picture))
    monkeypatch.setattr(encoder.Write, "stream", behind(analysed, encoder.Write.stream))
    monkeypatch.setattr(clips.ClipFrames, "_latents", then(read, clips.ClipFrames._latents))
    monkeypatch.setattr(clips, "decode_picture", behind(read, clips.decode_picture))
    live.compress_clip(moving(24, 16, 3), tmp_path / "a.live", 1, fps=25)
    assert len(frames_of(tmp_path / "a.live")) == 3


def test_a_clip_that_is_left_early_leaves_no_thread(tmp_path, clip):
    threads = threading.active_count()
    with live.clip_frames(clip) as frames:
        next(frames)
    assert threading.active_count() == threads
    assert next(frames, None) is None


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
