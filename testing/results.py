"""Every measured point in one tidy CSV, and the only place that knows its columns.

One row is one picture, coded by one codec at one setting, scored against one reference.

python -m testing.results --points points.csv --out kept.csv [--peers]     one row a point; --peers: see ``of_peers``
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from live.command import Parser, run
from live.errors import InputError, OutputError
from live.files import make_folder, write_atomic

from .anchors import ANCHORS


@dataclass(frozen=True)
class Metric:
    """How a metric is shown and compared; ``smallest``: shortest side in px of a picture at which it is defined."""

    label: str
    higher_is_better: bool
    digits: int
    smallest: int = 1


METRICS = {
    "psnr": Metric("PSNR (dB)", True, 2),
    "ms_ssim": Metric("MS-SSIM", True, 4, 161),
    "lpips_alex": Metric("LPIPS-Alex", False, 4, 31),
    "lpips_alex_shifted": Metric("LPIPS-Alex, shifted", False, 4, 44),
    "lpips_vgg": Metric("LPIPS-VGG", False, 4, 16),
    "dists": Metric("DISTS", False, 4, 16),
}
REFERENCES = {
    "original": "against the original",
    "autoencoder": "against the autoencoder's own reconstruction",
}


@dataclass(frozen=True)
class Point:
    """A row. bytes: of the file on disk; bpp: 8 * bytes / (width * height); seconds of wall time, one run each,
    and how many of them the autoencoder took, where a codec has one. Codecs that run programs of their own do so on all
    cores at once, one file a core.

    setting: the codec's own dial; reference: what the decoded 8-bit RGB was compared with, a key of ``REFERENCES``.
    Metrics that were not asked for, or are not defined at the picture's size, are None and stay empty.
    """

    dataset: str
    picture: str
    codec: str
    setting: float
    reference: str
    width: int
    height: int
    bytes: int
    bpp: float
    psnr: float | None = None
    ms_ssim: float | None = None
    lpips_alex: float | None = None
    lpips_alex_shifted: float | None = None
    lpips_vgg: float | None = None
    dists: float | None = None
    encode_s: float | None = None
    decode_s: float | None = None
    encode_autoencoder_s: float | None = None
    decode_autoencoder_s: float | None = None


COLUMNS = [field.name for field in fields(Point)]
KEY = ["dataset", "picture", "codec", "setting", "reference"]
SECONDS = [name for name in COLUMNS if name.endswith("_s")]


def append(path: Path, *rows: Any) -> None:
    """Add rows, all of one dataclass, with the header if the file is new. OutputError when it cannot be written."""
    make_folder(path.parent)
    new = not path.exists()
    try:
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns_of(type(rows[0])))
            if new:
                writer.writeheader()
            writer.writerows(map(asdict, rows))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


def drop_unfinished(path: Path) -> None:
    """Drop a table's last line if a full disk or a kill left it unfinished, else the next row would go on with it; and the table
    if it has no other."""
    if not path.exists():
        return
    try:
        with path.open("r+b") as table:
            whole = table.truncate(table.read().rfind(b"\n") + 1)
        if not whole:
            path.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None


def add_columns(path: Path) -> None:
    """Write a table that was begun before a column of ``Point`` was there anew, so that rows can be added to it."""
    if path.exists() and path.read_text().partition("\n")[0].split(",") != COLUMNS:
        save(load(path), path)


def columns_of(kind: type) -> list[str]:
    """The columns of a table whose rows are of a dataclass."""
    return [field.name for field in fields(kind)]


def load(path: Path) -> pd.DataFrame:
    """All points, as ``rows_of`` reads them; InputError also for a reference that is not known."""
    points = rows_of(path, Point, KEY, "testing.evaluate")
    if unknown := set(points["reference"]) - set(REFERENCES):
        raise InputError(f"{path} is not a table of results: {unknown.pop()!r} is no reference")
    return points


def rows_of(path: Path, kind: type, key: list[str], maker: str) -> pd.DataFrame:
    """A table of the dataclass ``kind``: of several rows with one key each column keeps its last value that is not empty.

    maker: the module that makes such tables. InputError when the file is missing or is no such table.
    """
    text = {field.name: str for field in fields(kind) if field.type == "str"}
    try:
        # In columns of names nothing stands for "missing": a folder may be called NA.
        numeric = [field.name for field in fields(kind) if field.name not in text]
        rows = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={name: [""] for name in numeric})
    except FileNotFoundError:
        raise InputError(f"there are no results at {path}; make them with: python -m {maker}") from None
    except (ValueError, OSError):
        raise InputError(f"{path} is not a table of results") from None
    required = {field.name for field in fields(kind) if field.default is MISSING}
    if missing := sorted(required - set(rows.columns)):
        raise InputError(f"{path} is not a table of results: it has no column {missing[0]}")
    for name in rows.columns.intersection([name for name in columns_of(kind) if name not in text]):
        numbers = pd.to_numeric(rows[name], errors="coerce")
        if (wrong := rows.loc[numbers.isna() & rows[name].notna(), name]).size:
            raise InputError(f"{path} is not a table of results: {wrong.iloc[0]!r} is no number, in column {name}")
        rows[name] = numbers
    return rows.groupby(key, as_index=False, sort=False).last().reindex(columns=columns_of(kind))


def save(points: pd.DataFrame, path: Path) -> None:
    """Write a whole table at once, metrics and seconds to six decimals. OutputError when it cannot be written."""
    make_folder(path.parent)
    rounded = points.round(dict.fromkeys((*METRICS, *SECONDS), 6))
    write_atomic(path, rounded.to_csv(index=False).encode())


def of_peers(points: pd.DataFrame) -> pd.DataFrame:
    """The points that do not depend on our weights: those of the peers against the original."""
    return points[points["codec"].isin(ANCHORS) & (points["reference"] == "original")]


def load_published(path: Path) -> pd.DataFrame:
    """Others' figures, one row a point: name, reference, source, bpp and the metrics; InputError when it is no such table."""
    try:
        table = pd.read_csv(path)
        return table[["name", "reference", "source", "bpp"]].join(table.reindex(columns=list(METRICS)))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (ValueError, KeyError, OSError):
        raise InputError(f"{path} is not a table of published figures") from None


@dataclass(frozen=True)
class Done:
    """What a table holds already.

    complete: keys (in the order of ``KEY``) of the points that have all metrics asked for, as far as each is defined;
    files: size in bytes and seconds (in the order of ``SECONDS``) of each coded file, by the key without the reference.
    """

    complete: set[tuple[object, ...]] = field(default_factory=set)
    files: dict[tuple[object, ...], tuple[float, ...]] = field(default_factory=dict)


def done(points: pd.DataFrame, metrics: list[str]) -> Done:
    """What of these metrics the points hold."""
    shortest = points[["width", "height"]].min(axis=1)
    complete = pd.Series(True, points.index)
    for name in metrics:
        complete &= points[name].notna() | (shortest < METRICS[name].smallest)
    keys = points[KEY[:-1]].itertuples(index=False, name=None)
    files = dict(zip(keys, points[["bytes", *SECONDS]].itertuples(index=False, name=None), strict=True))
    return Done(set(points.loc[complete, KEY].itertuples(index=False, name=None)), files)


def mean_per_setting(points: pd.DataFrame) -> pd.DataFrame:
    """One row a (dataset, reference, codec, setting), ascending in rate: means over the pictures and their number.

    The original comes first; codecs stay in order of appearance. Each picture counts once whatever its size: PSNR is
    a mean of dB, bpp of bpp. A metric that was measured of some of the pictures alone has no mean; those that are too small
    for it do not count.
    """
    key = ["dataset", "reference", "codec", "setting"]
    groups = points.groupby(key, sort=False)
    means = groups[["bytes", "bpp", *METRICS, *SECONDS]].mean()
    shortest = points[["width", "height"]].min(axis=1)
    for name, metric in METRICS.items():
        lacking = (points[name].isna() & (shortest >= metric.smallest)).groupby(
            [points[column] for column in key], sort=False
        )
        means.loc[lacking.any(), name] = float("nan")
    means.insert(0, "pictures", groups.size())
    means = means.reset_index()
    ranks = {name: rank for rank, name in enumerate([*REFERENCES, *points["codec"].unique()])}
    order = means.assign(reference=means["reference"].map(ranks), codec=means["codec"].map(ranks))
    return means.loc[order.sort_values(["dataset", "reference", "codec", "bpp"]).index].reset_index(drop=True)


def check_names(rows: pd.DataFrame, column: str, dataset: str, names: list[str], out: Path) -> None:
    """InputError when a results folder holds files of another dataset under the same names, which would be overwritten."""
    others = rows[(rows["dataset"] != dataset) & rows[column].isin(names)]
    if len(others):
        whose = others["dataset"].iloc[0]
        raise InputError(
            f"{out} holds {whose}'s {others[column].iloc[0]}, and {dataset} has one too; give another --out"
        )


def of_dataset(points: pd.DataFrame, dataset: str | None = None) -> pd.DataFrame:
    """The points of one dataset, by name where there are several; InputError naming them when that leaves none or many."""
    names = points["dataset"].unique()
    if dataset is None and len(names) > 1:
        raise InputError(f"the results hold several datasets ({', '.join(names)}); choose one with --dataset")
    if dataset is not None and dataset not in names:
        raise InputError(f"the results hold no dataset {dataset}; they hold {', '.join(names) or 'none'}")
    return points if dataset is None else points[points["dataset"] == dataset]


def select(points: pd.DataFrame, codecs: list[str], reference: str, dataset: str | None = None) -> pd.DataFrame:
    """The points of some codecs against one reference, over the pictures that all of them coded at all their settings.

    So that curves are compared over the same pictures. InputError when a codec or the dataset has no points, there are
    several datasets and none was chosen, or no picture is complete.
    """
    points = of_dataset(points[points["reference"] == reference], dataset)
    for codec in codecs:
        if codec not in set(points["codec"]):
            known = ", ".join(points["codec"].unique()) or "none"
            raise InputError(f"the results hold no points of {codec} {REFERENCES[reference]}; they hold {known}")
    points = points[points["codec"].isin(codecs)]
    settings = points.groupby("codec")["setting"].nunique().sum()
    counts = points.groupby("picture").size()
    chosen = points[points["picture"].isin(counts[counts == settings].index)]
    if chosen.empty:
        raise InputError(f"no picture was coded by {' and '.join(codecs)} at all their settings; finish the evaluation")
    return chosen


def measured(points: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The points of those codecs that a metric was measured of, over the pictures of which it was measured throughout.

    So that the means of metric and rate are over the same pictures, whatever else was measured of others; may be empty.
    """
    points = points[points["codec"].isin(points.loc[points[metric].notna(), "codec"])]
    return points[~points["picture"].isin(points.loc[points[metric].isna(), "picture"])]


def markdown(means: pd.DataFrame, metrics: list[str]) -> str:
    """A Markdown table of ``mean_per_setting``'s rows: codec, setting, mean bytes, bpp and the given metrics."""
    header = ["codec", "setting", "pictures", "bytes", "bpp", *(METRICS[name].label for name in metrics)]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for row in means.itertuples(index=False):
        figures = [_number(getattr(row, name), METRICS[name].digits) for name in metrics]
        rows.append([row.codec, f"{row.setting:g}", f"{row.pictures}", f"{row.bytes:.0f}", f"{row.bpp:.4f}", *figures])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)


def names_of(text: str, what: str, known: Collection[str] | None = None) -> list[str]:
    """The names that a command was given with commas between them, each once; InputError for none, or an unknown one."""
    names = list(dict.fromkeys(name for name in text.split(",") if name))
    if not names:
        raise InputError(f"give at least one {what}")
    for name in names:
        if known is not None and name not in known:
            raise InputError(f"unknown {what} {name}; choose from {', '.join(known)}")
    return names


def _number(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="python -m testing.results", description="Write a table of results anew, one row a point.")
    parser.add_argument("--points", type=Path, required=True, metavar="CSV", help="results of testing.evaluate")
    parser.add_argument("--peers", action="store_true", help="only the points that do not depend on our weights")
    parser.add_argument("--out", type=Path, required=True, metavar="CSV")
    args = parser.parse_args(argv)
    points = load(args.points)
    points = of_peers(points) if args.peers else points
    save(points, args.out)
    print(f"{args.out}: {len(points)} points")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
