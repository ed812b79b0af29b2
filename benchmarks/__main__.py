"""Run the benchmarks and write their tables as one page: python -m benchmarks."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import measure

PROGRAMS = ("decode", "train_step", "encode", "end_to_end")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run the benchmarks; other options are passed to each of them."
    )
    parser.add_argument("--output", type=Path, help="Markdown file to write [standard output]")
    argv, options = parser.parse_known_args()
    device = measure.device_of(measure.arguments(None, options))
    command = " ".join(["python -m benchmarks", *options])
    parts = [f"# Benchmarks\n\n`{command}`: {measure.machine(device)}\n"]
    for program in PROGRAMS:
        started = time.perf_counter()
        print(f"{program} ...", file=sys.stderr, flush=True)
        run = [sys.executable, "-m", f"benchmarks.{program}", *options]
        done = subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True)
        minutes = (time.perf_counter() - started) / 60
        parts.append(f"## {program}\n\n{done.stdout.strip()}\n\nTook {minutes:.1f} minutes.\n")
    text = "\n".join(parts)
    if argv.output:
        argv.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
