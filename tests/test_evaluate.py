"""Evaluation through real files: rates of what lies on disk, references, going on after an interruption."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from threading import Barrier

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL_PLUS, export_small_autoencoder, photo
from PIL import Image

import live
from live.artefact import read_card
from live.checkpoints import export_codec
from live.codecs import LivePlus
from live.command import run
from live.errors import InputError, ModelError
from live.media import to_tensor
from live.metrics.perceptual import SHIFTS, lpips_network
from testing import evaluate as module
from testing import origins, ours
from testing.anchors import ANCHORS, Anchor
from testing.evaluate import evaluate, plan
from testing.measure import Evaluation, coded_file
from testing.ours import Checkpoints, autoencoder_of
from testing.results import REFERENCES, Done, load
from testing.scoring import score


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one in a folder of its own."""
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    photo(65, 48, 1).save(folder / "a.png")
    photo(33, 17, 2).save(folder / "sub" / "b.png")
    return folder


def test_scores_are_undefined_below_their_smallest_size():
    figures = score(photo(40, 24), photo(40, 24, 1), ["psnr", "ms_ssim", "lpips_alex"])
    assert 5 < figures["psnr"] < 30 and figures["ms_ssim"] is None and figures["lpips_alex"] is None
    assert score(photo(80, 43), photo(80, 43, 1), ["lpips_alex_shifted"]) == {"lpips_alex_shifted": None}
    first, second = photo(80, 44), photo(80, 44, 1)
    crops = [[to_tensor(each)[:, :, top:, left:] for each in (first, second)] for top, left in SHIFTS]
    with torch.inference_mode():
        by_hand = sum(lpips_network("alex")(*crop).item() for crop in crops) / 4
    assert score(first, second, ["lpips_alex_shifted"])["lpips_alex_shifted"] == pytest.approx(by_hand, rel=1e-5)


def test_other_embedded_weights_are_noticed(small_live, tmp_path, monkeypatch):
    """Two releases in one process: each codec gets the autoencoder that lies beside it, never the other's."""
    for_evaluation = ours.Embedded("live_plus", "LIVE", "live_plus")
    first = for_evaluation.encode(photo(40, 24), 1)
    other = tmp_path / "other"
    identity = export_small_autoencoder(other / "compact.safetensors", seed=5)
    codec = LivePlus(SMALL_PLUS)
    card = {"quality": 1, "autoencoder": identity, "autoencoder_name": "compact", "factor": 8}
    export_codec(codec, other / "live_plus_q1.safetensors", card)
    monkeypatch.setenv("LIVE_CHECKPOINTS", str(other))
    second = for_evaluation.encode(photo(40, 24), 1)
    assert first != second and live.decompress(second).size == for_evaluation.decode(second).size == (40, 24)


def test_points_are_those_of_the_files_and_are_kept(folder, tmp_path, small_live, monkeypatch):
    out = tmp_path / "out"
    points = evaluate(folder, ["live_plus", "jpeg"], out, ["psnr"], ["original", "autoencoder"])
    assert len(points) == 2 * (2 + 6) * 2, "pictures, settings, references"
    assert set(points["dataset"]) == {"set"} and set(points["picture"]) == {"a.png", "sub/b.png"}
    for row in points.itertuples():
        path = coded_file(out, row.codec, row.picture, row.setting)
        assert path.stat().st_size == row.bytes and row.bpp == pytest.approx(8 * row.bytes / (row.width * row.height))
        assert row.encode_s > 0 and row.decode_s > 0
    row = points[(points["codec"] == "jpeg") & (points["setting"] == 45)].iloc[0]
    with Image.open(coded_file(out, "jpeg", "a.png", 45)) as decoded:
        expected = score(decoded.convert("RGB"), photo(65, 48, 1), ["psnr"])["psnr"]
    assert row["psnr"] == pytest.approx(expected)

    by_reference = points.pivot_table(index=["picture", "codec", "setting"], columns="reference", values="psnr")
    assert (by_reference["original"] != by_reference["autoencoder"]).all()

    # An interrupted run: the last two rows are lost, and they alone are measured again.
    table = out / "points.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-2]))
    jobs = []
    monkeypatch.setattr(Evaluation, "measure", lambda self, window, images: jobs.extend(window) or [])
    evaluate(folder, ["live_plus", "jpeg"], out, ["psnr"], ["original", "autoencoder"])
    assert [(job.name, job.codec, job.setting) for job in jobs] == [("sub/b.png", "jpeg", 45)]


def test_the_command_refuses_in_one_line(folder, tmp_path, capsys, small_models):
    again = tmp_path / "another" / small_models.name
    shutil.copytree(small_models, again)
    common = ["--data", str(folder), "--out", str(tmp_path / "out")]
    for arguments, word in (
        ([*common, "--codecs", "nothing"], "unknown codec nothing"),
        ([*common, "--codecs", "jpeg", "--metrics", "ssim"], "unknown metric ssim"),
        ([*common, "--codecs", "jpeg", "--reference", "mine"], "unknown reference mine"),
        ([*common, "--limit", "0"], "--limit"),
        ([*common, "--codecs", ","], "at least one codec"),
        ([*common, "--codecs", f"{small_models},{again}"], "two of the codecs are called"),
        ([*common[:3], str(folder / "a.png"), "--codecs", "jpeg"], "is not a folder"),
        (["--data", str(tmp_path / "none"), "--out", str(tmp_path)], "not a folder"),
    ):
        assert run(lambda arguments=arguments: module.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        evaluate(tmp_path / "empty", ["jpeg"], tmp_path / "out", ["psnr"], ["original"])


def test_a_picture_that_cannot_be_read_is_left_out_and_named(folder, tmp_path, capsys):
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:100])
    out = tmp_path / "out"
    arguments = ["--data", str(folder), "--out", str(out), "--codecs", "jpeg", "--metrics", "psnr"]
    assert run(lambda: module.main([*arguments, "--reference", "original"])) == 1
    assert [line for line in capsys.readouterr().err.splitlines() if "left out" in line and "broken.png" in line]
    assert set(load(out / "points.csv")["picture"]) == {"a.png", "sub/b.png"}


def test_refusals_leave_nothing(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for path in (folder / "a.png", folder / "sub" / "b.png"):
        path.write_bytes(b"not a picture")
    with pytest.raises(InputError, match="no picture can be read"):
        evaluate(folder, ["jpeg"], out, ["psnr"], ["original"], unreadable={})
    monkeypatch.delenv("VTM_BIN", raising=False)
    photo(40, 24).save(folder / "a.png")
    with pytest.raises(ModelError, match="VTM"):
        evaluate(folder, ["vtm"], out, ["psnr"], ["original"], limit=1)
    with pytest.raises(ModelError, match="VTM"):  # before a sweep trains for hours, too
        module.main(["--data", str(folder), "--codecs", "jpeg,vtm", "--out", str(out), "--dry-run"])
    assert not out.exists()


def test_asking_for_more_scores_the_files_that_are_there(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    before = evaluate(folder, ["webp"], out, ["psnr"], ["original"], limit=1)
    monkeypatch.setattr(ANCHORS["webp"].__class__, "encode", lambda *_: pytest.fail("encoded again"))
    after = evaluate(folder, ["webp"], out, ["psnr", "lpips_alex"], ["original"], limit=1)
    assert after["lpips_alex"].notna().all() and before["lpips_alex"].isna().all()
    columns = ["setting", "bytes", "psnr", "encode_s", "decode_s"]
    assert after[columns].equals(before[columns])


def test_a_table_from_before_a_column_was_there_goes_on(folder, tmp_path):
    table = tmp_path / "out" / "points.csv"
    before = evaluate(folder, ["webp"], table.parent, ["psnr"], ["original"], limit=1)
    pd.read_csv(table).drop(columns="lpips_alex_shifted").to_csv(table, index=False)
    after = evaluate(folder, ["webp"], table.parent, ["psnr", "lpips_alex_shifted"], ["original"], limit=1)
    assert after["lpips_alex_shifted"].notna().all() and len(after) == len(before)
    assert np.allclose(after["psnr"], before["psnr"], atol=1e-6)


def test_the_autoencoder_s_share_of_the_time_is_told(folder, tmp_path, small_live):
    points = evaluate(folder, ["live_plus", "jpeg"], tmp_path / "out", ["psnr"], ["original"], limit=1)
    ours, peer = (points[points["codec"] == codec] for codec in ("live_plus", "jpeg"))
    for side in ("encode", "decode"):
        assert (ours[f"{side}_autoencoder_s"] > 0).all()
        assert (ours[f"{side}_autoencoder_s"] < ours[f"{side}_s"]).all()
        assert peer[f"{side}_autoencoder_s"].isna().all()


def test_codecs_that_run_programs_work_side_by_side(folder, tmp_path, monkeypatch):
    """Both files of a window are under way at once: each waits for the other to begin."""
    both = Barrier(2, timeout=20)

    class Waiting(Anchor):
        name, label, suffix, settings, container, runs_programs = "waiting", "Waiting", ".png", (1, 2), 0, True

        def encode(self, image, quality):
            both.wait()
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            return buffer.getvalue()

        def decode(self, data):
            return Image.open(io.BytesIO(data)).convert("RGB")

    monkeypatch.setitem(ANCHORS, "waiting", Waiting())
    monkeypatch.setattr("testing.evaluate.cores", lambda: 2)
    monkeypatch.setattr("testing.measure.cores", lambda: 2)
    points = evaluate(folder, ["waiting", "jpeg"], tmp_path / "out", ["psnr"], ["original"])
    assert (points[points["codec"] == "waiting"]["psnr"] == float("inf")).all() and len(points) == 2 * (2 + 6)


def test_codecs_of_another_autoencoder_are_held_against_originals_alone(
    folder, tmp_path, small_live, monkeypatch, capsys
):
    monkeypatch.setattr(Checkpoints, "autoencoder", "another")
    assert autoencoder_of(["live_plus", str(small_live)]) == ("compact", [str(small_live)])
    assert autoencoder_of(["jpeg", str(small_live)]) == ("another", [])
    assert autoencoder_of(["jpeg"]) == ("compact", [])
    jobs = plan(folder, [folder / "a.png"], ["jpeg", str(small_live)], list(REFERENCES), Done(), [str(small_live)])
    assert {job.codec: job.references for job in jobs} == {"jpeg": tuple(REFERENCES), str(small_live): ("original",)}


def test_a_folder_of_a_known_codecs_name_is_told_from_it(tmp_path, small_models):
    shutil.copytree(small_models, tmp_path / "live_plus")
    assert (
        Checkpoints(tmp_path / "live_plus").name == "live_plus_swept" and Checkpoints(small_models).name != "live_plus"
    )


def test_results_of_other_things_of_the_same_name_are_refused(folder, tmp_path, small_live):
    """Another picture in a folder of the same name, a codec that was trained again, another autoencoder as reference."""
    out, other = tmp_path / "out", tmp_path / "elsewhere" / "set"
    sweep = tmp_path / "sweep"
    shutil.copytree(small_live, sweep)
    evaluate(folder, ["jpeg", str(sweep)], out, ["psnr"], ["original"])
    evaluate(folder, ["jpeg", str(sweep)], out, ["psnr"], ["original"])
    shutil.copytree(folder, other)
    evaluate(other, ["jpeg"], out, ["psnr"], ["original"])  # the same pictures elsewhere
    photo(65, 48, 7).save(other / "a.png")
    with pytest.raises(InputError, match=r"results of another set/a\.png"):
        evaluate(other, ["jpeg"], out, ["psnr"], ["original"])
    path = sweep / "live_plus_q1.safetensors"
    kept = ("quality", "autoencoder", "autoencoder_name", "factor")
    export_codec(LivePlus(SMALL_PLUS), path, {key: read_card(path)[key] for key in kept})
    with pytest.raises(InputError, match="results of another sweep at 1"):
        evaluate(folder, [str(sweep)], out, ["psnr"], ["original"])
    origins.record(out, {"autoencoder": "another"})
    with pytest.raises(InputError, match="results of another autoencoder"):
        evaluate(folder, ["jpeg"], out, ["psnr"], ["autoencoder"])


def test_a_folder_may_be_called_like_what_is_missing(folder, tmp_path):
    folder.rename(tmp_path / "NA")
    points = evaluate(tmp_path / "NA", ["jpeg"], tmp_path / "out", ["psnr"], ["original"])
    assert len(points) == 2 * 6 and set(points["dataset"]) == {"NA"}


def test_what_a_peer_cannot_take_is_named(tmp_path, capsys):
    (tmp_path / "wide").mkdir()
    Image.new("RGB", (16384, 16)).save(tmp_path / "wide" / "a.png")
    arguments = [
        "--data",
        str(tmp_path / "wide"),
        "--out",
        str(tmp_path / "out"),
        "--codecs",
        "webp",
        "--metrics",
        "psnr",
    ]
    assert run(lambda: module.main([*arguments, "--reference", "original"])) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("live: webp cannot code a.png (") and error.endswith("leave one of them out")
