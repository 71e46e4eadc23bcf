"""What every command of the project shares: usage errors and refusals are one line on stderr, with exit code 2."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import InputError, LiveError, is_out_of_memory, reason


class Parser(argparse.ArgumentParser):
    """Says usage errors as one line, like every other refusal."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[], int], interrupted: str = "nothing half-written") -> int:
    """Call ``main`` and return the exit code: its own, 2 (refused) or 130 (interrupted; says what became of the work)."""
    try:
        with _terminated_as_interrupted():
            return main()
    except LiveError as error:
        print(f"live: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output went away, as in: live models | head
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"live: {error.filename or 'the system'}: {reason(error)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print("live: not enough memory for a picture of this size", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"live: interrupted; {interrupted}", file=sys.stderr)
        return 130


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """``kill`` lets go as Ctrl-C does, and so leaves no temporary files either."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # signals are its alone
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
