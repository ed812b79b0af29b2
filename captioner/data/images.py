"""Loading images as upright 8-bit RGB and transforming them to tensors.

Files are not trusted: their size is limited, and broken files raise InputError.
Shapes: H, W height and width of the image, S side length of the encoder's square input.
"""

import io
import logging
import stat
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError

from ..errors import InputError
from ..git_lfs import refuse_pointer
from .pixels import image_of
from .storage import files as storage
from .storage.location import Location
from .storage.web import WebImage, download
from .unidentified import describe

ImageInput: TypeAlias = (
    str | Path | Location | WebImage | bytes | IO[bytes] | Image.Image | torch.Tensor | np.ndarray
)

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 89_000_000
LARGE = 8_000_000  # pixels of images of which `load_reduced` decodes at most two at the same time
MAX_SIZE = 4096  # side length of an encoder's input
MAX_VALUE = 1000.0  # of means; standard deviations are between its reciprocal and itself

INTERPOLATIONS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

# The operation that undoes each EXIF orientation; 1 and nonstandard values mean upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_filters_lock = threading.Lock()
_large_images = threading.BoundedSemaphore(2)


def load_image(image: ImageInput, least: int | None = None) -> Image.Image:
    """Load an image as a new, upright, 8-bit RGB image without metadata.

    A path names a regular file, a member of a tar file (`x.tar/a.jpg`) or an image in a Parquet
    table (`x.parquet/00000007`); a string may also be the URL of a member of a tar file on a
    server. Files may be JPEG, PNG, BMP, GIF, WebP or TIFF images of at most 64 MiB and 89 million
    pixels. Only the first frame of an animation is used. EXIF orientation is applied; a broken EXIF
    block is ignored. 16-bit grey values are scaled by 1/257, transparent pixels are composited over
    white, and colour profiles are ignored. Bytes are the content of such a file, and a WebImage is
    downloaded. `image_of` describes arrays and tensors; pass the content of a file object as bytes.

    least: JPEG files are decoded at a half, a quarter or an eighth of their size, which takes less
    time and memory, if both sides are multiples of that and keep at least so many pixels; None
    decodes whole images.

    Raises InputError, naming the file and the reason, for any other input, and for 16-bit images
    whose values have at most 12 bits, since these would be nearly black.
    """
    if isinstance(image, str | Path | Location):
        place = storage.parse_location(image) if isinstance(image, str) else image
        return _from_file(place, least=least)
    if isinstance(image, Image.Image):
        return _decode(image, "the PIL image")
    if isinstance(image, torch.Tensor | np.ndarray):
        return _to_rgb(image_of(image), "the array")
    if isinstance(image, bytes):
        return _read(lambda: _buffer(image, "the image"), "the image", least=least)
    if isinstance(image, WebImage):
        return _read(lambda: _buffer(download(image), str(image)), str(image), least=least)
    advice = "; pass its content, file.read()" if hasattr(image, "read") else ""
    raise InputError(
        "an image must be a path, bytes, a PIL image, an array or a tensor, got "
        f"{type(image).__name__}{advice}"
    )


def load_reduced(
    path: str | Path | Location, side: int, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Load an image file as `load_image` does, scaled down to fit into a square.

    side: maximum width and height of the result in pixels; a smaller image keeps its size. JPEG
    files are decoded at a reduced size, and at most two large images are decoded at the same time,
    so that many threads need little memory. max_pixels: maximum number of pixels in the file.
    Raises InputError as `load_image` does.
    """
    place = storage.parse_location(path) if isinstance(path, str) else path
    return _from_file(place, max_pixels, side)


def read_image(
    content: bytes, max_pixels: int = MAX_PIXELS, least: int | None = None
) -> Image.Image:
    """Decode the bytes of an image file by the same rules as `load_image`.

    max_pixels: maximum number of pixels in the file. least: as in `load_image`. Raises InputError
    if decoding fails.
    """
    return _read(lambda: io.BytesIO(content), "the file", max_pixels, least=least)


@dataclass(frozen=True)
class Transform:
    """Transforms an RGB image into the `(3, S, S)` float32 tensor that an encoder expects.

    The whole image is squashed to S x S by `interpolation` (antialiased): bicubic, bilinear,
    lanczos or nearest. Nothing is cropped, flipped or padded, so that the feature grid covers the
    whole image and attention can be drawn over it.
    Values are scaled to [0, 1] and normalised per channel by `mean` and `std`, which default to
    ImageNet's. InputError is raised for sizes that are not integers from 1 to 4096, means outside
    [-1000, 1000] and standard deviations outside [0.001, 1000].
    `Transform(**json.loads(json.dumps(asdict(transform))))` equals `transform`.
    """

    size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIZE:
            raise InputError(f"size must be an integer from 1 to {MAX_SIZE}, got {self.size!r}")
        for name, lowest in (("mean", -MAX_VALUE), ("std", 1 / MAX_VALUE)):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3:
                raise InputError(f"{name} must have 3 values (red, green, blue), got {len(values)}")
            if not all(lowest <= value <= MAX_VALUE for value in values):  # NaN is not
                raise InputError(
                    f"the values of {name} must be from {lowest} to {MAX_VALUE}, got {values}"
                )
            object.__setattr__(self, name, values)
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got "
                f"{self.interpolation!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON; the default interpolation is left out, as in older files."""
        fields = {"size": self.size, "mean": list(self.mean), "std": list(self.std)}
        is_default = self.interpolation == "bicubic"
        return fields if is_default else {**fields, "interpolation": self.interpolation}

    @property
    def least(self) -> int | None:
        """Sides to which `load_image` may reduce JPEG files for this transform: 2 S, so that each
        pixel of the result is still an average; None for nearest, which does not average.
        """
        return None if self.interpolation == "nearest" else 2 * self.size

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return self.batch([image])[0].contiguous()

    def squash(self, image: Image.Image) -> Image.Image:
        """Resize an image to S x S; the result has the same transform as the image itself."""
        if image.size == (self.size, self.size):
            return image
        # In one call, Pillow 13 would resize tall images vertically first, which rounds and clips
        # differently: a model's features would depend on the version of Pillow.
        method = INTERPOLATIONS[self.interpolation]
        return image.resize((self.size, image.height), method).resize((self.size,) * 2, method)

    def batch(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Transform several images into one tensor (B, 3, S, S), in channels-last memory format."""
        pixels = np.empty((len(images), self.size, self.size * 3), np.float32)
        mean, std = (
            np.tile(np.array(each, np.float32), self.size) for each in (self.mean, self.std)
        )
        for rows, image in zip(pixels, images, strict=True):  # one by one, within the cache
            if image.mode != "RGB":
                raise InputError(f"expected an RGB image, got mode {image.mode}; use load_image")
            rows[:] = np.asarray(self.squash(image)).reshape(rows.shape)
            rows /= 255
            rows -= mean
            rows /= std
        return torch.from_numpy(pixels.reshape(-1, self.size, self.size, 3)).permute(0, 3, 1, 2)


def _from_file(
    path: Path | Location,
    max_pixels: int = MAX_PIXELS,
    side: int | None = None,
    least: int | None = None,
) -> Image.Image:
    where = repr(str(path))
    return _read(lambda: _open(path, where), where, max_pixels, side, least)


def _read(
    open_file: Callable[[], IO[bytes]],
    where: str,
    max_pixels: int = MAX_PIXELS,
    side: int | None = None,
    least: int | None = None,
) -> Image.Image:
    """Open and decode a file: reduced as in `load_reduced` (side) or in `load_image` (least)."""
    try:
        with open_file() as file:
            try:
                with _quiet():
                    image = Image.open(file, formats=FORMATS)
            except UnidentifiedImageError as error:
                raise _unidentified(file, where) from error
            if side is None:
                return _decode(image, where, max_pixels, least=least)
            with _large_images if image.width * image.height > LARGE else nullcontext():
                return _decode(image, where, max_pixels, side)
    except InputError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which differs from ours
        raise InputError(
            f"{where}: too many pixels: {str(error).rstrip('.')}; shrink the image"
        ) from error
    except Exception as error:  # decoders raise nearly any exception for broken files
        raise InputError(
            f"{where}: cannot be read: {str(error) or type(error).__name__}"
        ) from error


def _unidentified(file: IO[bytes], where: str) -> InputError:
    """Return the error for a file that is not an image in any supported format, with its cause."""
    with _quiet():
        found = describe(file)
    file.seek(0)
    refuse_pointer(file.read(200), where)
    wanted = ", ".join(FORMATS)
    unknown = f"not an image in any of the formats {wanted}; convert or replace it"
    return InputError(f"{where}: {found or unknown}")


def _buffer(content: bytes, where: str) -> IO[bytes]:
    _check_size(len(content), where)
    return io.BytesIO(content)


def _open(path: Path | Location, where: str) -> IO[bytes]:
    """Open an image file, or a buffer of its bytes if it is in a tar file or a Parquet table."""
    if isinstance(path, Location) and storage.container(path) == path:
        raise InputError(
            f"{where}: images are downloaded only if URLs are allowed; pass allow_urls=True "
            "(--allow-urls), or download the file"
        )
    if isinstance(path, Location) or storage.container(path) != path:
        _check_size(storage.size(path), where)
        return io.BytesIO(storage.read(path))
    try:
        status = path.stat()  # before open, which would block on a pipe
    except FileNotFoundError:
        raise InputError(f"{where}: no such file; check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{where}: the path is a directory, not an image; pass a file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{where}: the path is not a regular file; pass one")
    _check_size(status.st_size, where)
    return path.open("rb")


def _check_size(size: int, where: str) -> None:
    if size == 0:
        raise InputError(f"{where}: the file is empty; replace it")
    if size > MAX_BYTES:
        raise InputError(
            f"{where}: {size:,} bytes exceed the limit of {MAX_BYTES:,}; shrink the image"
        )


def _decode(
    image: Image.Image,
    where: str,
    max_pixels: int = MAX_PIXELS,
    side: int | None = None,
    least: int | None = None,
) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{where}: {width} x {height} pixels exceed the limit of {max_pixels:,}; "
            "shrink the image"
        )
    if width * height == 0:
        raise InputError(f"{where}: the image has no pixels ({width} x {height}); pass another")
    try:
        if image.format == "TIFF":
            with _quiet():  # the only decoder that parses metadata, and warns, while it loads
                image.load()
        if least:
            _reduce(image, least)
        if side and image.mode in ("RGB", "L", "CMYK") and not image.has_transparency_data:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)  # while there is no copy of it
        image.load()
    except Exception as error:
        raise InputError(
            f"{where}: cannot be decoded (broken or truncated): "
            f"{str(error) or type(error).__name__}"
        ) from error
    method = _UPRIGHT.get(_orientation(image))
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow inverts all, but only Adobe's are negative
    if method is not None:
        image = image.transpose(method)
    rgb = _to_rgb(image, where)
    if side:
        rgb.thumbnail((side, side), Image.Resampling.LANCZOS)
    return rgb


def _reduce(image: Image.Image, least: int) -> None:
    """Let a JPEG file be decoded at an eighth, a quarter or a half of its size, as `least` allows.

    Other sizes than multiples would be rounded up, and their pixels shifted by parts of a pixel.
    """
    width, height = image.size
    for part in (8, 4, 2):
        if width % part == height % part == 0 and min(width, height) >= part * least:
            image.draft(None, (width // part, height // part))  # without effect on other formats
            return


def _orientation(image: Image.Image) -> int:
    try:
        with _quiet():
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block does not affect the pixels
        return 1


def _to_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "F":
        raise InputError(
            f"{where}: floating-point values have an unknown range; "
            "save the image with 8 bits per channel"
        )
    if image.mode.startswith("I"):  # "I;16" and variants, or "I" if Pillow widens 16 to 32 bits
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                f"{where}: grey values from {values.min()} to {values.max()} do not fit in 16 "
                "bits; save the image with 8 or 16 bits per channel"
            )
        if 0 < values.max() < 4096:
            raise InputError(
                f"{where}: the image is nearly black: its 16-bit values are at most "
                f"{values.max()}; scale the values to 16 bits, or save 8 bits per channel"
            )
        key = image.info.get("transparency")  # a PNG's transparent grey, with 16 bits
        image = Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
        if key is not None:
            image.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    rgb = image.convert("RGB")
    rgb.info = {}  # otherwise the next load would apply the orientation tag again
    return rgb


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Pillow's warnings and log messages while headers and metadata are read.

    Warning filters are global to the process, so only one thread at a time may change them; pixels
    are decoded outside the lock, except those of TIFF files.
    """
    log = logging.getLogger("PIL.TiffImagePlugin")  # the only decoder that logs errors
    with _filters_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        log.addFilter(_drop)
        try:
            yield
        finally:
            log.removeFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    return False
