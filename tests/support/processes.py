"""Python programs as processes, e.g. torchrun launchers that stand for several machines."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ["-m", "torch.distributed.run", "--rdzv-backend", "c10d"]


def two_nodes():
    """The arguments of each of two launchers that meet at a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meet = ["--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    return [*LAUNCH, *meet, "--nnodes", "2", "--nproc-per-node", "1"]


def start(*command, cwd=None):
    """Start Python with these arguments in a new session."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(*processes):
    """Wait for the processes and return their output; none is left running."""
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()  # a launcher then ends its processes within half a minute
                process.communicate(timeout=60)
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return "".join(outputs)
