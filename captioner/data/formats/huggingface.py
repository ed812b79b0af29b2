"""Hugging Face image folders: one metadata file, or one per split."""

from pathlib import Path

from .reading import RawExample, ReadResult, parse_split
from .tables import table_examples


def recognise(root: Path) -> list[Path]:
    """Return the metadata files of the directory and its split directories, preferring JSONL.

    If there are none, those of the subdirectory `data` are returned.
    """
    for base in (root, root / "data"):
        directories = [base, *sorted(p for p in base.glob("[!.]*") if parse_split(p.name))]
        tables = []
        for directory in directories:
            candidates = (directory / "metadata.jsonl", directory / "metadata.csv")
            tables += [next((path for path in candidates if path.is_file()), None)]
        if found := [table for table in tables if table]:
            return found
    return []


def read(root: Path) -> ReadResult:
    """Read the metadata files; the split is the value of a column or the name of a directory."""
    result = ReadResult()
    for path in recognise(root):
        directory_split = parse_split(path.parent.name) if path.parent != root else None
        rows = list(table_examples(path, result))
        for row in rows:
            row.split = row.split or directory_split or _split_of_name(row)
            row.id, row.scope = _unique_id(row, root), (path, row.split)
        result.add_rows(rows)
    return result


def _split_of_name(row: RawExample) -> str | None:
    """Return the split named by the first directory in the image's file name, if any."""
    return parse_split(Path(row.name).parts[0]) if isinstance(row.name, str) and row.name else None


def _unique_id(row: RawExample, root: Path) -> object:
    """Prepend the directory to an id that is a file name, since splits may reuse names."""
    directory = row.directory.relative_to(root).as_posix()
    id_is_name = row.id is row.name and isinstance(row.name, str) and directory != "."
    return f"{directory}/{row.name}" if id_is_name else row.id
