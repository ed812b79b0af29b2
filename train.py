"""Train a model; for help, run python train.py --help."""

from collections.abc import Sequence

from captioner.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Import and run `captioner.cli.train.main`, so that the slow imports can be interrupted."""
    from captioner.cli.train import main

    main(argv)


if __name__ == "__main__":
    run_command(main)
