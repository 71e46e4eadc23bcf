"""Clips in and out: frames, rate, size and colours survive; what is not kept is said; what is no clip is refused in words."""

from __future__ import annotations

import os
import subprocess
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from conftest import photo
from films import RATE, make_clip, moving, psnr, read, write

import live
from live.errors import InputError, OutputError
from live.video.ffmpeg import binary
from live.video.properties import Colour, Properties
from live.video.sink import check_clip_output, open_sink
from live.video.source import open_source, parse_rate


@pytest.mark.parametrize("size", [(48, 32), (37, 21), (36, 21), (37, 20), (1, 1), (2, 3)])
@pytest.mark.parametrize("name", ["a.mp4", "a.y4m", "frames"])
@pytest.mark.parametrize("lossless", [False, True])
def test_what_is_written_is_read_back(tmp_path, name, size, lossless):
    written = Properties(*size, RATE)
    frames = write(tmp_path / name, written, lossless)
    found, again, notes = read(tmp_path / name, **({} if "." in name else {"fps": RATE}))
    assert (found.width, found.height, found.rate, found.aspect) == (*size, RATE, 1)
    assert len(again) == 5 and not notes
    if lossless or name == "frames":
        assert psnr(again, frames) == np.inf
    else:
        assert psnr(again, frames) > (36 if min(size) > 4 else 25)
    if "." in name and not lossless:
        assert found.colour == Colour(1, False)


def test_one_frame(tmp_path):
    for name in ("a.mp4", "a.mkv", "a.y4m"):
        found, frames, _ = read(make_clip(tmp_path / name, count=1, rate="30000/1001"))
        assert found.rate == RATE and len(frames) == 1


@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "12", "120", "7/2", "384/25"])
def test_frame_rates_are_exact(tmp_path, rate):
    for name in ("a.mp4", "a.y4m"):
        properties = Properties(16, 16, Fraction(rate))
        write(tmp_path / name, properties, count=7)
        found, frames, notes = read(tmp_path / name)
        assert found.rate == Fraction(rate) and len(frames) == 7 and not notes


def test_a_variable_frame_rate_is_made_constant_and_said(tmp_path):
    keep = "select='not(eq(n,3))*not(eq(n,4))',setpts=PTS"
    path = make_clip(tmp_path / "a.mkv", "-vf", keep, "-fps_mode", "vfr", "-crf", "4", count=10)
    found, frames, notes = read(path)
    assert found.rate == 25 and len(frames) == 10
    assert notes == ["its frame rate varies: 2 frames were repeated and 0 dropped for a constant 25"]
    assert psnr(frames[3:5], [frames[2]] * 2) == np.inf


def test_audio_is_dropped_and_said(tmp_path):
    tone = ("-f", "lavfi", "-i", "sine=duration=0.2")
    _, frames, notes = read(make_clip(tmp_path / "a.mp4", "-c:a", "aac", before=tone))
    assert notes == ["the audio is not kept"] and len(frames) == 5


def test_audio_that_begins_earlier_repeats_no_frame(tmp_path):
    tone = ("-f", "lavfi", "-i", "sine=duration=1")
    late = ("-filter_complex", "[0:v]setpts=PTS+0.5/TB[v]", "-map", "[v]", "-map", "1:a", "-fps_mode", "passthrough")
    _, frames, notes = read(make_clip(tmp_path / "a.mp4", *late, "-c:a", "aac", before=tone))
    assert notes == ["the audio is not kept"] and 4 <= len(frames) <= 5  # older ffmpegs write one less


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("a.mov", ("-c:v", "png", "-pix_fmt", "rgba")),
        ("a.webm", ("-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0")),
    ],
)
def test_transparency_is_said(tmp_path, name, coding):
    _, frames, notes = read(make_clip(tmp_path / name, *coding))
    assert notes == ["transparency, if it has any, is not kept"] and len(frames) == 5


def test_a_turned_clip_is_upright(tmp_path):
    make_clip(tmp_path / "a.mp4")
    command = [binary(), "-loglevel", "error", "-display_rotation", "90", "-i", str(tmp_path / "a.mp4"), "-c", "copy"]
    subprocess.run([*command, str(tmp_path / "b.mp4")], check=True)
    assert read(tmp_path / "b.mp4")[1][0].shape == (48, 32, 3)


def refusal(source: object, **options) -> str:
    with pytest.raises(InputError) as caught:
        read(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_clip_is_refused_in_words(tmp_path):
    (tmp_path / "text.mp4").write_text("not a clip")
    (tmp_path / "empty.mp4").write_bytes(b"")
    make_clip(tmp_path / "whole.mp4")
    (tmp_path / "head.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:200])
    sound = [binary(), "-loglevel", "error", "-f", "lavfi", "-i", "sine=duration=0.2", str(tmp_path / "sound.mp4")]
    subprocess.run(sound, check=True)
    (tmp_path / "nothing").mkdir()
    assert "does not exist" in refusal(tmp_path / "missing.mp4")
    assert "not a clip that can be read" in refusal(tmp_path / "text.mp4")
    assert "empty (0 bytes)" in refusal(tmp_path / "empty.mp4")
    assert "not a clip that can be read" in refusal(tmp_path / "head.mp4")
    assert "has no video stream, only audio" in refusal(tmp_path / "sound.mp4")
    assert "no pictures in" in refusal(tmp_path / "nothing", fps=25)
    assert "48 x 32, over the limit of 1000 pixels" in refusal(tmp_path / "whole.mp4", max_pixels=1000)
    assert "--fps is for folders" in refusal(tmp_path / "whole.mp4", fps=25)
    assert "int is not a clip" in refusal(5)
    assert "holds no frames" in refusal([], fps=25)


def test_a_cover_picture_is_not_a_clip(tmp_path):
    photo(32, 32).save(tmp_path / "cover.png")
    sound = ["-f", "lavfi", "-i", "sine=duration=0.2", "-i", str(tmp_path / "cover.png"), "-map", "0", "-map", "1"]
    command = [binary(), "-loglevel", "error", *sound, "-c:v", "copy", "-disposition:v:0", "attached_pic"]
    subprocess.run([*command, str(tmp_path / "song.mp4")], check=True)
    assert "has no video stream, only audio" in refusal(tmp_path / "song.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m", "a.avi", "a.webm"])
def test_truncated_clips_are_refused(tmp_path, name):
    first = ("-movflags", "+faststart") if name == "a.mp4" else ()
    codec = {"a.avi": ["-c:v", "mpeg4"], "a.webm": ["-c:v", "libvpx-vp9"]}.get(name, [])
    data = make_clip(tmp_path / name, *codec, *first, "-pix_fmt", "yuv420p", count=20).read_bytes()
    assert len(read(tmp_path / name)[1]) == 20
    for share in (0.5, 0.8, 0.95):  # of so short a clip the first may end within the first frame
        (tmp_path / f"cut-{name}").write_bytes(data[: int(share * len(data))])
        said = refusal(tmp_path / f"cut-{name}")
        assert "is damaged or truncated (" in said or "is not a clip that can be read (" in said
    assert "is damaged or truncated (" in said


def test_folders_go_by_the_numbers_in_their_names(tmp_path):
    frames = list(moving(20, 16, 12))
    for number, frame in enumerate(frames):
        frame.save(tmp_path / f"frame {number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    found, again, _ = read(tmp_path, fps="24000/1001")
    assert found == Properties(20, 16, Fraction(24000, 1001), colour=Colour(0, True))
    assert psnr(again, [np.asarray(frame) for frame in frames]) == np.inf
    assert "how many frames a second" in refusal(tmp_path)
    photo(20, 16).save(tmp_path / "frame 12\u00b2.png")  # a digit that is no number
    assert len(read(tmp_path, fps=25)[1]) > 1
    photo(21, 16).save(tmp_path / "frame 12.png")
    assert "frame 12.png is 21 x 16, and the frames before are 20 x 16" in refusal(tmp_path, fps=25)
    (tmp_path / "frame 12.png").write_bytes(b"\x89PNG nothing")
    assert "frame 12.png" in refusal(tmp_path, fps=25)


def test_pictures_in_a_row_are_a_clip():
    frames = [np.asarray(frame) for frame in moving(20, 16, 3)]
    found, again, _ = read(iter(frames), fps=25)
    assert found.rate == 25 and psnr(again, frames) == np.inf
    assert "frame 1 of the clip is 16 x 16" in refusal([photo(20, 16), photo(16, 16)], fps=25)


def test_rates_in_words():
    assert parse_rate("30000/1001") == RATE and parse_rate(29.97) == parse_rate("29.97") == Fraction(2997, 100)
    for text in ("fast", "0", "-25", "1/0", "1e99", ""):
        with pytest.raises(InputError, match="frame rate"):
            parse_rate(text)


def test_names_are_names(tmp_path):
    """Not patterns of numbered pictures, protocols or options."""
    for name in ("clip%03d.mp4", "concat:a.mp4", "-i.mp4", "a'b [c];d.mp4"):
        make_clip(tmp_path / "plain.mp4").rename(tmp_path / name)
        here = os.getcwd()
        os.chdir(tmp_path)
        try:
            assert len(read(Path(name))[1]) == 5
        finally:
            os.chdir(here)


def test_a_playlist_opens_no_network(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    assert "not a clip that can be read" in refusal(tmp_path / "list.m3u8")


def test_a_playlist_opens_no_other_file(tmp_path):
    make_clip(tmp_path / "private.mp4")
    (tmp_path / "clip.mp4").write_text("ffconcat version 1.0\nfile private.mp4\n")
    assert "is a list of other files (concat), not a clip" in refusal(tmp_path / "clip.mp4")


def test_outputs_are_checked(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    (tmp_path / "old.mp4").write_bytes(b"old")
    (tmp_path / "empty").mkdir()
    check_clip_output(tmp_path / "empty", False)
    check_clip_output(tmp_path / "old.mp4", True)
    for name, force, words in (
        ("a.avi", False, "no clip format"), ("old.mp4", False, "--force"), ("full", True, "not empty"),
        ("no/a.mp4", True, "does not exist"),
    ):  # fmt: skip
        with pytest.raises(OutputError, match=words):
            check_clip_output(tmp_path / name, force)


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    """A frame of another size, an interruption, an ffmpeg that ends: the old file stays."""
    (tmp_path / "a.mp4").write_bytes(b"old")
    properties = Properties(48, 32, RATE)
    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / "a.mp4", properties, False) as sink:
        sink.write(photo(48, 32))
        raise KeyboardInterrupt
    with (
        pytest.raises(OutputError, match=r"cannot write .*a\.mp4"),
        open_sink(tmp_path / "a.mp4", properties, False) as sink,
    ):
        sink._ffmpeg.process.kill()
        for frame in moving(48, 32, 200):
            sink.write(frame)
    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / "frames", properties, False) as sink:
        sink.write(photo(48, 32))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == b"old"


def test_a_reader_that_is_left_ends(tmp_path):
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text().split() if children.exists() else []  # such as another test's pool of processes
    frames = open_source(make_clip(tmp_path / "a.mp4", count=50)).frames()
    next(frames)
    frames.close()
    assert not children.exists() or set(children.read_text().split()) <= set(before)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's account of memory")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    """400 frames of 230 kB pass through; all of them would be 92 MB."""
    properties, noise = Properties(320, 240, RATE), photo(320, 240)
    with open_sink(tmp_path / "a.mp4", properties, False) as sink:
        for _ in range(100):
            sink.write(noise)
        before = resident()
        for _ in range(400):
            sink.write(noise)
        assert resident() - before < 10 << 20
    frames = open_source(tmp_path / "a.mp4").frames()
    assert len(list(islice(frames, 0, 1))) + sum(1 for _ in islice(frames, 99)) == 100
    before = resident()
    assert sum(1 for _ in frames) == 400
    assert resident() - before < 10 << 20


@pytest.mark.skipif("LIVE_VIDEO" not in os.environ, reason="LIVE_VIDEO names no folder of clips")
def test_real_clips_are_read():
    paths = [path for path in sorted(Path(os.environ["LIVE_VIDEO"]).rglob("*")) if path.suffix in (".mp4", ".mkv")]
    assert paths
    for path in paths:
        clip = open_source(path)
        frames = list(islice(clip.frames(), 3))
        assert len(frames) == 3 and frames[0].size == (clip.properties.width, clip.properties.height)
        assert np.asarray(frames[0]).std() > 5


def test_a_clip_is_not_replaced_by_what_is_made_of_it(tmp_path):
    source, coded = tmp_path / "clip.mp4", tmp_path / "clip.live"
    source.write_bytes(b"of the user")
    coded.write_bytes(b"LIV")
    with pytest.raises(OutputError, match="is the clip itself"):
        live.compress_clip(str(source), tmp_path / "." / "clip.mp4", 1)
    with pytest.raises(OutputError, match="is the file itself"):
        live.decompress_clip(coded, str(coded))
    assert source.read_bytes() == b"of the user" and coded.read_bytes() == b"LIV"
