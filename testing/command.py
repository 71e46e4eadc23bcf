"""What the commands of ``testing`` share: usage errors and refusals are one line on stderr, with exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from live.errors import InputError, LiveError


class Parser(argparse.ArgumentParser):
    """Says usage errors as one line, like every other refusal."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[], int]) -> int:
    """Call ``main`` and return the exit code: its own, 2 (refused) or 130 (interrupted)."""
    try:
        return main()
    except LiveError as error:
        print(f"live: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("live: interrupted; what was measured is kept", file=sys.stderr)
        return 130
