"""The README's tables of exactness, GLC's parts, hostile files, sizes, lengths and speed, as Markdown, from results/.

``testing.figures`` puts them into the README; the commands that make the files stand above each table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import aims, clip_speed, exactness, fuzz, glc, lengths, results, sizes
from .bdrate import matrix, matrix_markdown

COMMANDS = {
    "fuzz": "fuzz --count {count}",
    "speed": "speed --threads 2",
    "clip_speed": "clip_speed --clip bikes.mp4 --threads 2",
    "sizes_16k": "sizes --sizes 268",
}
"""The modules of ``testing`` that make tables, with their arguments, where a table is not a module's of its name alone; in
braces what the table itself says."""
ABLATION, WHOLE = "glc_ablation.csv", "glc_stage2"
"""The points of GLC's ablations, and which of its codecs is the one that lacks nothing."""
DISTANCES = "fid.jsonl"
STAGES = ("autoencoder", "transforms_and_entropy_networks", "entropy_coding_and_container")


def speed_text(facts: dict[str, Any]) -> str:
    """``testing.speed``'s stages, whole paths and peers in milliseconds, and the aims."""
    ours, theirs = (facts["encoding_ms"], facts["decoding_ms"]), facts["compressai_float_ms"]
    rows = [(name.replace("_", " "), ours[0][name], ours[1][name]) for name in STAGES]
    rows.append(("latents and file", ours[0]["latents_to_file"], ours[1]["file_to_latents"]))
    for path, name in (
        ("our networks", "the same networks"),
        ("ScaleHyperprior as published", "its smaller ScaleHyperprior"),
    ):
        both = theirs[path]
        rows.append((f"{name} by CompressAI, in floats", both["latents_to_file"], both["file_to_latents"]))
    rows.append(("**photo and file**", ours[0]["photo_to_file"], ours[1]["file_to_photo"]))
    for name, peer in facts["peers_ms"].items():
        there = peer.get("photo_to_file", peer.get("photo_to_latents"))
        back = peer.get("file_to_photo", peer.get("latents_to_photo"))
        rows.append((name.replace("_", " "), there, back))
    lines = [f"| {facts['photo']}, {facts['threads']} threads | to the file (ms) | back (ms) |", "|---|---:|---:|"]
    lines += [f"| {name} | {there:.0f} | {back:.0f} |" for name, there, back in rows]
    starts = ", ".join(f"`{name}` {value:.0f} ms" for name, value in facts["start_up_ms"].items())
    folder = facts["pictures_per_second"]
    processes = (
        f"Whole processes: {starts}. Compressing a folder: {folder['as a folder']:.2f} pictures a second, "
        f"{folder['one by one']:.2f} one by one. What was aimed at:"
    )
    return "\n\n".join(("\n".join(lines), processes, aims.speed_table(facts)))


def ablation_text(path: Path) -> str:
    """BD-rate of GLC's stage II against the same without one of its parts."""
    rows = matrix(results.load(path))
    return (
        "GLC's ablations on Kodak, BD-rate of the whole stage II against the same without one of its parts (`glc_factorised`: a "
        "factorised hyperprior in place of the categorical one; `glc_no_code`: no code prediction), in brackets the overlap "
        "(`scripts/ablate_glc.sh`):\n\n" + matrix_markdown(rows[rows["test"] == WHOLE])
    )


def distances_text(path: Path) -> str:
    """FID and KID by codec and setting, as ``testing.fid --json`` printed them."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    facts = rows[0]
    command = "python -m testing.fid --reference kodak --points OUT/points.csv --codec C --setting S"
    lines = ["| codec | setting | bpp | FID | KID x 1000 |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row['codec']} | {row['setting']:g} | {row['bpp']:.4f} | {row['fid']:.1f} | {1000 * row['kid']:.1f} |"
        for row in rows
    ]
    title = f"Distances of the decoded Kodak photos from the originals over {facts['patches']} patches of {facts['patch']} px"
    return f"{title} (`{command} --patch {facts['patch']} --json >> results/{path.name}`, once a row):\n\n" + "\n".join(
        lines
    )


def texts(folder: Path) -> list[str]:
    """Paragraphs and tables of what there is in ``folder``."""
    parts: list[str] = []
    for name, title, text in (
        (
            "exactness",
            "What integers cost in bits over the Kodak photos; of codecs of clips in the predicted frames of a window that moves "
            "over each; of `glc` in the table after it",
            lambda facts: exactness.table(facts["rows"]),
        ),
        ("glc", "What the parts of GLC's files cost over the Kodak photos", lambda facts: glc.table(facts["rows"])),
        ("fuzz", "Damaged and hostile files, by layer, and what became of them", fuzz.text),
        ("sizes", "Size, time and memory, as whole processes", lambda facts: sizes.table(facts["rows"])),
        (
            "sizes_16k",
            "The same of 16384 x 16384, beside other work",
            lambda facts: sizes.table(facts["rows"]),
        ),
        ("lengths", "Clips of 64 x 48 by length, as whole processes", lambda facts: lengths.table(facts["rows"])),
        ("speed", "Speed by stage, medians", speed_text),
        ("clip_speed", "Frames a second of clips by stage, medians", clip_speed.table),
    ):
        path = folder / f"{name}.json"
        if path.is_file():
            facts = json.loads(path.read_text())
            threads = "OMP_NUM_THREADS=1 " if facts.get("threads") == "1" else ""  # text: what the variable held
            module = COMMANDS.get(name, name).format_map(facts)
            command = f"{threads}python -m testing.{module} --json > results/{name}.json"
            parts += [f"{title} (`{command}`):", text(facts)]
    if (folder / ABLATION).is_file():
        parts.append(ablation_text(folder / ABLATION))
    if (folder / DISTANCES).is_file():
        parts.append(distances_text(folder / DISTANCES))
    return parts
