"""Every refusal the library makes. Each error carries the one sentence that the ``live`` command prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class LiveError(Exception):
    """Base of all refusals; ``str(error)`` is one line saying what is wrong and what to do."""


class InputError(LiveError):
    """The input cannot be used: missing, not a picture, wrong shape, unknown option value."""


class OutputError(LiveError):
    """The output cannot be written: it exists already, or the place is not writable."""


class ConfigError(LiveError):
    """A configuration file is malformed or names a key that does not exist."""


class ModelError(LiveError):
    """An autoencoder, a codec checkpoint or metric weights are missing, damaged or not what was asked for."""


class NotLiveFile(LiveError):
    """The bytes are not a LIVE file (wrong magic)."""


class NewerFormat(LiveError):
    """A LIVE file of a format version that this release does not read."""


class UnknownModel(ModelError):
    """The file names a codec checkpoint or an autoencoder that is not here."""


class DamagedFile(LiveError):
    """The file is truncated or altered: a length, a bound or the file's CRC-32 does not hold."""


class DecodeMismatch(LiveError):
    """The decoded symbols are not those that were encoded (the CRC-32 over the symbols does not hold)."""


def first_line(error: Exception) -> str:
    """What another library said, as part of a sentence of ours: its first line, or its kind if it said nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def reason(error: OSError) -> str:
    """Why the system, or a library that raises OSError too, could not do something."""
    return error.strerror or first_line(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, which torch says by a RuntimeError: its CPU allocator's words, or a GPU's own kind."""
    said = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return said or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within it, refusals name the file."""
    try:
        yield
    except LiveError as error:
        raise type(error)(f"{path}: {error}") from None
