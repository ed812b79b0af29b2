"""Download checkpoints from the Hugging Face hub and upload them to it.

Only the files listed in FILES are downloaded; `checkpoint.load` verifies them.
"""

import re
from pathlib import Path
from types import ModuleType

from ..errors import InputError
from ..pretrained import find_pretrained
from .checkpoint import CARD, CONFIG, MANIFEST, VOCABULARY, WEIGHTS
from .runs import CHECKPOINTS

LINKING = ["reader.json", "text.json", "text.safetensors", "labels.json"]
FILES = [CONFIG, VOCABULARY, *LINKING, WEIGHTS, MANIFEST]
_NAME = r"\w[\w.-]*/\w[\w.-]*"
# The address of a repository, or of a page of it; pathlib turns "https://" into "https:/".
_ADDRESS = re.compile(
    r"(?:https?:/+)?(?:www\.)?(?:huggingface\.co|hf\.co)/+(?:models/)?"
    rf"(?P<name>{_NAME})(?:/(?:tree|blob|resolve|commit)/(?P<revision>[^/?#]+))?(?:[/?#].*)?"
)


def local(path: str | Path, revision: str | None = None) -> Path:
    """Return a local path for `path`, downloading it if it is a repository on the hub.

    The name of a model that comes with the package becomes its directory. A path is local, and is
    returned unchanged, if it does not have the form "user/name" or if its parent directory exists
    or is `checkpoints`. `path` may also be the address of a repository
    (https://huggingface.co/user/name) or of one of its pages, such as .../tree/REVISION. revision:
    a branch, tag or commit of the repository. Raises InputError if the download fails, if `path` is
    any other address, or if a revision is passed with a local path.
    """
    name, found = _parse(path)
    if name != str(path):
        return _download(Path(name), revision or found)
    path = find_pretrained(path) or Path(path)
    may_be_repository = re.fullmatch(_NAME, str(path))
    if not may_be_repository or path.parent.exists() or path.parent == CHECKPOINTS:
        if revision is not None:
            raise InputError(
                f"revision applies only to repositories on the hub, but {path} is a local path; "
                "omit the revision"
            )
        return path
    return _download(path, revision)


def name_of(path: Path) -> str:
    """Return how a file refers to the model at `path`: by an absolute path or by its name."""
    return str(path.resolve()) if path.exists() and not find_pretrained(path) else str(path)


def _parse(path: str | Path) -> tuple[str, str | None]:
    """Return the name and revision in the address of a repository; return a path unchanged.

    The revision is None for a path and for an address without one. Raises InputError for any other
    address.
    """
    if match := _ADDRESS.fullmatch(str(path)):
        if match["name"].partition("/")[0] in ("datasets", "spaces"):
            raise InputError(
                f"{path} is not the address of a model; pass the address or the name of a model"
            )
        return match["name"], match["revision"]
    if re.match(r"https?:/", str(path)):
        raise InputError(
            f"{path} is not the address of a model on the Hugging Face hub; download the "
            "checkpoint and pass its directory"
        )
    return str(path), None


def _download(path: Path, revision: str | None) -> Path:
    hub = _import_hub(f"{path} is not a local directory, and downloading from the Hugging Face hub")
    try:
        directory = hub.snapshot_download(str(path), revision=revision, allow_patterns=FILES)
    except _failures(hub) as error:
        at = "" if revision is None else f" at {revision}"
        raise InputError(
            f"{path} is not a local directory, and repository {path}{at} cannot be downloaded "
            f"from the Hugging Face hub: {_reason(error)}; check the name, the revision and the "
            "connection"
        ) from error
    return Path(directory)


def push(
    directory: Path, name: str, *, private: bool, token: str | None, revision: str | None
) -> str:
    """Upload a checkpoint to the repository `name`, creating it if necessary; return its URL.

    name: "user/name", or the repository's address. private: whether a newly created repository is
    private. token: an access token that may write; None for the one stored by `hf auth login`.
    revision: an existing branch; None for the default one. Raises InputError if the upload fails.
    """
    name = _parse(name)[0]
    hub = _import_hub("push_to_hub")
    try:
        api = hub.HfApi(token=token)
        repository = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository.repo_id,
            folder_path=directory,
            revision=revision,
            allow_patterns=[*FILES, CARD],
            commit_message="Upload a captioner checkpoint",
        )
    except _failures(hub) as error:
        raise InputError(
            f"the checkpoint cannot be uploaded to {name} on the Hugging Face hub: "
            f"{_reason(error)}; check the name, the token, the revision and the connection"
        ) from error
    return str(repository)


def _import_hub(purpose: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"{purpose} needs huggingface_hub; run pip install 'captioner[hub]'"
        ) from error
    return huggingface_hub


def _failures(hub: ModuleType) -> tuple[type[Exception], ...]:
    """Return the types of errors that a request, or the check of its arguments, may raise.

    If the hub cannot be reached, the HTTP library raises an error of its own, from which
    HfHubHTTPError is derived.
    """
    return (OSError, ValueError, *hub.errors.HfHubHTTPError.__bases__)


def _reason(error: Exception) -> str:
    """Return the first two informative lines of an error, because one may be only a status."""
    lines = [line.strip() for line in str(error).splitlines()]
    informative = [line for line in lines if line and not line.startswith("For more information")]
    return " ".join(informative[:2]) or type(error).__name__
