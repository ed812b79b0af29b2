"""Grammar of the demo's captions: five true sentences about each scene."""

from collections.abc import Sequence
from itertools import pairwise

from .shapes import GAP, PLURALS, SIDE, Box, DrawnShape

POSITIONS = (
    ("in the top left", "at the top", "in the top right"),
    ("on the left", "in the middle", "on the right"),
    ("in the bottom left", "at the bottom", "in the bottom right"),
)
THIRDS = ((0, 0.3), (0.4, 0.6), (0.7, 1))  # fractions of the side; the gaps are ambiguous
RELATIONS = (  # for a row and a column: first to second, second to first, all in order
    ("to the left of", "to the right of", "from left to right"),
    ("above", "below", "from top to bottom"),
)

Group = Sequence[DrawnShape]  # shapes of the same look, described by one noun phrase


def describe(groups: Sequence[Group]) -> list[str] | None:
    """Return five true captions of a scene of 1 to 3 groups, or None if its layout is ambiguous.

    The layout is ambiguous if a single shape is near the border between two positions, or if
    several groups form neither a row nor a column. Every caption mentions all shapes.
    """
    if len(groups) == 1:
        sentences = _describe_one(groups[0])
    else:
        line = _find_line(groups)
        if line is None:
            return None
        sentences = (_describe_two if len(groups) == 2 else _describe_three)(*line)
    # If all shapes are solid, phrases without textures repeat others, so a sixth replaces one.
    return list(dict.fromkeys(sentences))[:5] if sentences else None


def _describe_one(group: Group) -> list[str] | None:
    full, sizeless, plain = (_noun_phrase(group, omit) for omit in ("", "size", "texture"))
    if len(group) > 1:
        sentences = [full, f"there are {full}", sizeless, plain, f"there are {sizeless}"]
        return [*sentences, f"a picture of {full}"]
    position = _position(group[0].box)
    if position is None:
        return None
    sentences = [full, f"{full} {position}", f"there is {full} {position}"]
    sentences += [f"{sizeless} {position}", f"{plain} {position}"]
    return [*sentences, f"there is {sizeless} {position}"]


def _describe_two(axis: int, groups: Sequence[Group]) -> list[str]:
    before, after, _ = RELATIONS[axis]
    full, sizeless, plain = _noun_phrases(groups)
    first, second = full
    sentences = [f"{first} {before} {second}", f"{second} {after} {first}", f"{first} and {second}"]
    sentences += [f" {before} ".join(sizeless), f" {before} ".join(plain)]
    return [*sentences, f" {after} ".join(reversed(sizeless))]


def _describe_three(axis: int, groups: Sequence[Group]) -> list[str]:
    order = RELATIONS[axis][2]
    full, sizeless, plain = (f"{x}, {y} and {z}" for x, y, z in _noun_phrases(groups))
    sentences = [full, f"{full} {order}", sizeless, plain, f"{sizeless} {order}"]
    return [*sentences, f"there are {full}"]


def _noun_phrases(groups: Sequence[Group]) -> list[list[str]]:
    """Return all noun phrases in three forms: complete, without sizes and without textures."""
    return [[_noun_phrase(group, omit) for group in groups] for omit in ("", "size", "texture")]


def _noun_phrase(group: Group, omit: str) -> str:
    """Return e.g. "two large striped red stars", without the attribute `omit` ("" omits none)."""
    shape = group[0]
    words = [] if omit == "size" else [shape.size]
    words += [] if omit == "texture" or shape.texture == "solid" else [shape.texture]
    words += [shape.color, shape.kind if len(group) == 1 else PLURALS[shape.kind]]
    article = "an" if words[0] == "orange" else "a"
    return " ".join([(article, "two", "three")[len(group) - 1], *words])


def _position(box: Box) -> str | None:
    """Return the position of a box's centre, or None near the border between two positions."""
    row_and_column = []
    for low, high in ((box[1], box[3]), (box[0], box[2])):
        centre = (low + high) / 2 / SIDE
        row_and_column += [i for i, (a, b) in enumerate(THIRDS) if a <= centre <= b]
    if len(row_and_column) < 2:
        return None
    row, column = row_and_column
    return POSITIONS[row][column]


def _find_line(groups: Sequence[Group]) -> tuple[int, list[Group]] | None:
    """Return the axis (0: a row, 1: a column) along which the groups are clearly lined up.

    Also returns the groups in order along the axis: left to right, or top to bottom. Returns None
    if there is no such axis.
    """

    def extent(group: Group, axis: int) -> tuple[int, int]:
        return min(s.box[axis] for s in group), max(s.box[axis + 2] for s in group)

    for axis in (0, 1):
        ordered = sorted(groups, key=lambda group: extent(group, axis))
        spans = [extent(group, axis) for group in ordered]
        across = [sum(extent(group, 1 - axis)) for group in ordered]
        separate = all(b[0] - a[1] >= GAP for a, b in pairwise(spans))
        if separate and sum(spans[-1]) - sum(spans[0]) >= 2 * (max(across) - min(across)):
            return axis, ordered
    return None
