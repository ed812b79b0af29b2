"""Checkpoints on the Hugging Face hub: fetched, where no directory of that name is here, and pushed.

Only the plain files of a checkpoint are ever fetched; what they hold is checked as any other's.
"""

import re
from pathlib import Path
from types import ModuleType

from ..errors import InputError
from .checkpoint import CARD, CONFIG, MANIFEST, VOCABULARY, WEIGHTS
from .runs import CHECKPOINTS

FILES = [CONFIG, VOCABULARY, WEIGHTS, MANIFEST]


def local(path: str | Path, revision: str | None = None) -> Path:
    """`path` itself, or, where it is no path here but may be a repository "user/name", the directory
    into which that was downloaded.

    A name whose first part is a directory here, or `checkpoints`, is taken for a path. revision: a
    branch, tag or commit of the repository. Raises InputError where there is neither.
    """
    path = Path(path)
    named = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path))
    if not named or path.parent.exists() or path.parent == CHECKPOINTS:
        if revision is not None:
            raise InputError(f"a revision is of a repository on the hub, and {path} is a path here")
        return path
    hub = _package(f"{path} is no directory here, and the Hugging Face hub")
    try:
        fetched = hub.snapshot_download(str(path), revision=revision, allow_patterns=FILES)
    except (OSError, ValueError) as error:
        at = "" if revision is None else f" at {revision}"
        raise InputError(
            f"there is neither a directory {path} here nor a repository {path}{at} that the Hugging "
            f"Face hub would give: {_reason(error)}"
        ) from error
    return Path(fetched)


def push(
    directory: Path, name: str, *, private: bool, token: str | None, revision: str | None
) -> str:
    """Upload a checkpoint to the repository `name`, made where there is none; returns its address.

    private: of a repository that is made. Raises InputError where the hub refuses.
    """
    hub = _package("push_to_hub")
    try:
        api = hub.HfApi(token=token)
        made = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=made.repo_id,
            folder_path=directory,
            revision=revision,
            allow_patterns=[*FILES, CARD],
            commit_message="A checkpoint of captioner",
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{name} cannot be pushed to the hub: {_reason(error)}") from error
    return str(made)


def _package(what: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise InputError(
            f"{what} needs huggingface_hub; pip install 'captioner[hub]' brings it"
        ) from error
    return huggingface_hub


def _reason(error: Exception) -> str:
    """The first two lines that say something: one is often the bare status."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("For more information")]
    return " ".join(told[:2]) or type(error).__name__
