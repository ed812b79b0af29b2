"""Score captions of a checkpoint or of a file: python evaluate.py --help."""

from captioner.cli.evaluate import main
from captioner.errors import run_command

if __name__ == "__main__":
    run_command(main)
