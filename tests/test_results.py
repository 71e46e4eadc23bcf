"""The table of results and the BD-rate: merging, means, same pictures for all, known values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from live.command import run
from live.errors import InputError
from testing import bdrate, results
from testing.bdrate import bd_rate
from testing.results import COLUMNS, METRICS, Point, append, done, load, markdown, mean_per_setting, names_of, select

POINT = Point("set", "a.png", "jpeg", 10, "original", 200, 100, 500, 0.2, psnr=30.0)
RATES, PSNRS = np.array([0.1, 0.2, 0.4, 0.8]), np.array([26.0, 29.0, 31.0, 34.0])


def curve(rates, values, metric: str = "psnr") -> pd.DataFrame:
    return pd.DataFrame({"bpp": rates, metric: values})


def table(path: Path, *points: Point) -> Path:
    for point in points:
        append(path, point)
    return path


def test_rows_come_back(tmp_path):
    points = load(table(tmp_path / "points.csv", POINT, replace(POINT, setting=20, bytes=900, bpp=0.36)))
    assert list(points.columns) == COLUMNS and points["setting"].tolist() == [10, 20]
    assert points["psnr"].tolist() == [30.0, 30.0] and points["dists"].isna().all()


def test_later_rows_add_to_earlier_ones(tmp_path):
    points = load(table(tmp_path / "points.csv", POINT, replace(POINT, psnr=None, lpips_alex=0.1)))
    assert len(points) == 1
    assert points.loc[0, ["psnr", "lpips_alex"]].tolist() == [30.0, 0.1]


def test_an_unfinished_line_is_dropped(tmp_path):
    path = table(tmp_path / "points.csv", POINT, replace(POINT, setting=20))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    results.drop_unfinished(path)
    append(path, replace(POINT, setting=30))
    assert load(path)["setting"].tolist() == [10, 30]
    for left in (b"", b"dataset,pict"):
        path.write_bytes(left)
        results.drop_unfinished(path)
        assert not path.exists()
    results.drop_unfinished(path)


def test_a_metric_of_few_pictures_is_compared_over_these(tmp_path, capsys):
    """webp costs a fifth less everywhere; DISTS was measured of two pictures, whose rates are other ones."""
    points = [
        replace(
            POINT, picture=f"{number}.png", codec=codec, setting=setting, bpp=(1 + number) * 0.1 * 2**setting * less,
            dists=(0.3 - 0.05 * setting) if number < 2 or (codec, setting) == ("jpeg", 0) else None,
        )
        for number in range(6) for codec, less in (("jpeg", 1.0), ("webp", 0.8)) for setting in range(4)
    ]  # fmt: skip
    path = table(tmp_path / "points.csv", *points)
    arguments = ["--points", str(path), "--test", "webp", "--metric", "dists", "--json"]
    assert bdrate.main([*arguments, "--anchor", "jpeg"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (round(said["bd_rate"], 3), said["pictures"]) == (-20.0, 2)
    assert bdrate.main(arguments) == 0
    assert round(json.loads(capsys.readouterr().out)[0]["bd_rate"], 3) == -20.0


def test_measured_points_have_all_metrics_that_are_defined(tmp_path):
    points = load(table(tmp_path / "points.csv", POINT))
    key = ("set", "a.png", "jpeg", 10, "original")
    assert done(points, ["psnr"]).complete == {key}
    assert done(points, ["psnr", "lpips_alex"]).complete == set()
    assert done(points, ["psnr", "ms_ssim"]).complete == {key}, "MS-SSIM is not defined at 100 px"


def test_means_give_each_picture_the_same_weight(tmp_path):
    other = replace(POINT, picture="b.png", width=400, bytes=3000, bpp=0.6, psnr=40.0)
    means = mean_per_setting(load(table(tmp_path / "points.csv", POINT, other)))
    assert len(means) == 1 and means.loc[0, "pictures"] == 2
    assert means.loc[0, ["bytes", "bpp", "psnr"]].tolist() == pytest.approx([1750, 0.4, 35])
    text = markdown(means, ["psnr", "lpips_alex"])
    assert "| jpeg " in text and "35.00" in text and "0.4000" in text and "nan" not in text


def test_a_metric_of_some_pictures_has_no_mean():
    points = pd.DataFrame(
        [
            replace(POINT, dists=0.2), replace(POINT, picture="b.png"),
            replace(POINT, setting=20, ms_ssim=0.9), replace(POINT, setting=20, picture="tiny.png", width=100),
        ]
    )  # fmt: skip
    means = mean_per_setting(points).set_index("setting")
    assert means["dists"].isna().all() and means.loc[20, "ms_ssim"] == 0.9 and means["pictures"].tolist() == [2, 2]


def test_means_are_in_order(tmp_path):
    rows = [
        replace(POINT, codec=codec, setting=setting, bpp=bpp, reference=reference)
        for reference in ("autoencoder", "original")
        for codec in ("webp", "jpeg")
        for setting, bpp in ((10, 0.4), (20, 0.2))
    ]
    means = mean_per_setting(load(table(tmp_path / "points.csv", *rows)))
    assert means["reference"].tolist() == ["original"] * 4 + ["autoencoder"] * 4
    assert means["codec"].tolist() == ["webp", "webp", "jpeg", "jpeg"] * 2
    assert means["setting"].tolist() == [20, 10] * 4


def test_curves_are_compared_over_complete_pictures_only(tmp_path):
    rows = [replace(POINT, codec=codec, picture=p) for codec in ("jpeg", "webp") for p in ("a.png", "b.png")]
    points = load(table(tmp_path / "points.csv", *rows, replace(POINT, setting=20)))
    assert select(points, ["jpeg", "webp"], "original")["picture"].unique().tolist() == ["a.png"]
    with pytest.raises(InputError, match="no points of vvc"):
        select(points, ["vvc"], "original")
    with pytest.raises(InputError, match="autoencoder's own reconstruction"):
        select(points, ["jpeg"], "autoencoder")
    both = pd.concat([points, points.assign(dataset="other")])
    with pytest.raises(InputError, match="several datasets"):
        select(both, ["jpeg"], "original")
    assert set(select(both, ["jpeg"], "original", "other")["dataset"]) == {"other"}


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(InputError, match="no results"):
        load(tmp_path / "points.csv")
    table(tmp_path / "good.csv", POINT)
    good = (tmp_path / "good.csv").read_text()
    for text, word in (
        ("", "not a table of results"),
        ("a,b\n1,2\n", "no column bpp"),
        (good.replace(",bpp,", ",rate,"), "no column bpp"),
        (good.replace(",0.2,", ",much,"), "'much' is no number, in column bpp"),
        (good.replace("original", "photo"), "'photo' is no reference"),
    ):
        (tmp_path / "points.csv").write_text(text)
        with pytest.raises(InputError, match=word):
            load(tmp_path / "points.csv")


def test_identical_curves_differ_by_nothing():
    percent, overlap = bd_rate(curve(RATES, PSNRS), curve(RATES, PSNRS), "psnr")
    assert percent == pytest.approx(0) and overlap == 1


@pytest.mark.parametrize("metric", ["psnr", "lpips_alex"])
def test_half_the_rate_is_minus_fifty_percent(metric):
    values = PSNRS if metric == "psnr" else 1 - PSNRS / 40
    percent, overlap = bd_rate(curve(RATES, values, metric), curve(RATES / 2, values, metric), metric)
    assert percent == pytest.approx(-50) and overlap == pytest.approx(1)


def test_curves_may_have_other_numbers_of_points():
    percent, _ = bd_rate(curve(RATES, PSNRS), curve(RATES[[0, 3]] * 2, PSNRS[[0, 3]]), "psnr")
    assert 50 < percent < 150


def test_too_little_overlap_is_refused():
    assert bd_rate(curve(RATES, PSNRS), curve(RATES, PSNRS + 20), "psnr") == (None, 0.0)
    percent, overlap = bd_rate(curve(RATES, PSNRS), curve(RATES, PSNRS + 5), "psnr")
    assert percent is None and overlap == pytest.approx(3 / 13)
    assert bd_rate(curve(RATES, PSNRS), curve(RATES[:1], PSNRS[:1]), "psnr") == (None, 0.0)


def test_points_that_cost_more_for_less_do_not_bend_the_curve():
    rates, values = np.append(RATES, 0.3), np.append(PSNRS, 28.0)
    assert bd_rate(curve(RATES, PSNRS), curve(rates, values), "psnr")[0] == pytest.approx(0)


def test_of_settings_of_one_rate_the_best_counts():
    rates, values = np.append(RATES, RATES[1]), np.append(PSNRS, PSNRS[1] - 0.5)
    assert bd_rate(curve(RATES, PSNRS), curve(rates, values), "psnr")[0] == pytest.approx(0)
    assert bd_rate(curve(RATES, PSNRS), curve(rates[::-1], values[::-1]), "psnr")[0] == pytest.approx(0)
    tied = curve(np.append(RATES, RATES[1]), np.append(PSNRS, PSNRS[1]))
    assert bdrate.at_rate(tied, "psnr", RATES[1]) == pytest.approx(PSNRS[1])


def test_the_command(tmp_path, capsys):
    rows = [
        replace(POINT, codec=codec, setting=setting, bpp=rate * factor, psnr=value)
        for codec, factor in (("webp", 1.0), ("live_plus", 0.5))
        for setting, (rate, value) in enumerate(zip(RATES, PSNRS, strict=True))
    ]
    path = table(tmp_path / "points.csv", *rows)
    arguments = ["--points", str(path), "--anchor", "webp", "--test", "live_plus"]
    assert bdrate.main([*arguments, "--metric", "psnr", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bd_rate"] == pytest.approx(-50) and answer["overlap"] == 1 and answer["pictures"] == 1
    assert bdrate.main([*arguments, "--metric", "psnr"]) == 0
    assert "-50.0 %" in capsys.readouterr().out
    assert run(lambda: bdrate.main([*arguments, "--metric", "dists"])) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run(lambda: bdrate.main(["--points", str(path)])) == 2
    assert "required" in capsys.readouterr().err


def test_bits_where_curves_share_little():
    """From the middle of what they share: half the bits there, whatever lies beyond."""
    anchor = pd.DataFrame({"bpp": [0.1, 0.2, 0.4], "psnr": [20.0, 22.0, 24.0], "dists": [0.4, 0.3, 0.2]})
    test = pd.DataFrame({"bpp": [0.1, 0.2, 0.8], "psnr": [22.0, 24.0, 40.0], "dists": [0.3, 0.2, 0.1]})
    assert bdrate.bd_rate(anchor, test, "psnr")[0] is None
    for metric, middle in (("psnr", 23.0), ("dists", 0.25)):
        value, share = bdrate.bits_between(anchor, test, metric)
        assert value == pytest.approx(middle) and share == pytest.approx(0.5, rel=0.1)
    assert bdrate.bits_between(anchor, test.assign(psnr=[30.0, 32.0, 34.0]), "psnr") is None


def test_the_matrix_holds_every_pair_and_its_overlap(tmp_path, capsys):
    rows = [
        replace(POINT, codec=codec, setting=setting, bpp=rate * factor, psnr=value + shift)
        for codec, factor, shift in (("webp", 1.0, 0), ("live_plus", 0.5, 0), ("heif", 1.0, 20))
        for setting, (rate, value) in enumerate(zip(RATES, PSNRS, strict=True))
    ]
    path = table(tmp_path / "points.csv", *rows)
    pairs = bdrate.matrix(load(path)).set_index(["anchor", "test", "metric"])
    assert len(pairs) == 6
    assert pairs.loc[("webp", "live_plus", "psnr"), "bd_rate"] == pytest.approx(-50)
    assert pairs.loc[("live_plus", "webp", "psnr"), "bd_rate"] == pytest.approx(100)
    assert pd.isna(pairs.loc[("heif", "live_plus", "psnr"), "bd_rate"])
    assert bdrate.main(["--points", str(path), "--test", "live_plus"]) == 0
    shown = capsys.readouterr().out
    assert "| webp | -50.0 % (1.00) |" in shown and "| heif | N/A (0.00) |" in shown
    assert bdrate.main(["--points", str(path), "--test", "live_plus", "--metric", "psnr"]) == 0
    assert capsys.readouterr().out.startswith("| against | PSNR (dB) |\n")
    assert bdrate.main(["--points", str(path), "--test", "live_plus", "--json"]) == 0
    answers = {row["anchor"]: row["bd_rate"] for row in json.loads(capsys.readouterr().out)}
    assert answers == {"webp": pytest.approx(-50), "heif": None}


def test_the_table_says_what_the_single_comparison_says(tmp_path, capsys):
    """A tenth of a percent is rounded once: -10.746 is no -10.8 by way of -10.75."""
    rows = [
        replace(POINT, codec=codec, setting=setting, bpp=rate * factor, psnr=value)
        for codec, factor in (("webp", 1.0), ("live_plus", 1 - 0.10746))
        for setting, (rate, value) in enumerate(zip(RATES, PSNRS, strict=True))
    ]
    common = ["--points", str(table(tmp_path / "points.csv", *rows)), "--test", "live_plus", "--metric", "psnr"]
    for arguments in ([], ["--anchor", "webp"]):
        assert bdrate.main([*common, *arguments]) == 0
        assert "-10.7 %" in capsys.readouterr().out


def test_a_matrix_of_nothing_is_refused(tmp_path, capsys):
    alone, several = table(tmp_path / "a.csv", POINT), table(tmp_path / "b.csv", POINT, replace(POINT, dataset="other"))
    for arguments, word in (
        (["--points", str(alone), "--test", "nothing"], "no points of nothing against the original; they hold jpeg"),
        (
            ["--points", str(alone), "--test", "jpeg", "--reference", "autoencoder"],
            "own reconstruction; they hold none",
        ),
        (["--points", str(alone), "--test", "jpeg"], "nothing to compare jpeg with"),
        (["--points", str(several), "--test", "jpeg"], "several datasets"),
        (["--points", str(alone), "--test", "jpeg", "--dataset", "none"], "no dataset none; they hold set"),
    ):
        assert run(lambda arguments=arguments: bdrate.main(arguments)) == 2
        error = capsys.readouterr().err
        assert word in error and error.count("\n") == 1


def test_names_between_commas():
    assert names_of("psnr,,dists,psnr", "metric", METRICS) == ["psnr", "dists"]
    for text, word in ((",", "at least one metric"), ("psnr,ssim", "unknown metric ssim; choose from psnr, ms_ssim")):
        with pytest.raises(InputError, match=word):
            names_of(text, "metric", METRICS)


def test_only_the_peers_points_against_the_original_outlive_our_weights(tmp_path, capsys):
    rows = [replace(POINT, codec=c, reference=r) for c in ("jpeg", "live_plus") for r in ("original", "autoencoder")]
    path = table(tmp_path / "points.csv", *rows, replace(POINT, psnr=None, dists=0.25))
    assert results.main(["--points", str(path), "--peers", "--out", str(tmp_path / "new" / "kept.csv")]) == 0
    kept = load(tmp_path / "new" / "kept.csv")
    assert kept[["codec", "reference", "psnr", "dists"]].values.tolist() == [["jpeg", "original", 30.0, 0.25]]
    assert len((tmp_path / "new" / "kept.csv").read_text().splitlines()) == 2, "one row a point"
