"""Score a checkpoint or a caption file; for help, run python evaluate.py --help."""

from captioner.cli.evaluate import main
from captioner.errors import run_command

if __name__ == "__main__":
    run_command(main)
