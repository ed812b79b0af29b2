"""The package's description for an index: README.md without links into the repository.

Everything else is in setup.cfg.
"""

import re
from pathlib import Path

from setuptools import setup


def describe(readme: str) -> str:
    """Return Markdown in which links to files are replaced by their texts; images are left out."""
    address = r"\((?!https?://|#)[^)]*\)"
    without_images = re.sub(rf"!\[[^\]]*\]{address}\n*", "", readme)
    return re.sub(rf"\[([^\]]*)\]{address}", r"\1", without_images)


setup(
    long_description=describe(Path(__file__).with_name("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
