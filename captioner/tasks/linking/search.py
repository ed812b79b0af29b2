"""Searches in an evaluation: queries, concepts, and the page of irrelevant results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.concepts import read_concepts
from ...data.dataset import CaptionData, Example
from ...errors import InputError
from ...evaluation.inputs import make_directory
from ...evaluation.options import EvaluationOptions
from ...linker import Linker
from ...options import flag_of
from ...retrieval.query_sets import read_queries
from .failures import write_failures
from .options import QUERY_FLAGS
from .queries import score_concepts, score_queries


@dataclass(frozen=True)
class SearchInputs:
    """The queries and concepts to search for, read before the data so that errors show early.

    queries: None selects the standard ones. concepts: the image numbers of each concept, or None.
    failures: path of the page of irrelevant results, or None.
    """

    queries: tuple[str, ...] | None
    concepts: dict[str, set[int]] | None
    failures: Path | None

    @classmethod
    def read(cls, linker: Linker, path: Path, options: EvaluationOptions) -> "SearchInputs":
        """Read the files that the options name; raise InputError if they cannot be used.

        path: path of the checkpoint, for error messages.
        """
        given = [name for name in sorted(QUERY_FLAGS) if getattr(options, name) is not None]
        if given and not linker.texts.can_read:
            raise InputError(
                f"{flag_of(given[0])} needs a model that encodes new texts, but {path} was trained "
                "on text vectors from a .npy file; choose another checkpoint"
            )
        if options.failures is not None:
            make_directory(options.failures.parent, "--failures")
        return cls(
            None if options.queries is None else read_queries(options.queries),
            None if options.concepts is None else read_concepts(options.concepts),
            options.failures,
        )

    def score(
        self, linker: Linker, rows: np.ndarray, examples: Sequence[Example], data: CaptionData
    ) -> dict[str, Any]:
        """Search the embeddings `rows` (I, E) of the I examples; print and return the scores.

        Writes the page of irrelevant results, if it was requested. Returns an empty dict if the
        model cannot encode new texts.
        """
        if not linker.texts.can_read:
            return {}
        found = score_queries(linker, rows, examples, self.queries)
        print(found.describe())
        content: dict[str, Any] = {"search": found.content}
        if self.concepts is not None:
            annotated = score_concepts(linker, rows, examples, self.concepts)
            print(annotated.describe())
            content["concepts"] = annotated.content
        if self.failures is not None:
            write_failures(self.failures, found, examples, data)
            print(f"failures: {self.failures}")
        return content
