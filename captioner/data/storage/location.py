"""URLs of files on servers, as value objects; nothing is downloaded here."""

from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path, PurePath, PurePosixPath

from ...errors import InputError

# Maximum bytes of members kept in memory while a tar file on a server is read forward. It also
# limits the windows in which members of local tar files are shuffled, so that training draws the
# same batches from a server as from a local disk.
KEPT_BYTES = 512 * 2**20


class UnreachableError(InputError):
    """Raised if a server fails, a file on it has changed or a URL is refused.

    The image itself may be valid.
    """


@total_ordering
@dataclass(frozen=True)
class Location:
    """An http or https URL, such as that of a tar file or one of its members, or a brace pattern.

    It supports the few pathlib operations that data sets need, but it is not a path: the operating
    system cannot open it. Locations and paths can be sorted together, by their parts.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.text}/{name}")

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Location | PurePath):
            return NotImplemented
        return self.parts < other.parts

    @property
    def parts(self) -> tuple[str, ...]:
        """The scheme with its colon, the host and port, then each component of the path."""
        return PurePosixPath(self.text).parts

    @property
    def name(self) -> str:
        return PurePosixPath(self.text).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.text).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.text).suffix

    @property
    def parent(self) -> "Location":
        return Location(self.text.rpartition("/")[0])

    def relative_to(self, directory: "Path | Location") -> PurePosixPath:
        """Return the path relative to `directory`; raise ValueError if it is outside."""
        return PurePosixPath(self.text).relative_to(str(directory))
