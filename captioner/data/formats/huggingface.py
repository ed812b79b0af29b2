"""Hugging Face's directory of images with metadata.jsonl or metadata.csv, whole or a split each."""

from dataclasses import replace
from pathlib import Path

from .reading import RawExample, ReadResult, split_of
from .tables import table_entries


def recognise(root: Path) -> list[Path]:
    """The metadata of the directory itself, or of the directories of its splits; JSONL before CSV."""
    for base in (root, root / "data"):
        places = [base, *sorted(place for place in base.glob("*") if split_of(place.name))]
        tables = [[place / name for name in ("metadata.jsonl", "metadata.csv")] for place in places]
        if found := [t for pair in tables if (t := next(filter(Path.is_file, pair), None))]:
            return found
    return []


def read(root: Path) -> ReadResult:
    reading = ReadResult()
    for path in recognise(root):
        directory = split_of(path.parent.name) if path.parent != root else None
        rows = list(table_entries(path, reading))
        reading.add_rows(
            replace(
                row, split=row.split or directory or _split_of_name(row), id=_identity(row, root)
            )
            for row in rows
        )
    return reading


def _split_of_name(row: RawExample) -> str | None:
    """The split that the image's own directory is called after."""
    return split_of(Path(row.name).parts[0]) if isinstance(row.name, str) and row.name else None


def _identity(row: RawExample, root: Path) -> object:
    """Names may be the same in all splits: their directory tells them apart."""
    inside = row.directory.relative_to(root).as_posix()
    plain = row.id is row.name and isinstance(row.name, str) and inside != "."
    return f"{inside}/{row.name}" if plain else row.id
