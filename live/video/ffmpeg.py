"""The ffmpeg that imageio-ffmpeg brings: where it is, and one at work behind pipes, whose words are heard as they come."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from threading import Thread
from types import TracebackType

from ..errors import ModelError

LINE = 4096
"""Longer lines of what ffmpeg says come in pieces."""
_FAILURE = re.compile(r"^(?P<speaker>.*?) ?\[(?:error|fatal)\] (?P<words>.+)$")

_CUT_OFF = re.compile(r"prematurely|truncated|partial file")
"""Before ffmpeg 8 the reader of some containers speaks in its own name."""


def binary() -> str:
    """The path of imageio-ffmpeg's binary; ModelError when it is not installed."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise ModelError("ffmpeg is needed, from the package imageio-ffmpeg; install it with pip") from None


class Ffmpeg:
    """An ffmpeg at work, as a context: ended when the block is, whatever it was at.

    arguments: its options; reads: frames come from its standard output; writes: they go to its standard input;
    hear: is given every line that it says, from another thread. ``failure`` is the first failure that it names, in its
    words, or None, and ``input_failed`` whether one was of the file rather than of a frame.
    """

    def __init__(
        self,
        arguments: list[str],
        reads: bool = False,
        writes: bool = False,
        hear: Callable[[str], None] = lambda line: None,
    ) -> None:
        options = ["-hide_banner", "-nostats", "-loglevel", "level+verbose", *([] if writes else ["-nostdin"])]
        self.process = subprocess.Popen(
            [binary(), *options, *arguments],
            stdin=subprocess.PIPE if writes else subprocess.DEVNULL,
            stdout=subprocess.PIPE if reads else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.failure: str | None = None
        self.input_failed = False
        self._hear = hear
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        for line in iter(lambda: self.process.stderr.readline(LINE), b""):
            text = line.decode(errors="replace").rstrip()
            self._hear(text)
            if found := _FAILURE.match(text):
                self.failure = self.failure or found["words"].rstrip(".")
                self.input_failed |= found["speaker"].startswith("[in#") or bool(_CUT_OFF.search(found["words"]))

    def wait(self) -> int:
        """Its exit code, once it has ended and been heard to the end."""
        self._listener.join()
        return self.process.wait()

    def __enter__(self) -> Ffmpeg:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # it holds frames that nobody reads any more
                pass
