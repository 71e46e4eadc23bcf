"""Clips of latents as LIVE files: there and back without pixels, as those of pictures are; refusals, damage, claims."""

from __future__ import annotations

import copy
import json
import shutil
import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from films import frames_of, moving, moving_latents, with_live_video
from safetensors.torch import load_file, save_file
from test_cli import refused
from test_video_damage import hurt

import live
from live.__main__ import main
from live.checkpoints import export_codec, load_codec
from live.container import TILES_TAG, check_sections
from live.errors import DamagedFile, DecodeMismatch, InputError, ModelError, NewerFormat
from live.latents import load_autoencoder
from live.pictures import decode_picture, encode_picture
from live.video import latents as clip_latents
from live.video.container import ClipReader, ClipWriter
from live.video.header import LATENTS_TAG, ClipHeader, unpack_header
from live.video.properties import RGB, Colour, Properties


@pytest.fixture(scope="module")
def folder(small_models: Path, tmp_path_factory) -> Path:
    """The small models and a small live_video over them."""
    return with_live_video(small_models, tmp_path_factory.mktemp("latents"))


@pytest.fixture(autouse=True)
def models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(folder))
    return folder


def read(path: Path, **options) -> list[torch.Tensor]:
    with live.decompress_clip_latents(path, **options) as frames:
        return list(frames)


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def streams(path: Path) -> list[tuple]:
    with open(path, "rb") as file:
        return [frame[:4] for frame in ClipReader(file).frames()]


def clip_of(folder: Path, count: int = 6, **options) -> Path:
    live.compress_clip_latents(torch.cat(moving_latents(4, 9, 13, count)), folder / "z.live", 2, **options)
    return folder / "z.live"


@pytest.mark.parametrize("size", [(1, 1), (13, 11), (8, 16)])
@pytest.mark.parametrize(("codec", "intra"), [(None, 1), ("live_plus", 4)])
def test_there_and_back(tmp_path, size, codec, intra):
    frames = [frame[:, :, : size[0], : size[1]] for frame in moving_latents(4, 16, 16, 4)]
    options = {"codec": codec, "fps": "30000/1001", "scene_cuts": False, "verify": True}
    done = live.compress_clip_latents(torch.cat(frames), tmp_path / "a.live", 2, **options)
    assert (done.frames, done.height, done.width, done.rate) == (4, *size, Fraction(30000, 1001))
    assert done.bytes == (tmp_path / "a.live").stat().st_size
    with open(tmp_path / "a.live", "rb") as file:
        reader = ClipReader(file)
        assert reader.header.latents and sum(frame.intra for frame in reader.frames()) == intra
    decoded = read(tmp_path / "a.live")
    assert all(frame.shape == (1, 4, *size) and frame.dtype == torch.float32 for frame in decoded)
    error = torch.stack(decoded).sub(torch.stack(frames)).abs().mean()
    assert error < 0.5 * torch.stack(frames).abs().mean()


def test_whatever_holds_frames_is_the_same_clip(tmp_path):
    """A tensor, frames with and without a batch, of other types, or made when asked for, in memory that is used again."""
    frames = [frame.half() for frame in moving_latents(4, 9, 13, 5)]
    memory = torch.empty(4, 9, 13)
    ways = (torch.cat(frames), frames, [frame[0].double() for frame in frames], (memory.copy_(f[0]) for f in frames))
    for number, way in enumerate(ways):
        live.compress_clip_latents(way, tmp_path / f"{number}.live")
    assert len({(tmp_path / f"{number}.live").read_bytes() for number in range(len(ways))}) == 1
    assert live.compress_clip_latents(frames, tmp_path / "vae.live", vae="compact").rate == 25


def test_frame_by_frame_they_are_coded_as_latents_are(tmp_path):
    frames = moving_latents(4, 9, 13, 3)
    live.compress_clip_latents(frames, tmp_path / "a.live", 2, codec="live_plus")
    assert same(read(tmp_path / "a.live"), [live.decompress_latents(live.compress_latents(f, 2)) for f in frames])


@pytest.mark.parametrize("codec", ["live_video", "live_plus"])
def test_latents_of_pictures_are_coded_as_the_pictures_are(tmp_path, codec):
    """The same streams; what comes back is what the autoencoder makes the pictures of, from either file."""
    autoencoder, pictures = load_autoencoder("compact"), list(moving(37, 21, 5))
    live.compress_clip(pictures, tmp_path / "p.live", 2, codec=codec, fps=25)
    latents = [encode_picture(autoencoder, picture)[0] for picture in pictures]
    live.compress_clip_latents(latents, tmp_path / "z.live", 2, codec=codec)
    assert streams(tmp_path / "p.live") == streams(tmp_path / "z.live")
    decoded = read(tmp_path / "z.live")
    assert same(decoded, read(tmp_path / "p.live"))
    for latents, seen in zip(decoded, frames_of(tmp_path / "p.live"), strict=True):
        assert (np.asarray(decode_picture(autoencoder, latents, (37, 21), None, frame=True)) == seen).all()


def test_from_any_frame_on(tmp_path):
    path = clip_of(tmp_path, intra_period=3)
    whole = read(path)
    for start in range(6):
        assert same(read(path, start=start), whole[start:])
    for start, said in ((6, "no frame 6"), (1.5, "1.5 is none"), ("1", "'1' is none")):
        with pytest.raises(InputError, match=said):
            live.decompress_clip_latents(path, start)


def test_what_is_done_to_a_frame_is_not_done_to_the_next(tmp_path):
    path = clip_of(tmp_path)
    whole, again = read(path), []
    with live.decompress_clip_latents(path) as frames:
        for frame in frames:
            again.append(frame.clone())
            frame.zero_()
    assert same(again, whole)


def test_no_frame_is_kept(tmp_path):
    """Of forty frames few are alive at any time, in either direction."""
    seen, most = [], []

    def watched(frames):
        for frame in frames:
            seen.append(weakref.ref(frame))
            most.append(sum(reference() is not None for reference in seen))
            yield frame
            del frame

    live.compress_clip_latents(watched(torch.randn(1, 4, 8, 8) for _ in range(40)), tmp_path / "a.live", 1)
    for _ in watched(live.decompress_clip_latents(tmp_path / "a.live")):
        pass
    assert len(most) == 80 and max(most) <= 4


GOOD = torch.zeros(4, 8, 8)
REFUSED = [
    (torch.zeros(2, 3, 8, 8), r"frame 0: latents have shape \(3, 8, 8\); expected \(4, h, w\)"),
    (GOOD, r"must be \(T, 4, h, w\).* not a tensor of shape \(4, 8, 8\)"),
    (torch.zeros(1, 4, 3, 8, 8), r"must be \(T, 4, h, w\)"),
    (torch.zeros(2, 4, 0, 8), "frame 0: latents have shape"),
    (torch.zeros(2, 4, 8, 8, dtype=torch.int64), "frame 0: .* not a tensor of torch.int64"),
    ([GOOD, torch.full((4, 8, 8), float("nan"))], "frame 1: the latents hold NaN"),
    (
        [GOOD, GOOD, torch.zeros(4, 8, 9)],
        r"frame 2 has latents of shape \(4, 8, 9\), and the frames before \(4, 8, 8\)",
    ),
    ([GOOD, GOOD[None].repeat(2, 1, 1, 1)], r"frame 1: latents have shape \(2, 4, 8, 8\)"),
    (torch.zeros(0, 4, 8, 8), "holds no frames"),
    ([], "holds no frames"),
    (None, "not NoneType"),
    ("clip.mp4", "frame 0: .* not str"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=[words[:30] for _, words in REFUSED])
def test_what_is_no_clip_of_latents_is_refused(tmp_path, given, words):
    (tmp_path / "a.live").write_bytes(b"old")
    with pytest.raises(InputError, match=words) as refusal:
        live.compress_clip_latents(given, tmp_path / "a.live")
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.live"] and (tmp_path / "a.live").read_bytes() == b"old"


def test_choices_that_do_not_fit_are_refused(tmp_path, models):
    other = models / "compact.safetensors"
    for options, words in (
        ({"fps": 0}, "not a frame rate"), ({"intra_period": 0}, "must be 1 to"), ({"quality": 9}, "unknown quality 9"),
        ({"codec": "live_plus", "intra_period": 3}, "every frame an intra frame"), ({"vae": "taesd"}, "taesd"),
        ({"checkpoint": other}, "not a LIVE codec checkpoint"),
    ):  # fmt: skip
        with pytest.raises((InputError, ModelError), match=words):
            live.compress_clip_latents([GOOD], tmp_path / "a.live", **options)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_decoded_is_not_kept(tmp_path, monkeypatch):
    def crooked(self, stream, crc, intra, _add=ClipWriter.add):
        _add(self, stream, crc ^ 1, intra)

    monkeypatch.setattr(ClipWriter, "add", crooked)
    with pytest.raises(DecodeMismatch, match="not kept"):
        clip_of(tmp_path, verify=True)
    assert not list(tmp_path.iterdir())


def test_a_damaged_clip(tmp_path, capsys):
    path = clip_of(tmp_path, intra_period=3)
    whole, damaged = read(path), hurt(path, 4)
    with pytest.raises(DamagedFile, match="frame 4 does not have its checksum"):
        read(damaged)
    said = refused(capsys, "latents", "unpack", damaged, "-o", tmp_path / "z.safetensors")
    assert "hurt-4.live: the file is damaged: frame 4 does not have its checksum" in said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["hurt-4.live", "z.live"]
    assert same(read(damaged, salvage=True), [*whole[:4], whole[3], whole[3]])
    damaged.write_bytes(path.read_bytes()[:-5])
    assert "behind 6 whole frames" in refused(capsys, "latents", "unpack", damaged)


HEADER = ClipHeader(
    2, bytes(8), bytes(4), 2, Properties(13, 9, Fraction(25), colour=Colour(RGB, full_range=True)), latents=True
)


def test_the_header_says_it_in_two_bytes():
    """What a release without the section says is in words, and not that the file is damaged."""
    data = HEADER.pack()
    assert unpack_header(data)[0] == HEADER
    assert data[-11:-4] == bytes.fromhex("00020201" + "8100" + "00")
    assert data[:-7] == replace(HEADER, latents=False).pack()[:-5]
    with pytest.raises(NewerFormat, match="section 129 that this release does not know: update live"):
        check_sections({LATENTS_TAG: b""}, (TILES_TAG,))
    with pytest.raises(DamagedFile, match="section that says it holds latents is not empty"):
        unpack_header(replace(HEADER, latents=False, sections={LATENTS_TAG: b"x"}).pack())


def claiming(path: Path, width: int, height: int, model: str, length: int = 4000, codec_id: int = 2) -> Path:
    """A file that claims a size, with a stream of so many bytes."""
    header = replace(HEADER, properties=replace(HEADER.properties, width=width, height=height), codec_id=codec_id)
    with open(path, "wb") as file:
        writer = ClipWriter(file, replace(header, model=bytes.fromhex(model)[:8]))
        writer.add(bytes(length), 0, True)
        writer.finish()
    return path


def test_a_position_counts_as_many_pixels_in_what_a_file_may_claim(tmp_path, models):
    model = load_codec(models / "live_plus_q2.safetensors").identity
    for size, length, words in (
        ((1700, 1700), 4000, "1700 x 1700, over the limit of 178956970 pixels"),
        ((1600, 1600), 500, "bytes cannot hold 1600 x 1600"), ((0, 9), 500, "empty picture"),
    ):  # fmt: skip
        with pytest.raises(DamagedFile, match=words):
            live.decompress_clip_latents(claiming(tmp_path / "a.live", *size, model, length))
    with pytest.raises(DamagedFile, match="over the limit of 7487 pixels"):
        live.decompress_clip_latents(clip_of(tmp_path), max_pixels=9 * 13 * 64 - 1)
    with pytest.raises(DamagedFile, match="6 frames, over the limit of 5"):
        live.decompress_clip_latents(clip_of(tmp_path), max_frames=5)


def test_of_a_coarser_autoencoder_a_position_counts_as_more(tmp_path, models):
    """Once that is known: before anything of a frame is decoded."""
    fine = load_codec(models / "live_plus_q2.safetensors")
    coarse = export_codec(copy.deepcopy(fine), tmp_path / "coarse.safetensors", fine.card | {"factor": 16})
    for size, length, words in ((900, 4000, "900 x 900, over the limit"), (800, 1000, "bytes cannot hold 800 x 800")):
        path = claiming(tmp_path / "a.live", size, size, coarse.identity, length)
        with pytest.raises(DamagedFile, match=words):
            live.decompress_clip_latents(path, checkpoint=tmp_path / "coarse.safetensors")
    path = claiming(tmp_path / "a.live", 500, 500, coarse.identity, 440)  # enough for the file, not for the frame
    frames = live.decompress_clip_latents(path, checkpoint=tmp_path / "coarse.safetensors")
    with frames, pytest.raises(DamagedFile, match="473 bytes cannot hold 500 x 500"):
        next(frames)


def test_pack_and_unpack(tmp_path, capsys):
    tensor = torch.cat(moving_latents(4, 9, 13, 5))
    save_file({"x": tensor.half(), "y": tensor[:2]}, tmp_path / "z.safetensors")
    pack = ["latents", "pack", str(tmp_path / "z.safetensors"), "--key", "x", "-q", "2", "--verify"]
    assert main([*pack, "--fps", "30000/1001", "--intra-period", "2", "--no-scene-cuts"]) == 0
    path, size = tmp_path / "z.live", (tmp_path / "z.live").stat().st_size
    said = f"{path}: 5 frames, {size} bytes, {8 * size / 5 / 9 / 13:.4f} bits a latent position\n"
    assert capsys.readouterr().out == said
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["width"], facts["height"], facts["frames"]) == ("clip of latents", 13, 9, 5)
    assert (facts["codec"], facts["intra_frames"], facts["frames_per_second"]) == ("live_video", 3, "30000/1001")
    assert facts["bits_per_position"] == round(8 * size / 5 / 9 / 13, 5) and not {"bpp", "matrix"} & set(facts)
    assert main(["latents", "unpack", str(path), "-o", str(tmp_path / "again.safetensors")]) == 0
    assert capsys.readouterr().out.endswith("again.safetensors: latents (5, 4, 9, 13) float32\n")
    again = load_file(tmp_path / "again.safetensors")
    assert list(again) == ["latents"] and torch.equal(again["latents"], torch.cat(read(path)))
    live.compress_clip_latents(
        tensor.half(), tmp_path / "api.live", 2, intra_period=2, scene_cuts=False, fps="30000/1001"
    )
    assert (tmp_path / "api.live").read_bytes() == path.read_bytes()


def test_one_frame_is_a_clip_where_that_is_asked_for(tmp_path, models):
    for name, tensor in (("three", GOOD), ("four", GOOD[None])):
        save_file({"x": tensor}, tmp_path / f"{name}.safetensors")
        for options, clip in (
            ([], False), (["--codec", "live_plus"], False), (["--codec", "live_video"], True), (["--fps", "25"], True),
            (["--checkpoint", str(models / "live_video.safetensors")], True),
            (["--checkpoint", str(models / "live_plus_q1.safetensors")], False),
        ):  # fmt: skip
            for verb in (["latents", "pack"], ["compress"]):
                assert main([*verb, str(tmp_path / f"{name}.safetensors"), "-f", *options]) == 0
                data = (tmp_path / f"{name}.live").read_bytes()
                assert (data[3] == 2) == clip
            assert main(["latents", "unpack", str(tmp_path / f"{name}.live"), "-o", str(tmp_path / "a"), "-f"]) == 2
            assert (
                main(["latents", "unpack", str(tmp_path / f"{name}.live"), "-o", str(tmp_path / "a.safetensors"), "-f"])
                == 0
            )
            assert load_file(tmp_path / "a.safetensors")["latents"].shape == (1, 4, 8, 8)


def test_refusals_of_the_command(tmp_path, capsys):
    path = clip_of(tmp_path)
    for name, tensor in (("many", torch.zeros(2, 4, 8, 8)), ("one", GOOD), ("five", torch.zeros(1, 4, 2, 8, 8))):
        save_file({"x": tensor}, tmp_path / f"{name}.safetensors")
    before = sorted(tmp_path.iterdir())
    many = tmp_path / "many.safetensors"
    for output in ([], ["-o", tmp_path / "a.mp4"], ["-o", tmp_path / "a.safetensors"]):
        said = refused(capsys, "decompress", path, *output)
        assert f"{path}: the file holds a clip of latents, not of pictures" in said and "live latents unpack" in said
    for call, match in (
        (live.clip_frames, "clip of latents"),
        (lambda p: live.decompress_clip(p, tmp_path / "a.mp4"), "clip of"),
    ):
        with pytest.raises(InputError, match=match):
            call(path)
    for arguments, words in (
        (("latents", "pack", many, "-q", "9"), "unknown quality 9"),
        (("latents", "pack", many, "--fps", "0"), "0 is not a frame rate"),
        (("latents", "pack", many, "-o", path), "--force"),
        (("latents", "pack", many, "-o", tmp_path / "a.png"), "must end in .live"),
        (("latents", "pack", many, "--key", "q"), "has no tensor 'q'"),
        (("latents", "pack", many, "--checkpoint", tmp_path / "none"), "no checkpoint at"),
        (("latents", "pack", tmp_path / "missing.safetensors"), "does not exist"),
        (("latents", "pack", tmp_path / "one.safetensors", "--intra-period", "3"), "is no clip; --intra-period"),
        (("compress", tmp_path / "one.safetensors", "--no-scene-cuts"), "is no clip; --no-scene-cuts"),
        (("latents", "pack", tmp_path / "five.safetensors"), "latents have shape (1, 4, 2, 8, 8)"),
        (("latents", "pack", tmp_path / "five.safetensors", "--fps", "5"), "latents have shape (1, 4, 2, 8, 8)"),
        (("compress", many, "--target-bpp", "1"), "instead of --target-bpp"),
        (("latents", "unpack", path, "-o", many), "--force"),
        (("latents", "unpack", path, "--max-pixels", "99"), "over the limit of 99 pixels"),
        (("latents", "unpack", path, "--max-frames", "5"), "6 frames, over the limit of 5"),
    ):
        assert words in refused(capsys, *arguments), arguments
    assert sorted(tmp_path.iterdir()) == before


def test_the_autoencoder_is_not_needed(tmp_path, folder, monkeypatch):
    """Neither to pack nor to unpack, also a clip of pictures."""
    live.compress_clip(moving(20, 20, 2), tmp_path / "p.live", 2, fps=25)
    (tmp_path / "alone").mkdir()
    for path in folder.glob("live_*.safetensors"):
        shutil.copy(path, tmp_path / "alone")
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(tmp_path / "alone"))
    monkeypatch.setattr(clip_latents, "_autoencoder", lambda *_: pytest.fail("loaded"))
    assert len(read(clip_of(tmp_path))) == 6
    assert [frame.shape for frame in read(tmp_path / "p.live")] == [(1, 4, 3, 3)] * 2
