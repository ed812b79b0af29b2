"""Parquet tables as on the Hugging Face hub, with a column of images or their names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..storage.parquet import image_column, member_name, open_table
from .reading import RawExample, ReadResult, SourceLocation, parse_split, split_in_name
from .tables import (
    CAPTIONS,
    IMAGES,
    caption_columns,
    image_name,
    normalise_columns,
    place_images,
    row_captions,
)

LEVELS = ("", "[!.]*/", "[!.]*/[!.]*/")  # as in data/train-0.parquet and default/train/0.parquet
IDS = ("image_id", "cocoid", "img_id", "filename", "file_name")  # of images with several rows


def recognise(path: Path) -> list[Path]:
    """Return the file itself, or the Parquet files in the directory or up to two levels below."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    files = (file for pattern in LEVELS for file in path.glob(f"{pattern}[!.]*.parquet"))
    return sorted(files)


def read(path: Path) -> ReadResult:
    """Read all tables; a split is named by a column or by the name of a file or its directory."""
    result = ReadResult()
    for file in recognise(path):
        column = image_column(file)
        rows = list(_rows(file, column))
        if column is None:
            place_images(file, rows, _split_of_file(file), result)
        result.add_rows(rows)
    return result


def _rows(file: Path, images: str | None) -> Iterator[RawExample]:
    """Yield an example for each row; `images` is the column of encoded images, if any."""
    table = open_table(file)
    names = [name for name in table.schema_arrow.names if name != images]
    columns = normalise_columns(dict.fromkeys(names))
    if not caption_columns(columns) or not (images or set(IMAGES) & set(columns)):
        raise InputError(
            f"{file} has the columns {', '.join(table.schema_arrow.names)}; it needs an image "
            f"column and a caption column ({', '.join(CAPTIONS)})"
        )
    first_rows: dict[object, int] = {}  # of the images with an id
    number = 0
    for batch in table.iter_batches(columns=names):
        for row in map(normalise_columns, batch.to_pylist()):
            location = SourceLocation(file, number + 1, "row")
            image_id = next((row[key] for key in IDS if isinstance(row.get(key), int | str)), None)
            row_number = number if image_id is None else first_rows.setdefault(image_id, number)
            if images is None:
                name, default_id = image_name(row), image_name(row)
            else:
                name = member_name(row_number)
                default_id = f"{file.stem}/{name}"
            example = RawExample(image_id, file, name, _split(file, row), location)
            example.id = default_id if image_id is None or images is None else image_id
            example.captions = [(caption, location) for caption in row_captions(row)]
            example.scope = example.split
            yield example
            number += 1


def _split(file: Path, row: Mapping[str, Any]) -> str | None:
    given = row.get("split")
    if given:
        return parse_split(given) or str(given)
    return _split_of_file(file)


def _split_of_file(file: Path) -> str | None:
    return split_in_name(file.stem) or parse_split(file.parent.name)
