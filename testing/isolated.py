"""Trials in a process of their own, with a limit of memory and of time each: a crash or a hang is recorded, not suffered."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import time
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

START_SECONDS = 300
"""A fresh process imports torch and loads models."""
PATIENCE = 10
CRASH, HANG, NO_MEMORY = "crash", "hang", "out of memory"


class Trial(Protocol):
    """What is tried, picklable: ``prepare`` once a process, then called with a number; returns the outcome's name."""

    def prepare(self) -> None: ...

    def __call__(self, number: int) -> str: ...


class Result(NamedTuple):
    """outcome: the trial's own name for it, or crash, hang, out of memory; detail: what is known of these; cpu_s: CPU
    time of the trial; extra_mb: peak memory of its process since it was prepared."""

    outcome: str
    detail: str = ""
    cpu_s: float = 0.0
    extra_mb: float = 0.0


class Isolated:
    """Calls a trial in a spawned process, and starts another when that one died or was stopped.

    seconds: limit of one call's CPU time, and ``PATIENCE`` times as long by the clock; memory: bytes that the process may
    reserve beyond what it took to prepare.
    """

    def __init__(self, trial: Trial, seconds: float, memory: int):
        self.trial, self.seconds, self.memory = trial, seconds, memory
        self.process: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, number: int) -> Result:
        """The result of one call."""
        if self.process is None:
            self._start()
        try:
            self.pipe.send(number)
            if self.pipe.poll(PATIENCE * self.seconds):
                return self.pipe.recv()
            self._stop()
            return Result(HANG, f"no end after {PATIENCE * self.seconds:g} s by the clock")
        except (EOFError, OSError):
            code = self._stop()
        if code == -signal.SIGXCPU:
            return Result(HANG, f"no end after {self.seconds:g} s of CPU time")
        return Result(CRASH, f"the process ended with {code}")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.trial, self.seconds, self.memory), daemon=True)
        self.process.start()
        theirs.close()
        if not self.pipe.poll(START_SECONDS) or self.pipe.recv() != "ready":
            raise RuntimeError("the process of the trials did not start")

    def _stop(self) -> int | None:
        """End the process if it still runs; its exit code, negative for a signal."""
        if self.process is None:
            return None
        self.process.join(0.5)
        self.process.kill()
        self.process.join()
        code, self.process = self.process.exitcode, None
        self.pipe.close()
        return code


def _serve(pipe: Connection, trial: Trial, seconds: float, memory: int) -> None:
    trial.prepare()
    with open("/proc/self/statm") as file:
        reserved = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (reserved + memory, reserved + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send("ready")
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        start = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(start + seconds) + 1, resource.RLIM_INFINITY))
        outcome, detail = _outcome(trial, number)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pipe.send(Result(outcome, detail, time.process_time() - start, (peak - before) / 1024))


def _outcome(trial: Trial, number: int) -> tuple[str, str]:
    from live.errors import is_out_of_memory

    try:
        return trial(number), ""
    except Exception as error:  # whatever a trial did not expect is a finding
        return NO_MEMORY if is_out_of_memory(error) else CRASH, f"{type(error).__name__}: {error}"
