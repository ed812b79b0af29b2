"""Options for comparing text vectors; this module does not import torch."""

from dataclasses import dataclass
from pathlib import Path

from ..data.readers import READERS
from ..errors import InputError
from ..options import Options, option


@dataclass(frozen=True)
class CompareOptions(Options):
    """The text vectors to compare, the queries, and the images to search."""

    text_vectors: tuple[str, ...] = option(
        (), "text vectors, each trained alone, as in captioner train; none: all fitted kinds"
    )
    test_data: Path | None = option(None, "additional data set to search")
    test_format: str | None = option(
        None, "layout of the test data [detected]", choices=tuple(READERS)
    )
    queries: Path | None = option(
        None, "text file of search queries, one per line [standard queries]"
    )
    prefix: str = option("compare", "prefix of the run names")
    output: Path = option(Path("comparison.json"), "output JSON file of all scores")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_format is not None and self.test_data is None:
            raise InputError("--test-format needs --test-data; pass it or omit --test-format")
        for source in self.text_vectors:
            if self.text_vectors.count(source) > 1:
                raise InputError(f"text_vectors lists {source!r} more than once; list it once")
