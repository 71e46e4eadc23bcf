"""What every command of the project shares: usage errors and refusals are one line on stderr, with exit code 2."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import InputError, LiveError, is_out_of_memory, reason


class Parser(argparse.ArgumentParser):
    """Says usage errors as one line, like every other refusal."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[], int], interrupted: str = "nothing half-written") -> int:
    """Call ``main`` and return the exit code: its own, 2 (refused) or 130 (interrupted; says what became of the work)."""
    try:
        with _terminated_as_interrupted():
            code = main()
            sys.stdout.flush()  # here, where it can be said that it failed
            return code
    except LiveError as error:
        print(f"live: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output went away, as in: live models | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere, without a word
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


ENDINGS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
"""What tells a command to end: Ctrl-C, kill, a closed terminal, Ctrl-\\."""
AGAIN = 0.1
"""Seconds after which an ending that came during an import is tried again."""


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """All of ``ENDINGS`` let go as Ctrl-C does, and so leave no temporary files. Not in the middle of an import: torch's and
    numpy's are left unusable by that, and end in tracebacks. nohup's deafness is kept."""
    if threading.current_thread() is not threading.main_thread():  # signals are its alone
        yield
        return
    heard = [number for number in ENDINGS if signal.getsignal(number) != signal.SIG_IGN]
    waits = hasattr(signal, "setitimer")
    before = {number: signal.getsignal(number) for number in (*heard, *([signal.SIGALRM] if waits else []))}

    def interrupt(_: int, frame: FrameType | None) -> None:
        while waits and frame:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                signal.setitimer(signal.ITIMER_REAL, AGAIN)
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        if waits:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
