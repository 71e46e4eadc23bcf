"""A trial for the fuzzer's runner that goes wrong in every way; apart, since its process imports the module anew."""

from __future__ import annotations

import os


class Misbehaves:
    """Does what its number says."""

    def prepare(self) -> None:
        pass

    def __call__(self, number: int) -> str:
        if number == 1:
            os._exit(7)
        if number == 2:
            while True:
                pass
        if number == 3:
            bytearray(1 << 30)
        if number == 4:
            raise KeyError("surprise")
        return "fine"
