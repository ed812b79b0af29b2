"""An index that keeps the label maps it computed last, so that paintings are scored quickly.

Shapes: N images, L labels, (h, w) grid.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..index import Index
from ..linker import Linker
from ..retrieval.index_files import IndexFiles

MAX_BYTES = 2**28  # of stored logits


class LabelledIndex(Index):
    """An Index that computes `label_logits` once for each label, and `diversity` once.

    Successive strokes of a painting have the same labels, so only the first search computes maps.
    At most `max_bytes` of logits are stored, in main memory; the least recently used ones are
    dropped. Maps of more labels than fit are computed each time, as by `Index`. Several threads may
    use it.
    """

    def __init__(self, files: IndexFiles, linker: Linker, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(files, linker, None)
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._maps: OrderedDict[str, Tensor] = OrderedDict()  # logits (N, h, w) by label
        self._diversity: np.ndarray | None = None

    @property
    def has_regions(self) -> bool:
        """Whether the index has region embeddings, from which label maps are computed."""
        return self._files.regions is not None

    def label_logits(self, labels: str | Sequence[str]) -> Iterator[Tensor]:
        """Yield the logits (N, L, h, w) of the maps of labels, in one block if they can be stored.

        Otherwise, they are yielded in several blocks, as by `Index`. Errors are as in `Index`.
        """
        labels = [labels] if isinstance(labels, str) else list(labels)
        if not 0 < len(set(labels)) <= self._capacity:
            yield from super().label_logits(labels)
            return
        with self._lock:
            missing = [label for label in dict.fromkeys(labels) if label not in self._maps]
            if missing:
                blocks = [block.cpu() for block in super().label_logits(missing)]
                if not blocks:  # the index is empty
                    return
                for number, label in enumerate(missing):
                    self._maps[label] = torch.cat([block[:, number] for block in blocks])
            for label in labels:
                self._maps.move_to_end(label)
            while len(self._maps) > self._capacity:
                self._maps.popitem(last=False)
            found = [self._maps[label] for label in labels]
        yield torch.stack(found, 1).to(self.linker.device)

    def diversity(self) -> np.ndarray:
        """Return the variance of each image's region embeddings (N,), as `Index.diversity` does."""
        with self._lock:
            if self._diversity is None:
                self._diversity = super().diversity()
            return self._diversity

    @property
    def _capacity(self) -> int:
        """The number of labels whose logits can be stored."""
        shape = self._files.manifest.region_shape
        cells = 1 if shape is None else shape.height * shape.width
        return self.max_bytes // max(1, 4 * len(self) * cells)
