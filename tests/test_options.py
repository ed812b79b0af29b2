"""Options from flags, to and from dicts, and the shared checks."""

import argparse
import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError
from captioner.models.captioning.options import ModelOptions
from captioner.options import (
    add_options,
    check_at_least,
    check_bounds,
    check_share,
    from_arguments,
    from_dict,
    option,
    to_dict,
)
from captioner.tasks.options import TrainingOptions
from captioner.vision.options import EncoderOptions

ALL = [ModelOptions, EncoderOptions, DecodingOptions, TrainingOptions]


@dataclass(frozen=True)
class Sample:
    count: int = option(3, "number of things")
    share: float = option(0.5, "a share of 100 %% of them")
    directory: Path | None = option(None, "directory of the things")
    limit: int | None = option(None, "maximum number")
    kind: str = option("red", "colour", choices=("red", "blue"))
    quick: bool = option(False, "save time")
    careful: bool = option(True, "check everything")
    sources: tuple[Path, ...] = option((Path("a"), Path("5%")), "places of origin")
    hidden: int = dataclasses.field(default=7)  # has no help text, so it gets no flag


def parse(*arguments, cls=Sample):
    parser = argparse.ArgumentParser()
    add_options(parser, cls, "things")
    return from_arguments(cls, parser.parse_args(arguments))


def test_excluded_fields_get_no_flag():
    parser = argparse.ArgumentParser()
    add_options(parser, Sample, "things", without=("share", "limit"))
    assert "--share" not in parser.format_help()
    assert "--limit" not in parser.format_help()
    assert from_arguments(Sample, parser.parse_args(["--count", "5"])) == Sample(5)


def test_without_flags_the_defaults_hold():
    assert parse() == Sample()


def test_flags_have_the_types_of_the_fields():
    flags = "--count 5 --share 0.25 --directory a/b --limit 9 --kind blue --quick --no-careful"
    sources = (Path("c"), Path("d"))
    expected = Sample(5, 0.25, Path("a/b"), 9, "blue", True, False, sources)
    assert parse(*flags.split(), "--sources", "c", "d") == expected
    assert parse("--sources", "c") == Sample(sources=(Path("c"),))
    assert parse("--sources", "c", "--sources", "d").sources == sources
    assert parse("--kind", "Blue") == Sample(kind="blue")


def test_a_repeatable_flag_does_not_swallow_positional_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("things", nargs="+")
    add_options(parser, Sample, "things")
    arguments = parser.parse_args(["--sources", "c", "--sources", "d", "x", "y"])
    assert arguments.things == ["x", "y"]
    assert from_arguments(Sample, arguments) == Sample(sources=(Path("c"), Path("d")))
    assert from_arguments(Sample, parser.parse_args(["x"])) == Sample()
    assert "--sources PATH  " in parser.format_help()


@pytest.mark.parametrize("cls", ALL)
def test_choices_are_accepted_in_any_case(cls):
    for field in dataclasses.fields(cls):
        for word in field.metadata.get("choices") or ():
            flag = "--" + field.name.replace("_", "-")
            assert getattr(parse(flag, word.upper(), cls=cls), field.name) == word


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "few"], "argument --count: invalid int value: 'few'"),
        (["--kind", "green"], "argument --kind: invalid choice: 'green'"),
        (["--hidden", "1"], "unrecognized arguments: --hidden 1"),
    ],
)
def test_wrong_flags_end_the_program_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_help_shows_the_type_and_the_default_of_every_flag():
    parser = argparse.ArgumentParser()
    add_options(parser, Sample, "things")
    text = " ".join(parser.format_help().split())
    assert "things [default]: " in text
    assert "hidden" not in text
    assert "--count INT number of things [3]" in text
    assert "--share FLOAT a share of 100 % of them [0.5]" in text
    assert "--directory PATH directory of the things --limit INT maximum number" in text
    assert "--kind {red,blue}" in text
    assert "--careful, --no-careful check everything" in text
    assert "--sources PATH [PATH ...] places of origin [a 5%]" in text


@pytest.mark.parametrize("cls", ALL)
def test_every_option_of_the_library_has_help_and_survives_a_dict(cls):
    assert all(f.metadata["help"] for f in dataclasses.fields(cls))
    parser = argparse.ArgumentParser()
    add_options(parser, cls, "options")
    assert len(parser.format_help()) > 100
    assert parse(cls=cls) == cls() == from_dict(cls, to_dict(cls()))


def test_dicts_hold_paths_as_strings():
    assert to_dict(Sample(directory=Path("a/b")))["directory"] == "a/b"
    assert to_dict(Sample())["directory"] is None
    assert from_dict(Sample, {"count": 4}) == Sample(4)


def test_unknown_names_in_a_dict_are_refused():
    message = r"unknown options 'beams', 'size' for DecodingOptions; the options are allow_unknown"
    with pytest.raises(InputError, match=message):
        from_dict(DecodingOptions, {"size": 3, "beam_size": 2, "beams": 1})


def test_checks_name_the_first_wrong_field():
    check_at_least(Sample(), 3, "count", "limit")
    with pytest.raises(InputError, match="count must be at least 4, got 3"):
        check_at_least(Sample(), 4, "limit", "count", "hidden")
    check_share(Sample(share=0.0), "share")
    for share in (-0.1, 1.0, 2.0, float("nan")):
        with pytest.raises(InputError, match=f"share must be at least 0 and below 1, got {share}"):
            check_share(Sample(share=share), "share")


def test_bounds_are_enforced_as_declared():
    @dataclass
    class Bounded:
        share: float = option(0.5, "a share", above=0, at_most=1)
        count: int | None = option(None, "a count", at_least=2)
        free: float = option(math.inf, "unbounded")

    for share, count in ((1.0, None), (1e-9, 2), (1, 10**400)):
        check_bounds(Bounded(share, count))
    for share in (0.0, -1.0, 1.1, math.nan, math.inf):
        message = f"share must be above 0 and at most 1, got {share}"
        with pytest.raises(InputError, match=message):
            check_bounds(Bounded(share))
    for count, what in (
        (1, "at least 2"),
        (math.inf, "finite and at"),
        (math.nan, "finite and at"),
    ):
        with pytest.raises(InputError, match=f"count must be {what}.*, got {count}"):
            check_bounds(Bounded(count=count))


def test_values_of_wrong_types_are_refused():
    for values, message in (
        ({"beam_size": "5"}, "beam_size must be of type int | None, got '5'"),
        ({"beam_size": 2.5}, "beam_size must be of type int | None, got 2.5"),
        ({"max_length": True}, "max_length must be of type int, got True"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            from_dict(DecodingOptions, values)
    assert from_dict(DecodingOptions, {"length_penalty": 1}).length_penalty == 1
