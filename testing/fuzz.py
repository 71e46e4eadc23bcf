"""``python -m testing.fuzz``: damaged and hostile files by the ten thousand, and what became of each.

    python -m testing.fuzz --count 200000 --json > results/fuzz.json

Seven layers: the whole file as it was altered (file -> picture), then what lies behind its checksums, which most of the
files for these layers carry right: the container (bytes -> fields), the coder (stream -> symbols) and the codec (file ->
picture, everything); of clips the whole file, the container and the codecs. Every trial runs in a process apart, with
limits of memory and time, and is made from the seed and its number alone. Exit code 1: something failed.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tqdm import tqdm

from live.command import Parser, run
from live.errors import InputError

from .attacks import SILENT, Attack, Codec, Coder, Container, File
from .clip_attacks import ClipCodecs, ClipContainer, ClipFile
from .isolated import CRASH, HANG, NO_MEMORY, Isolated

LAYERS: dict[str, tuple[type[Attack], float]] = {
    "file": (File, 0.475),
    "container": (Container, 0.175),
    "coder": (Coder, 0.125),
    "codec": (Codec, 0.15),
    "clips: file": (ClipFile, 0.025),
    "clips: container": (ClipContainer, 0.025),
    "clips: codec": (ClipCodecs, 0.025),
}
"""What is attacked, how, and its share of all files."""
SECONDS, MEMORY = 60.0, 2 << 30
"""Limits of one trial: seconds of CPU time, and bytes beyond the loaded models. A file of 759 bytes may claim 10^8 pixels,
which are decoded at several millions a second, and a forged one is decoded three times."""
FAILURES = (CRASH, HANG, NO_MEMORY, SILENT)


def campaign(count: int, seed: int) -> dict[str, Any]:
    """``count`` trials over the layers: how many ended how, the longest and largest, and every failure."""
    table: dict[str, Any] = {"count": 0, "seed": seed, "seconds_limit": SECONDS, "memory_limit_mb": MEMORY >> 20}
    table |= {"layers": {}, "failures": []}
    with tqdm(total=count, unit="file") as progress:
        for layer, (attack, share) in LAYERS.items():
            outcomes, cpu_s, extra_mb = Counter(), 0.0, 0.0
            with Isolated(attack(seed), SECONDS, MEMORY) as isolated:
                for number in range(round(count * share)):
                    result = isolated.run(number)
                    outcomes[result.outcome] += 1
                    cpu_s, extra_mb = max(cpu_s, result.cpu_s), max(extra_mb, result.extra_mb)
                    if result.outcome in FAILURES:
                        failure = {"layer": layer, "number": number, "outcome": result.outcome, "detail": result.detail}
                        table["failures"].append(failure)
                    progress.update()
            table["count"] += outcomes.total()
            largest = {"longest_cpu_s": round(cpu_s, 2), "extra_memory_mb": round(extra_mb)}
            table["layers"][layer] = {"outcomes": dict(outcomes.most_common()), **largest}
    return table


def text(table: dict[str, Any]) -> str:
    """A campaign's table to read, as Markdown, then its failures."""
    layers = table["layers"]
    lines = ["| outcome | " + " | ".join(layers) + " |", "|---|" + "---:|" * len(layers)]
    found = [layer["outcomes"] for layer in layers.values()]
    names = sorted(set().union(*found) - set(FAILURES)) + list(FAILURES)
    lines += [f"| {name} | " + " | ".join(str(outcomes.get(name, 0)) for outcomes in found) + " |" for name in names]
    for failure in table["failures"]:
        lines.append(f"{failure['layer']} {failure['number']}: {failure['outcome']} {failure['detail']}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code, 1 when a trial crashed, hung, ran out of memory or was silently wrong."""
    parser = Parser(
        prog="python -m testing.fuzz", description="Decode damaged and hostile files; count what becomes of them."
    )
    parser.add_argument("--count", type=int, default=2000, help="files in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (%(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args(argv)
    if args.count < 1:
        raise InputError("--count must be at least 1")
    table = campaign(args.count, args.seed)
    print(json.dumps(table, indent=1) if args.json else text(table))
    return int(bool(table["failures"]))


if __name__ == "__main__":
    raise SystemExit(run(main))
