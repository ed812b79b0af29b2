"""`captioner cache`: list and prune the stored features of frozen encoders."""

import argparse
import math
import time
from pathlib import Path

from ..checkpoints.runs import CHECKPOINTS
from ..errors import InputError
from ..vision.store_files import StoreInfo, list_stores, prune

EXAMPLE = """captioner cache
captioner cache --prune
captioner cache --prune-older-than 30"""
DAY = 24 * 60 * 60  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache",
        type=Path,
        default=CHECKPOINTS / ".cache",
        metavar="DIR",
        help="cache directory [%(default)s]",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="delete duplicates, incomplete files and caches written by older versions",
    )
    parser.add_argument(
        "--prune-older-than",
        type=float,
        metavar="DAYS",
        help="like --prune, but also delete stores last written more than DAYS days ago",
    )
    parser.add_argument("--all", action="store_true", help="with --prune, delete all stores")


def run(arguments: argparse.Namespace) -> None:
    days = arguments.prune_older_than
    if arguments.all and not arguments.prune:
        raise InputError("--all has no effect without --prune; add --prune or omit --all")
    if arguments.all and days is not None:
        raise InputError("--all cannot be combined with --prune-older-than; omit one of them")
    if days is not None and not days >= 0:
        raise InputError(f"--prune-older-than must be at least 0, got {days}")
    if arguments.prune or days is not None:
        before = math.inf if arguments.all else 0 if days is None else time.time() - days * DAY
        try:
            freed = prune(arguments.cache, before)
        except OSError as error:
            raise InputError(
                f"{arguments.cache} cannot be pruned: {error}; check the permissions of its files"
            ) from error
        print(f"deleted: {_megabytes(freed)}")
    print(describe(arguments.cache, list_stores(arguments.cache)))


def describe(cache: Path, stores: list[StoreInfo]) -> str:
    """Format a table with one line per store, followed by their number and total size.

    Without stores, a sentence is returned instead.
    """
    if not stores:
        return f"{cache} contains no stored features"
    total = f"{len(stores)} {'store' if len(stores) == 1 else 'stores'} in {cache}"
    head = ("encoder", "pixels", "maps", "pooled", "size", "last written", "directory")
    rows = [head, *map(_row, stores)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, f"{total}, {_megabytes(sum(store.bytes for store in stores))}"])


def _row(store: StoreInfo) -> tuple[str, ...]:
    return (
        store.encoder or "(older version)",
        str(store.size or "-"),
        f"{store.maps:,}",
        f"{store.pooled:,}",
        _megabytes(store.bytes),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(store.used)),
        store.directory.name,
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
