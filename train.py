"""Train a captioning model; for help, run python train.py --help."""

from captioner.cli.train import main
from captioner.errors import run_command

if __name__ == "__main__":
    run_command(main)
