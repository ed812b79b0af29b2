"""Dataclass <-> command line <-> dict, and the checks that options share."""

import argparse
import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from captioner.decoding.options import DecodingOptions
from captioner.errors import InputError
from captioner.models.captioning.options import ModelOptions
from captioner.options import (
    add_options,
    check_at_least,
    check_share,
    from_arguments,
    from_dict,
    option,
    to_dict,
)
from captioner.training.optimization import TrainingOptions
from captioner.vision.encoders import EncoderOptions

ALL = [ModelOptions, EncoderOptions, DecodingOptions, TrainingOptions]


@dataclass(frozen=True)
class Sample:
    count: int = option(3, "how many things")
    share: float = option(0.5, "a share of 100 %% of them")
    directory: Path | None = option(None, "where they lie")
    limit: int | None = option(None, "at most so many")
    kind: str = option("red", "which ones", choices=("red", "blue"))
    quick: bool = option(False, "do it quickly")
    careful: bool = option(True, "do it with care")
    sources: tuple[Path, ...] = option((Path("a"), Path("5%")), "where they come from")
    hidden: int = field(default=7)  # has no help, so it is no flag


def parse(*arguments, cls=Sample):
    parser = argparse.ArgumentParser()
    add_options(parser, cls, "things")
    return from_arguments(cls, parser.parse_args(arguments))


def test_fields_without_a_flag():
    parser = argparse.ArgumentParser()
    add_options(parser, Sample, "things", without=("share", "limit"))
    assert "--share" not in parser.format_help() and "--limit" not in parser.format_help()
    assert from_arguments(Sample, parser.parse_args(["--count", "5"])) == Sample(5)


def test_no_flags_are_the_defaults():
    assert parse() == Sample()


def test_flags_have_the_types_of_the_fields():
    flags = "--count 5 --share 0.25 --directory a/b --limit 9 --kind blue --quick --no-careful"
    sources = (Path("c"), Path("d"))
    expected = Sample(5, 0.25, Path("a/b"), 9, "blue", True, False, sources)
    assert parse(*flags.split(), "--sources", "c", "d") == expected
    assert parse("--sources", "c") == Sample(sources=(Path("c"),))
    assert parse("--sources", "c", "--sources", "d").sources == sources
    assert parse("--kind", "Blue") == Sample(kind="blue")


def test_a_flag_of_several_values_leaves_positional_arguments_alone():
    parser = argparse.ArgumentParser()
    parser.add_argument("things", nargs="+")
    add_options(parser, Sample, "things")
    arguments = parser.parse_args(["--sources", "c", "--sources", "d", "x", "y"])
    assert arguments.things == ["x", "y"]
    assert from_arguments(Sample, arguments) == Sample(sources=(Path("c"), Path("d")))
    assert from_arguments(Sample, parser.parse_args(["x"])) == Sample()
    assert "--sources PATH  " in parser.format_help()


@pytest.mark.parametrize("cls", ALL)
def test_words_to_choose_from_are_read_in_any_case(cls):
    for each in dataclasses.fields(cls):
        for word in each.metadata.get("choices") or ():
            assert (
                getattr(parse("--" + each.name.replace("_", "-"), word.upper(), cls=cls), each.name)
                == word
            )


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


def test_help_tells_every_flag_its_type_and_its_default():
    parser = argparse.ArgumentParser()
    add_options(parser, Sample, "things")
    text = " ".join(parser.format_help().split())
    assert "things [default]: " in text and "hidden" not in text
    assert "--count INT how many things [3]" in text
    assert "--share FLOAT a share of 100 % of them [0.5]" in text
    assert "--directory PATH where they lie --limit INT at most so many --kind {red,blue}" in text
    assert "--careful, --no-careful do it with care" in text
    assert "--sources PATH [PATH ...] where they come from [a 5%]" in text


@pytest.mark.parametrize("cls", ALL)
def test_every_option_of_the_library_has_help_and_comes_back(cls):
    assert all(f.metadata["help"] for f in dataclasses.fields(cls))
    parser = argparse.ArgumentParser()
    add_options(parser, cls, "options")
    assert len(parser.format_help()) > 100
    assert parse(cls=cls) == cls() == from_dict(cls, to_dict(cls()))


def test_dicts_hold_paths_as_strings():
    assert to_dict(Sample(directory=Path("a/b")))["directory"] == "a/b"
    assert to_dict(Sample())["directory"] is None
    assert from_dict(Sample, {"count": 4}) == Sample(4)


def test_unknown_names_in_a_dict():
    message = r"unknown option 'beams', 'size' for DecodingOptions; it has allow_unknown, beam_size"
    with pytest.raises(InputError, match=message):
        from_dict(DecodingOptions, {"size": 3, "beam_size": 2, "beams": 1})


def test_checks_name_the_first_field_that_is_wrong():
    check_at_least(Sample(), 3, "count", "limit")
    with pytest.raises(InputError, match="count must be at least 4, got 3"):
        check_at_least(Sample(), 4, "limit", "count", "hidden")
    check_share(Sample(share=0.0), "share")
    for share in (-0.1, 1.0, 2.0, float("nan")):
        with pytest.raises(InputError, match=f"share must be at least 0 and below 1, got {share}"):
            check_share(Sample(share=share), "share")


def test_values_of_other_types_are_refused():
    for values, message in (
        ({"beam_size": "5"}, "beam_size must be int | None, got '5'"),
        ({"beam_size": 2.5}, "beam_size must be int | None, got 2.5"),
        ({"max_length": True}, "max_length must be int, got True"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            from_dict(DecodingOptions, values)
    assert from_dict(DecodingOptions, {"length_penalty": 1}).length_penalty == 1
