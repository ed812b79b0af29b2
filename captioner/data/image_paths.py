"""Image paths from files, directories, globs and lists, and shards of those paths.

Images are not opened here.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from ..errors import InputError
from .discovery import IMAGE_SUFFIXES, is_image_name, split_lines, walk


def find_images(
    sources: Iterable[str | os.PathLike[str]], listed: Iterable[bytes] = ()
) -> list[str]:
    """Return the image paths named by the sources, in order and without duplicates.

    A source is a directory (all files below it with an image extension, sorted), a glob (all
    matches with an image extension, sorted), "-" (the paths in `listed`, one per line), an http(s)
    URL or a file (with any name; it need not exist). Hidden files are ignored unless they are
    named explicitly. Raises InputError for a directory or a glob without images and for a list in
    UTF-16 or UTF-32, and OSError for a directory that cannot be read.
    """
    names = (os.fspath(source) for source in sources)
    return list(dict.fromkeys(path for name in names for path in _expand(name, listed)))


def part_of(images: Sequence[str], shard: str) -> Sequence[str]:
    """Return shard "i/n" of the images: every n-th image, starting with the i-th.

    The n shards are disjoint, contain all images, and differ in length by at most one. Raises
    InputError unless i and n are integers with 1 <= i <= n.
    """
    first, _, step = shard.partition("/")
    if not (first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        raise InputError(f"shard must be i/n with i from 1 to n, e.g. 2/8, got {shard!r}")
    return images[int(first) - 1 :: int(step)]


def unique_names(images: Sequence[str]) -> dict[str, str]:
    """Return a unique name for each path, without directory and extension.

    The name is the file's stem; if several paths have the same stem, each path's index in the list
    is appended, and hyphens if another path has that name.
    """
    stems = [PurePath(image).stem for image in images]
    counts = Counter(stems)
    taken = {stem for stem in stems if counts[stem] == 1}
    names = {}
    for number, (image, stem) in enumerate(zip(images, stems, strict=True)):
        name = stem
        if counts[stem] > 1:
            name += f"-{number}"
            while name in taken:  # another image has this stem
                name += "-"
            taken.add(name)
        names[image] = name
    return names


def _expand(source: str, listed: Iterable[bytes]) -> Iterator[str]:
    """Yield the paths named by one source."""
    if source == "-":
        yield from filter(None, split_lines(b"".join(listed), "the list of images"))
        return
    candidates: Iterable[str]
    if source.startswith(("http://", "https://")):  # a query begins with "?", as in a glob
        yield source
        return
    if os.path.isdir(source):
        candidates = walk(source)
    elif glob.has_magic(source) and not os.path.lexists(source):
        candidates = sorted(glob.glob(source, recursive=True))
    else:
        yield source
        return
    count = 0
    for path in candidates:
        if _is_image(path):
            count += 1
            yield path
    if not count:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(
            f"no images found for {source!r}: no file has one of the extensions {suffixes}; choose "
            "another directory or pattern"
        )


def _is_image(path: str) -> bool:
    return is_image_name(path) and not os.path.isdir(path)
