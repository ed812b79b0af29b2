"""constraints.txt has a version of each package that setup.cfg requires, and of no other."""

import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def requirements():
    """Those of the package and of its extras, each once."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return sorted({line for lines in lists for line in lines.split("\n")[1:]})


def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("requirement", requirements())
def test_each_requirement_has_a_version_that_it_allows(requirement):
    required = Requirement(requirement)
    versions = {canonicalize_name(name): version for name, version in constraints().items()}
    assert required.specifier.contains(versions[canonicalize_name(required.name)])


def test_constraints_are_sorted_and_required():
    names = [canonicalize_name(name) for name in constraints()]
    assert names == sorted(names)
    required = {canonicalize_name(Requirement(each).name) for each in requirements()}
    assert set(names) == required
