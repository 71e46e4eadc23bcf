"""Writing and finding files: output by rename, nothing half-written; the pictures below a folder, the clips in one."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import InputError, OutputError, reason

# fmt: off
PICTURE_SUFFIXES = frozenset([
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tga", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif", ".ico", ".pcx", ".psd", ".qoi", ".sgi",
])
CLIP_SUFFIXES = frozenset([
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".y4m", ".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".wmv",
    ".asf", ".flv", ".ogv", ".3gp", ".mxf", ".nut", ".ivf", ".h264", ".264", ".h265", ".265", ".hevc", ".obu", ".vvc", ".dv",
])
# fmt: on
DEBRIS = ".live-"
"""How temporary files and folders begin."""


def check_output(path: Path, force: bool) -> None:
    """Refuse early, before any work: an existing output without --force, or a folder that cannot be written."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is not a regular file; give another name with -o")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already; use --force to replace it")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"no permission to write in {folder}")


def check_folder(path: Path) -> None:
    """Refuse early a folder that could not be made, or not be written in."""
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise OutputError(f"cannot make the folder {path}: {there} is a file")
    if not os.access(there, os.W_OK):
        raise OutputError(f"no permission to write in {there}")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are not there; OutputError when that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror}") from None


def write_atomic(path: Path, data: bytes, check: Callable[[bytes], None] | None = None) -> None:
    """Write ``data`` under the name ``path``, which keeps its old file until the new one is whole (see ``replacing``).

    check: is given what was written, read back from disk, before the rename; what it raises leaves the old file.
    """
    with replacing(path) as (file, place):
        file.write(data)
        file.flush()
        if check is not None:
            check(place.read_bytes())


@contextmanager
def replacing(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the folder of ``path``, open and by a path of its own, for the block to write and not to close; then
    it takes the name ``path``.

    The old file stays whole until then, and for good if the block raises; OSError becomes OutputError. A process killed
    in between leaves nothing where the system knows files without a name (``_nameless``), but for the moment of the
    rename; elsewhere the temporary file, hidden and named ``.live-...``, which nothing here reads.
    """
    temporary = _beside(path)
    try:
        with _nameless(path.parent) or open(temporary, "x+b") as file:
            named = isinstance(file.name, str)
            place = temporary if named else _place_of(file.fileno())
            yield file, place
            file.flush()
            if not named:
                _name(file.fileno(), temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from error
    finally:  # after the rename there is none; after an error or Ctrl-C it would be debris
        temporary.unlink(missing_ok=True)


def _nameless(folder: Path) -> BinaryIO | None:
    """A file in ``folder`` that has no name yet and is gone when nothing holds it open; None where the system, its /proc
    (perhaps another namespace's) or the file system has no such thing. What else is wrong is said of the named file."""
    try:
        number = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError):
        return None
    with suppress(OSError):
        if os.path.samestat(os.stat(_place_of(number)), os.fstat(number)):
            return os.fdopen(number, "w+b")
    os.close(number)
    return None


def _place_of(number: int) -> Path:
    """Where other processes find an open file too, that has no name."""
    return Path(f"/proc/{os.getpid()}/fd/{number}")


def _name(number: int, path: Path) -> None:
    """Give an open file without a name one; where links are refused, its bytes."""
    try:  # a link to what the place links to: without a folder Python makes one to the place itself
        os.link(_place_of(number), path, src_dir_fd=number)
    except OSError:
        shutil.copyfile(_place_of(number), path)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder, which may take the place of an empty one but of no other."""
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {reason(error)}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A name that nothing has. It is made up before anything is made under it: no signal comes between that and its removal."""
    return path.with_name(f"{DEBRIS}{secrets.token_hex(8)}")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file or pipe; InputError in words when it is missing, a folder, a device or unreadable."""
    try:
        _refuse_device(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, not a file") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def _refuse_device(path: Path) -> None:
    """InputError where reading may have no end: /dev/zero, a terminal."""
    if path.is_char_device() or path.is_block_device():
        raise InputError(f"{path} is a device, not a file")


def require_file(path: Path) -> None:
    """InputError in words when there is no such file or pipe, or it is a folder or a device."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a file")
    if not path.exists():
        raise InputError(f"{path} does not exist")
    _refuse_device(path)


def require_regular_file(path: Path) -> None:
    """The same where parts are read more than once, which a pipe does not give."""
    require_file(path)
    if not path.is_file():
        raise InputError(f"{path} is a pipe, and what is read here must be a file; save it as one first")


def default_output(path: Path, suffix: str) -> Path:
    """The output that an input has by default: its own name with another suffix; OutputError for a pipe, which has none."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OutputError(f"{path} is a pipe; name the output with -o")
    return path.with_suffix(suffix)


def files_in(folder: Path, suffixes: Collection[str], deep: bool = False) -> list[Path]:
    """The files in a folder, ``deep`` those below it too, that have one of these suffixes, in lower case; sorted, without what
    a killed process has left (see ``replacing``)."""
    found = (
        path for path in folder.glob("**/*" if deep else "*") if path.suffix.lower() in suffixes and path.is_file()
    )
    return sorted(path for path in found if not any(part.startswith(DEBRIS) for part in path.relative_to(folder).parts))


def picture_files(folder: str | Path) -> list[Path]:
    """All pictures below a folder, by suffix, sorted; InputError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    files = files_in(folder, PICTURE_SUFFIXES, deep=True)
    if not files:
        raise InputError(f"no pictures below {folder}")
    return files


def clip_files(folder: str | Path) -> list[Path]:
    """All clips in a folder, by suffix, sorted; InputError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    files = files_in(folder, CLIP_SUFFIXES)
    if not files:
        raise InputError(f"no clips in {folder}")
    return files
