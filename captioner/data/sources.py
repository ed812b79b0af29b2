"""Sources of images or feature maps, loaded by index.

Shapes: B images, S image side length, D channels, (h, w) grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image
from torch import Tensor

from ..errors import InputError
from .images import ImageInput, Transform, load_image
from .storage import files as storage
from .storage.location import Location

WINDOW = 2000  # number of images in tar files to shuffle together; fewer if they are large
KEPT_BYTES = 256 * 2**20  # of resized 8-bit pixels that an ImageSource keeps


class Source(Protocol):
    """The pixels or feature maps of a list of examples, by index.

    `groups` and `window` are passed to `epoch_order`. `groups` contains the tar file of each
    image, which should be read in one pass; it is empty if images can be read in any order at no
    extra cost. `window` is the number of images in such files to shuffle together.
    """

    @property
    def are_features(self) -> bool:
        """Whether `load` returns feature maps."""

    @property
    def groups(self) -> Sequence[Path | Location]:
        """The tar file of each image; empty if no image is in a tar file."""

    @property
    def window(self) -> int:
        """Number of images in tar files to shuffle together."""

    def load(self, indices: Sequence[int], /) -> Tensor:
        """Load images (B, 3, S, S) or feature maps (B, D, h, w); several threads may call it."""


@dataclass(frozen=True)
class FunctionSource:
    """A source that loads with a given function."""

    load: Callable[[Sequence[int]], Tensor]
    are_features: bool
    groups: Sequence[Path | Location] = ()
    window: int = 0


class InputSource:
    """Images of any kind that `load_image` reads, such as those passed to a Captioner or a Linker.

    on_error: "stop" raises the InputError of an image that cannot be read; "yield" stores it in
    `errors` by the image's index, and a black image takes its place, so that batches stay aligned.
    Raises InputError for any other `on_error`.
    """

    are_features = False
    groups: Sequence[Path | Location] = ()
    window = 0

    def __init__(self, images: Sequence[ImageInput], transform: Transform, on_error: str) -> None:
        if on_error not in ("stop", "yield"):
            raise InputError(f"on_error must be stop or yield, got {on_error!r}")
        self._images, self._transform, self._stops = images, transform, on_error == "stop"
        self.errors: dict[int, InputError] = {}

    def load(self, indices: Sequence[int]) -> Tensor:
        """Load the images at `indices` as (B, 3, S, S)."""
        return self._transform.batch([self._load(index) for index in indices])

    def _load(self, index: int) -> Image.Image:
        try:
            return load_image(self._images[index], self._transform.least)
        except InputError as error:
            if self._stops:
                raise
            self.errors[index] = error
            return Image.new("RGB", (self._transform.size,) * 2)


class ImageSource:
    """Image files, read and transformed on each `load`.

    keeps: whether images will be loaded repeatedly. If their resized pixels fit into KEPT_BYTES,
    they are then kept, and each file is read only once.
    """

    are_features = False

    def __init__(
        self, paths: Sequence[Path | Location], transform: Transform, *, keeps: bool = False
    ) -> None:
        self.paths, self.transform = paths, transform
        self._keeps = keeps and len(paths) * 3 * transform.size**2 <= KEPT_BYTES
        self._kept: dict[int, Image.Image] = {}

    def load(self, indices: Sequence[int]) -> Tensor:
        """Load the images at `indices` as (B, 3, S, S)."""
        return self.transform.batch([self._load(index) for index in indices])

    def _load(self, index: int) -> Image.Image:
        if (kept := self._kept.get(index)) is not None:
            return kept
        image = load_image(self.paths[index], self.transform.least)
        if self._keeps:
            image = self._kept[index] = self.transform.squash(image)
        return image

    @cached_property
    def groups(self) -> Sequence[Path | Location]:
        """The tar file of each image; empty if no image is in a tar file.

        An image outside any tar file forms its own group.
        """
        files = [storage.container(path) for path in self.paths]
        return [] if files == list(self.paths) else files

    @cached_property
    def window(self) -> int:
        """Number of images that can be shuffled together while each tar file is read only once."""
        return min(WINDOW, storage.shuffle_window(self.paths))
