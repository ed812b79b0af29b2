"""Score a checkpoint or a caption file; for help, run python evaluate.py --help."""

from collections.abc import Sequence

from captioner.errors import run_command


def main(argv: Sequence[str] | None = None) -> None:
    """Run `captioner.cli.evaluate.main`; its imports take long enough to be interrupted."""
    from captioner.cli.evaluate import main

    main(argv)


if __name__ == "__main__":
    run_command(main)
