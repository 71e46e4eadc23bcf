"""Clips measured through real files: known flicker, tables, going on, BD-rates, figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from films import make_clip
from PIL import Image

from live.command import run
from live.errors import InputError, ModelError
from live.registry import embedded_dir
from testing import clip_bdrate, clip_figures, clip_results, clips, lengths, ours
from testing.clip_anchors import CLIP_ANCHORS
from testing.clip_bdrate import clip_bd_rates, mean_bd_rate
from testing.clip_codecs import CLIP_OURS, clip_codec_of
from testing.clip_results import ClipRow, FrameRow, load_clips, load_frames, save
from testing.clip_scoring import score_frames
from testing.clips import ClipEvaluation, decode_clip, evaluate_clips
from testing.results import append


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in this process, which knows a test's checkpoints and is quicker to start."""
    monkeypatch.setattr(ClipEvaluation, "_decode", lambda self, codec, path, raw: decode_clip(codec, path, raw))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two settings of x264, so that the tests are quick."""
    monkeypatch.setitem(CLIP_ANCHORS, "x264_ld", replace(CLIP_ANCHORS["x264_ld"], settings=(45, 30)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    make_clip(folder / "large.mp4", size=(64, 48), count=7)
    make_clip(folder / "small.mp4", size=(50, 40), count=4)
    return folder


def grey(*levels: int) -> list[Image.Image]:
    return [Image.new("RGB", (40, 40), (level,) * 3) for level in levels]


def test_flicker_is_the_error_of_the_differences():
    still = grey(100, 100, 100, 100)
    for decoded, flicker in (
        (grey(90, 90, 90, 90), [0, 0, 0]),  # wrong, but as still as the original
        (grey(100, 104, 100, 104), [4, 4, 4]),  # pumps
        (grey(100, 100, 130, 130), [0, 30, 0]),  # pops once
    ):
        scores = list(score_frames(iter(still), iter(decoded), 4, 8))
        assert [score.flicker for score in scores] == [None, *flicker]
    moving = list(score_frames(iter(grey(0, 10, 20, 30)), iter(grey(0, 0, 10, 20)), 4, 8))
    assert [score.flicker for score in moving[1:]] == [10, 0, 0], "a lag is an error where it begins"


def test_networks_look_at_the_chosen_frames_and_the_last():
    scores = list(score_frames(iter(grey(*range(8))), iter(grey(*range(1, 9))), 8, 3))
    assert [number for number, score in enumerate(scores) if score.lpips_alex is not None] == [0, 3, 6, 7]
    assert all(score.psnr == pytest.approx(20 * np.log10(255), abs=1e-3) for score in scores)


def test_rows_are_of_real_files(data, tmp_path, small_live, here, few):
    rows = evaluate_clips(data, ["x264_ld", "live_plus"], tmp_path / "out", 5, 2)
    frames = load_frames(tmp_path / "out" / "clip_frames.csv")
    assert rows.groupby(["clip", "codec"]).size().to_dict() == {
        ("small.mp4", "x264_ld"): 2, ("small.mp4", "live_plus"): 2,
        ("large.mp4", "x264_ld"): 2, ("large.mp4", "live_plus"): 2,
    }  # fmt: skip
    assert rows["clip"].iloc[0] == "small.mp4", "small frames come first"
    assert rows.groupby("clip")["frames"].first().to_dict() == {"small.mp4": 4, "large.mp4": 5}
    for row in rows.itertuples():
        path = clips.coded_clip(tmp_path / "out", row.codec, row.clip, row.setting)
        mine = frames[(frames[["clip", "codec", "setting"]] == [row.clip, row.codec, row.setting]).all(axis=1)]
        assert row.bytes == path.stat().st_size
        assert row.bpp == pytest.approx(8 * row.bytes / (row.frames * row.width * row.height))
        assert len(mine) == row.frames and row.intra_bytes == mine["bytes"].iloc[0]
        assert mine["bytes"].sum() <= row.bytes < mine["bytes"].sum() + 80
        assert row.psnr == pytest.approx(mine["psnr"].mean()) and row.flicker == pytest.approx(mine["flicker"].mean())
        assert row.dists == pytest.approx(mine["dists"].mean()) and mine["dists"].notna().sum() == 3
        assert np.isnan(row.encode_autoencoder_s) == (row.codec == "x264_ld")


def test_an_interrupted_run_goes_on(data, tmp_path, monkeypatch, few):
    out, measure, made = tmp_path / "out", ClipEvaluation.measure, []

    def breaks(self, clip, codec, setting):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append((clip.path.name, setting))
        return measure(self, clip, codec, setting)

    monkeypatch.setattr(ClipEvaluation, "measure", breaks)
    with pytest.raises(KeyboardInterrupt):
        evaluate_clips(data, ["x264_ld"], out, 3, 8)
    assert len(load_clips(out / "clips.csv")) == 1
    before = (out / "clips.csv").read_text()
    append(
        out / "clip_frames.csv", FrameRow("set", "small.mp4", "x264_ld", 30, 0, 1, 1.0, None, None, None)
    )  # killed here
    made.clear()
    monkeypatch.setattr(ClipEvaluation, "measure", lambda *job: made.append(job[1:]) or measure(*job))
    rows = evaluate_clips(data, ["x264_ld"], out, 3, 8)
    assert len(made) == 3 and len(rows) == 4 and (out / "clips.csv").read_text().startswith(before)
    frames = load_frames(out / "clip_frames.csv")
    assert len(frames) == 12 and frames["psnr"].min() > 10, "what a kill left of a row does not count"
    append(out / "clip_frames.csv", FrameRow("set", "small.mp4", "x264_ld", 99, 0, 1, 1.0, None, None, None))
    assert clip_results.main(["--results", str(out), "--out", str(tmp_path / "kept")]) == 0
    kept = load_frames(tmp_path / "kept" / "clip_frames.csv")
    assert kept[["setting", "frame"]].equals(frames[["setting", "frame"]]) and len(str(kept["psnr"].iloc[0])) < 10
    with pytest.raises(InputError, match="other --frames or --every"):
        evaluate_clips(data, ["x264_ld"], out, 2, 8)
    with pytest.raises(InputError, match="other --frames or --every"):
        evaluate_clips(data, ["x264_ld"], out, 3, 4)


def test_a_codec_that_loses_frames_gives_no_row(data, tmp_path, small_live, here, monkeypatch):
    monkeypatch.setattr(type(CLIP_OURS["live_plus"]), "decode", lambda self, path: iter(grey(1, 2)))
    with pytest.raises(ModelError, match="does not decode"):
        evaluate_clips(data, ["live_plus"], tmp_path / "out", 2, 8)
    assert not (tmp_path / "out" / "clips.csv").exists()


def test_the_decoder_is_another_process(data, tmp_path, small_live):
    (data / "large.mp4").unlink()
    rows = evaluate_clips(data, ["live_plus"], tmp_path / "out", 2, 8)
    assert len(rows) == 2 and rows["psnr"].notna().all()


def test_refusals_are_one_line(data, tmp_path, small_live, capsys):
    out = ["--out", str(tmp_path / "out")]
    for arguments, word in (
        (["--data", str(data), "--codecs", "nothing", *out], "unknown codec of clips nothing"),
        (["--data", str(data), "--codecs", "glc_video", *out], "no embedded glc_video checkpoints"),
        (["--data", str(tmp_path), "--codecs", "x265_ld", *out], "no clips in"),
        (["--data", str(data), "--codecs", "x265_ld", "--frames", "0", *out], "--frames"),
    ):
        assert run(lambda arguments=arguments: clips.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_settings_of_ours(glc_live):
    assert clip_codec_of("live_plus").settings == (1, 2) and clip_codec_of("glc").settings == (0, 1, 2, 3)


def table(rates: dict[str, list[float]], clip: str = "a.mp4") -> pd.DataFrame:
    """Curves of one shape: DISTS falls by the logarithm of rate over the codec's own scale."""
    rows = []
    for codec, (scale, *bpps) in rates.items():
        for number, bpp in enumerate(bpps):
            worth = np.log2(bpp / scale)
            figures = {
                "psnr": 20 + 3 * worth,
                "lpips_alex": 0.5 - 0.05 * worth,
                "dists": 0.4 - 0.04 * worth,
                "flicker": 2.0,
            }
            key, times = ("set", clip, codec, number), {"encode_s": 2.0, "decode_s": 1.0, "fps": 8.0}
            times |= {"encode_autoencoder_s": None, "decode_autoencoder_s": None}
            rows.append(ClipRow(*key, 64, 48, 8, 8, int(bpp * 3072), bpp, None, **figures, **times))
    return pd.DataFrame(rows)


SWEEP = [0.01 * 2**k for k in range(5)]


def test_known_bd_rates():
    half = table({"x265_ld": [0.01, *SWEEP], "glc_video": [0.005, *(rate / 2 for rate in SWEEP)]})
    third = table({"x265_ld": [0.01, *SWEEP], "glc_video": [0.01 / 3, *(rate / 3 for rate in SWEEP)]}, "b.mp4")
    apart = table({"x265_ld": [0.01, *SWEEP], "glc_video": [1e-6, *SWEEP]}, "c.mp4")
    found = clip_bd_rates(pd.concat([half, third, apart]), "x265_ld", "glc_video", "dists")
    assert found["a.mp4"][0] == pytest.approx(-50, abs=0.01) and found["a.mp4"][1] == pytest.approx(1)
    assert found["b.mp4"][0] == pytest.approx(-200 / 3, abs=0.01)
    assert found["c.mp4"] == (None, 0.0)
    assert mean_bd_rate(found) == (pytest.approx(-175 / 3, abs=0.01), 2)
    only = clip_bd_rates(pd.concat([half, table({"x265_ld": [0.01, *SWEEP]}, "d.mp4")]), "x265_ld", "glc_video", "psnr")
    assert list(only) == ["a.mp4"]


def test_bd_rate_within_rates_of_the_anchor():
    """Above 0.04 bpp the tested codec gains nothing, below it half: only the range asked for counts."""
    rows = table({"x265_ld": [0.01, *SWEEP], "glc_video": [0.005, 0.0025, 0.005, 0.01, 0.02]})
    rest = table({"glc_video": [0.01, 0.08, 0.16]})
    rows = pd.concat([rows, rest])
    percent, overlap = clip_bd_rates(rows, "x265_ld", "glc_video", "dists", (0.012, 0.035))["a.mp4"]
    assert percent == pytest.approx(-50, abs=0.5) and overlap == pytest.approx(1, abs=1e-6)
    assert clip_bd_rates(rows, "x265_ld", "glc_video", "dists")["a.mp4"][0] > -40
    assert clip_bd_rates(rows, "x265_ld", "glc_video", "dists", (1, 2))["a.mp4"] == (None, 0.0)
    short = rows[(rows["codec"] == "x265_ld") | (rows["bpp"] <= 0.01)]
    assert 0 < clip_bd_rates(short, "x265_ld", "glc_video", "dists", (0.01, 0.16))["a.mp4"][1] < 1


def test_commands_on_a_table(tmp_path, capsys):
    rows = table({"x265_ld": [0.01, *SWEEP], "glc": [0.05, *SWEEP], "glc_video": [0.005, *SWEEP]})
    save(rows, tmp_path / "clips.csv")
    frames = [FrameRow("set", "a.mp4", c, s, f, 100 - f, 30.0 + f, f or None, 0.2 if f % 2 else None, 0.1 if f % 2 else None)
              for c in ("x265_ld", "glc", "glc_video") for s in range(5) for f in range(8)]  # fmt: skip
    append(tmp_path / "clip_frames.csv", *frames)
    common = ["--clips", str(tmp_path / "clips.csv"), "--test", "glc_video"]
    assert clip_bdrate.main([*common, "--anchor", "x265_ld"]) == 0
    assert "a.mp4: -50.0 %, overlap 60%" in capsys.readouterr().out
    assert clip_bdrate.main(common) == 0
    assert "| x265 medium, low delay | -50.0 % (1 of 1) | -50.0 % (1 of 1) |" in capsys.readouterr().out
    assert clip_bdrate.main([*common, "--metric", "dists"]) == 0
    assert "| against | DISTS |" in capsys.readouterr().out
    for arguments, word in (
        (["--rates", "0.1"], "two bpp"),
        (["--anchor", "vvc_ld"], "no clips of vvc_ld"),
        (["--json"], "--anchor"),
    ):
        assert run(lambda arguments=arguments: clip_bdrate.main([*common, *arguments])) == 2
        assert word in capsys.readouterr().err
    made = clip_figures.plots(tmp_path, tmp_path)
    assert [path.name for path in made] == ["video_rd_a.png", "video_frames_a.png"]
    assert all(Image.open(path).width > 1000 for path in made)
    text = clip_figures.block(tmp_path)
    assert (
        "GLC-video (ours) over x265 medium, low delay, DISTS, at the qualities that the latter has at 0.01 to 0.05 bpp"
        in text
    )
    assert "| x265 medium, low delay | 0.4000 / 0.3600 / 0.3071 |" in text and "live_video" not in text
    assert "| GLC-video (ours), a.mp4 | +0.00 / +0.00 / +0.00 / +0.00 |" in text, "as the pictures, frame by frame"
    assert not clip_figures.measured(tmp_path / "elsewhere")


def test_what_predicted_frames_lose_by_quarters():
    """At the settings that both were measured at: a decibel a quarter at the one, nothing at the other."""
    columns = [(codec, setting, frame) for codec in ("glc", "glc_video") for setting in (0, 1, 2) for frame in range(8)]
    frames = pd.DataFrame(columns, columns=["codec", "setting", "frame"]).assign(clip="a.mp4", psnr=30.0, dists=0.2)
    frames.loc[(frames["codec"] == "glc_video") & (frames["setting"] == 0), "psnr"] -= frames["frame"] // 2
    frames = frames[(frames["codec"] == "glc") | (frames["setting"] < 2)]
    shown = clip_figures.drift_table(frames)
    assert "| GLC-video (ours), a.mp4 | +0.00 / -0.50 / -1.00 / -1.50 | +0.000 / +0.000 / +0.000 / +0.000 |" in shown
    assert "LIVE-video" not in shown and clip_figures.drift_table(frames[frames["codec"] == "glc"]) == ""


@pytest.mark.slow
@pytest.mark.usefixtures("small_live")
def test_lengths_are_measured(capsys):
    """Whole processes: seven times the frames take more bytes and no more memory."""
    assert lengths.main(["--frames", "8,56", "--codecs", "live_plus", "--json"]) == 0
    short, long = json.loads(capsys.readouterr().out)["rows"]
    assert (short["frames"], long["frames"]) == (8, 56) and 4 * short["bytes"] < long["bytes"] < 9 * short["bytes"]
    for verb in ("compress", "decompress"):
        assert long[f"{verb}_mib"] < 1.1 * short[f"{verb}_mib"]
    assert lengths.table([short, long]).count("| live_plus |") == 2
    assert run(lambda: lengths.main(["--frames", "8,none"])) == 2 and "whole numbers" in capsys.readouterr().err


def test_the_autoencoder_is_timed_by_whichever_way_it_decodes():
    autoencoder = ours._timed("compact", embedded_dir())
    latents = torch.zeros(1, autoencoder.channels, 4, 4)
    for decode in (autoencoder.decode, autoencoder.decode_frame):
        ours.STOPWATCH.seconds = None
        decode(latents)
        assert ours.STOPWATCH.seconds > 0
