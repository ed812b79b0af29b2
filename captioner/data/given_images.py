"""Images as callers pass them: one or many, as paths, bytes, files, arrays, batches or URLs.

Files are not decoded here; `load_image` decodes them later, so that threads can share the work.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from ..errors import InputError
from .image_paths import find_images
from .images import MAX_BYTES, ImageInput
from .pixels import reverse_channels
from .storage.files import container, parse_location
from .storage.location import Location
from .storage.web import Urls, WebImage

GivenImages: TypeAlias = ImageInput | Iterable[ImageInput]


def collect_images(
    images: Any, *, bgr: bool = False, allow_urls: Urls = False
) -> tuple[list[ImageInput], bool]:
    """Return images as a list that `load_image` reads, and whether a single image was passed.

    images: one image: a path, the bytes of an image file, a file object opened in binary mode, a
    PIL image, or an array or tensor as in `image_of`. Or several: a directory (its images and those
    of its subdirectories, sorted), an array or tensor (N, H, W, C) or (N, C, H, W), or any iterable
    of images, such as a list or `Path.glob`. bgr: whether arrays and tensors have their channels in
    the order blue, green, red, as those of OpenCV. allow_urls: whether strings that begin with
    http:// or https:// are downloaded when they are loaded; see `WebImage`. Members of tar files on
    servers are read in either case. Raises InputError for a directory without images, a file object
    that cannot be read or is in text mode, and `bgr` with anything but arrays and tensors. Other
    values are returned as they are; `load_image` refuses them.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "OUS":  # an array of paths
        images = images.ravel().tolist()
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        return list(reverse_channels(images) if bgr else images), False
    if isinstance(images, str | Path) and os.path.isdir(images):
        return [_prepare(path, bgr, allow_urls) for path in find_images([str(images)])], False
    if _is_single(images):
        return [_prepare(images, bgr, allow_urls)], True
    return [_prepare(image, bgr, allow_urls) for image in images], False


def _is_single(images: Any) -> bool:
    kinds = (str, Path, Location, WebImage, bytes, bytearray, memoryview, Image.Image, Mapping)
    if isinstance(images, (*kinds, np.ndarray, torch.Tensor)) or hasattr(images, "read"):
        return True
    return not isinstance(images, Iterable)


def _prepare(image: Any, bgr: bool, allow_urls: Urls) -> ImageInput:
    """Return one image in a form that can be loaded several times."""
    if bgr:
        if not isinstance(image, np.ndarray | torch.Tensor):
            raise InputError(
                f"bgr=True applies to arrays and tensors only, got {type(image).__name__}; omit it"
            )
        return reverse_channels(image)
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if hasattr(image, "read") and not isinstance(image, Path):
        return _read(image)
    if allow_urls and isinstance(image, str):
        location = parse_location(image)
        if isinstance(location, Location) and container(location) == location:
            return WebImage(image, allow_private=allow_urls == "private")
    return image  # type: ignore[no-any-return]  # load_image refuses other values


def _read(file: Any) -> bytes:
    """Return at most one byte more than `load_image` accepts, from the current position on."""
    try:
        content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: the file is closed
        reason = str(error).rstrip(".")
        raise InputError(
            f"an image cannot be read from {file!r}: {reason}; open it again, in mode 'rb'"
        ) from error
    if not isinstance(content, bytes):
        raise InputError(
            f"an image cannot be read from {file!r}: it returns {type(content).__name__}, not "
            "bytes; open it in binary mode, 'rb'"
        )
    return content
