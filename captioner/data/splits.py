"""Splits of data sets that do not define them, drawn at random in the same way on every machine."""

import random
from collections.abc import Sequence
from dataclasses import replace

from .dataset import Example


def complete_splits(examples: list[Example], val_from_train: bool) -> tuple[list[Example], str]:
    """Assign missing splits; return the examples and a note on any splits drawn at random.

    val_from_train: whether a tenth of train becomes val if there are splits, but no val.
    """
    if not any(example.split for example in examples):
        note = "the files define no splits, so 80/10/10 % were drawn at random (seed 0)"
        return assign_splits(examples), note
    training = [example.split for example in examples].count("train")
    if not val_from_train or training < 2 or any(e.split == "val" for e in examples):
        return examples, ""
    note = "the files define no val split, so a random tenth of train is used as val (seed 0)"
    return _val_from_train(examples), note


def assign_splits(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Assign random splits to the examples: 80 % train, 10 % val, 10 % test.

    The splits depend only on the ids and the seed, not on the order or the machine. With two
    images, one is in val; with more, at least one is in val and at least one in test.
    """
    order, tenth = _shuffled_ids(examples, seed), max(1, len(examples) // 10)
    val = order[:tenth] if len(order) >= 2 else []
    test = order[tenth : 2 * tenth] if len(order) >= 3 else []
    splits = dict.fromkeys(val, "val") | dict.fromkeys(test, "test")
    return [replace(e, split=splits.get(e.id, "train")) for e in examples]


def _val_from_train(examples: list[Example]) -> list[Example]:
    order = _shuffled_ids([example for example in examples if example.split == "train"], seed=0)
    val = set(order[: max(1, len(order) // 10)])
    # Ids are unique only within their split.
    return [replace(e, split="val") if e.split == "train" and e.id in val else e for e in examples]


def _shuffled_ids(examples: Sequence[Example], seed: int) -> list[int | str]:
    ids = sorted((example.id for example in examples), key=str)
    random.Random(seed).shuffle(ids)
    return ids
