"""Tags by the name of the image file, for data sets whose captions are elsewhere."""

from pathlib import Path, PurePosixPath

from ..errors import InputError
from .formats.reading import ReadResult
from .formats.tags import tag_rows

FORMAT = "tags"  # of a data set that consists of tags
Tags = dict[str, set[str]]


def read_tags(path: Path) -> Tags:
    """Return the tags of each image, in lower case, by file name.

    Each image can be looked up by its name in the file and by the last component of that name,
    which stands for the first image that has it. path: as in `formats.tags.tag_rows`. Raises
    InputError if it cannot be read or contains no tags.
    """
    tags, result = Tags(), ReadResult()
    try:
        for row in tag_rows(path, result):
            tags.setdefault(row.image, set()).update(row.tags)
    except OSError as error:
        raise InputError(f"tags {path} cannot be read: {error.strerror}; check the path") from error
    if result.problems:
        raise InputError(f"tags cannot be read: {result.problems[0]}")
    if not any(tags.values()):
        raise InputError(f"{path} contains no tags; choose another file or directory of tags")
    for name in list(tags):
        tags.setdefault(PurePosixPath(name).name, tags[name])
    return tags
