"""Scripts started as two processes that share a training, as torchrun starts them on two GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOGETHER = (
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "127.0.0.1:0",
    "--local-addr",
    "127.0.0.1",
    "--nproc-per-node",
    "2",
)
"""torchrun's options for two processes here. As --standalone, but by address: that asks for the machine's name, and waits
where no name server answers."""
ALONE, TWO = (), ("-m", "torch.distributed.run", *TOGETHER)


def start(script: Path, *arguments: object, by: tuple[str, ...] = TWO) -> subprocess.CompletedProcess[str]:
    """Run a script to its end as two processes, or by ``ALONE`` as one, a thread each; what it printed is captured."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, *by, str(script), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def finish(script: Path, *arguments: object, by: tuple[str, ...] = TWO) -> None:
    """``start`` a script that must succeed; where it does not, the test shows what it said."""
    done = start(script, *arguments, by=by)
    assert done.returncode == 0, done.stderr
