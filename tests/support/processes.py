"""Programs as processes of their own that meet, like launchers of torchrun on several machines."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ["-m", "torch.distributed.run", "--rdzv-backend", "c10d"]


def two_nodes():
    """What both of two launchers are given, to meet at a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meet = ["--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    return [*LAUNCH, *meet, "--nnodes", "2", "--nproc-per-node", "1"]


def start(*command, cwd=None):
    """Python with these arguments, in a session of its own."""
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
    """What they printed; they end in any case."""
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            if (
                process.poll() is None
            ):  # a launcher ends its processes, by force after half a minute
                process.terminate()
                process.communicate(timeout=60)
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return "".join(outputs)
