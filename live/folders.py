"""Folder jobs of the ``live`` command: every file by itself, several side by side. A bad one stops none of the others; those are
named at the end, and make the exit code 1."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from . import commands
from .errors import InputError, LiveError, OutputError, is_out_of_memory, reason
from .files import CLIP_SUFFIXES, check_folder, check_output, files_in, make_folder, picture_files, read_bytes
from .video.commands import holds_clip

Row = TypeVar("Row")


def compress(args: Namespace) -> int:
    """live compress: every picture below a folder, ``a.jpg`` to ``a.jpg.live``, with a table at the end."""
    files, target = picture_files(args.input), _target(args, "a folder of pictures")
    from . import api
    from .media import parse_colour

    api.check_choice(**commands.choice(args), target_bpp=args.target_bpp, refine=args.refine)
    if args.alpha is not None:
        parse_colour(args.alpha)

    def one(source: Path) -> tuple[Path, int, int]:
        output = target / source.relative_to(args.input).with_suffix(source.suffix + commands.FILE_SUFFIX)
        _check(output, args.force)
        return source, *commands.compress_picture(args, source, output)

    rows, failures = _each(one, files, "picture", together=not args.refine)
    for source, size, pixels in rows:
        print(f"{source.relative_to(args.input)!s:40} {size:10d} bytes {8 * size / pixels:8.4f} bpp")
    total, area = sum(row[1] for row in rows), sum(row[2] for row in rows)
    if rows:
        print(f"{len(rows)} picture{'s' * (len(rows) > 1)}, {total} bytes, {8 * total / area:.4f} bpp")
    left = [path for path in files_in(args.input, {*CLIP_SUFFIXES, ""}, deep=True) if not path.name.startswith(".")]
    if left:
        count = "1 clip or file without a suffix" if len(left) == 1 else f"{len(left)} clips or files without a suffix"
        print(f"live: not of this job: {count}, such as {left[0]}", file=sys.stderr)
    return _named(failures)


def decompress(args: Namespace) -> int:
    """live decompress: every LIVE file below a folder, ``a.jpg.live`` to ``a.jpg.png``, or to safetensors if it holds latents."""
    files = files_in(args.input, {commands.FILE_SUFFIX}, deep=True)
    if not files:
        raise InputError(f"no {commands.FILE_SUFFIX} files below {args.input}")
    target = _target(args, "a folder of files")

    def one(source: Path) -> Path:
        if holds_clip(source):
            raise InputError(
                f"{source} holds a clip; live decompress it by itself, or live latents unpack if it holds latents"
            )
        data = read_bytes(source)
        latents = commands.holds_latents(args, source, data)
        suffix = commands.LATENT_SUFFIX if latents else ".png"
        output = (target / source.relative_to(args.input)).with_suffix(suffix)
        _check(output, args.force)
        make_folder(output.parent)
        (commands.decompress_latents if latents else commands.decompress_picture)(args, data, output)
        return output

    rows, failures = _each(one, files, "file")
    print(f"{target}: {len(rows)} of {len(files)} files decoded")
    return _named(failures)


class _There(OutputError):
    """An output that an earlier job has made, perhaps."""


def _check(output: Path, force: bool) -> None:
    if output.is_file() and not force:
        raise _There(str(output))
    if output.exists():
        check_output(output, force)


def _target(args: Namespace, what: str) -> Path:
    """The folder that output goes to: the input itself unless another is given."""
    target = args.output or args.input
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; {what} needs a folder with -o")
    check_folder(target)
    return target


def _each(
    one: Callable[[Path], Row], files: list[Path], unit: str, together: bool = True
) -> tuple[list[Row], list[str]]:
    """What ``one`` makes of each file, in order, and why it failed where it did, outputs that are there already in one sentence.
    together: several at a time, a core each."""
    from tqdm import tqdm

    from .parallel import side_by_side

    there: list[str] = []

    def attempt(source: Path) -> Row | str:
        try:
            return one(source)
        except _There as error:
            there.append(str(error))
            return ""
        except LiveError as error:
            return str(error) if str(source) in str(error) else f"{source}: {error}"
        except OSError as error:  # such as a name that is too long with .live behind it
            return f"{source}: {reason(error)}"
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return f"{source}: not enough memory for a picture of this size"

    made = side_by_side(attempt, files) if together else map(attempt, files)
    done = list(tqdm(made, total=len(files), unit=unit, file=sys.stderr))
    failures = [row for row in done if row and isinstance(row, str)]
    if there:
        what = "1 output exists" if len(there) == 1 else f"{len(there)} outputs exist"
        failures.append(f"{what} already, such as {min(there)}, and stayed; use --force to replace them")
    return [row for row in done if not isinstance(row, str)], failures


def _named(failures: list[str]) -> int:
    """Print why files failed; the job's exit code."""
    for failure in failures:
        print(f"live: {failure}", file=sys.stderr)
    return int(bool(failures))
