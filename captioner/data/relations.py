"""Relations of images and texts: labels generated from any data set of captions, and their counts.

Two labels are generated. `cmi`, cross-modal mutual information, is the share of four sentences that
belong to the image: 0, 0.25, 0.5, 0.75 or 1. `sc`, semantic correlation, is 1 for a caption of the
image, 0 for one of another image, and -1 for one in which a word contradicts the image. They stand
in for people's judgements, which few data sets have; see Henning and Ewerth 2017.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from ..text.tokenizer import split_words
from .contradictions import contradict
from .dataset import SPLITS, CaptionData, Example
from .demo.relations import demo_texts
from .formats.reading import TextLabels

CMI, SC = "cmi", "sc"
SENTENCES = 4  # of a text whose CMI is known
SC_ROUNDS = 2  # texts of each SC value for an image
NOTE = "labels of relations were generated from the captions (seed {seed})"
EXACT = "labels of relations were generated from the shapes of the demo (seed {seed})"

LabelledText = tuple[str, TextLabels]


def with_relations(data: CaptionData, seed: int = 0) -> CaptionData:
    """Return the data set with labelled texts in place of captions, unless it has labels already.

    Every image also keeps all its captions as one text without labels. The labelled texts of an
    image are made from captions of its own split only, and do not depend on the other splits; the
    same captions and seed give the same texts. The texts and labels of the demo data set are made
    from its shapes instead, and its labels are exact.
    """
    if any(example.labels for example in data.examples):
        return data
    exact = demo_texts(data.root, data.examples, seed)
    generated = exact or _proxies(data.examples, seed)
    examples = []
    for example in data.examples:
        pair = (join_sentences(example.captions), TextLabels(source="captions"))
        texts = [pair, *generated[example.split, example.id]]
        captions, labels = zip(*texts, strict=True)
        examples.append(replace(example, captions=captions, labels=labels))
    note = (EXACT if exact else NOTE).format(seed=seed)
    return replace(data, examples=tuple(examples), notes=(*data.notes, note))


def join_sentences(sentences: Sequence[str]) -> str:
    """Return sentences as the lines of one text, each with final punctuation."""
    stripped = (sentence.strip() for sentence in sentences)
    return "\n".join(s if s.endswith((".", "!", "?")) else f"{s}." for s in stripped)


def _proxies(
    examples: Iterable[Example], seed: int
) -> dict[tuple[str, int | str], list[LabelledText]]:
    by_split: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_split[example.split].append(example)
    generated = {}
    for split, members in by_split.items():
        captions = (caption for member in members for caption in member.captions)
        counts = Counter(word for caption in captions for word in split_words(caption))
        for position, example in enumerate(members):
            rng = random.Random(f"{seed} {split} {example.id}")
            texts = _cmi_texts(members, position, rng)
            for _ in range(SC_ROUNDS):
                texts += _sc_texts(members, position, counts, rng)
            generated[split, example.id] = texts
    return generated


def _cmi_texts(members: Sequence[Example], position: int, rng: random.Random) -> list[LabelledText]:
    """Return texts of SENTENCES captions, of which 0, 1, ... belong to the image.

    There are no texts if the split has no other image, and none with more of the image's captions
    than it has.
    """
    own, texts = members[position].captions, []
    if len(members) == 1:
        return []
    for count in range(min(len(own), SENTENCES) + 1):
        sentences = rng.sample(own, count)
        sentences += [_foreign(members, position, rng) for _ in range(SENTENCES - count)]
        rng.shuffle(sentences)
        labels = TextLabels({CMI: count / SENTENCES}, "mixed captions")
        texts.append((join_sentences(sentences), labels))
    return texts


def _sc_texts(
    members: Sequence[Example], position: int, counts: Mapping[str, int], rng: random.Random
) -> list[LabelledText]:
    """Return an own caption, one of another image, and a contradiction, as far as they exist."""
    own = members[position].captions
    texts = [(join_sentences([rng.choice(own)]), TextLabels({SC: 1.0}, "own caption"))]
    if len(members) > 1:
        foreign = _foreign(members, position, rng)
        texts.append((join_sentences([foreign]), TextLabels({SC: 0.0}, "foreign caption")))
    for caption in rng.sample(own, len(own)):
        if wrong := contradict(caption, own, counts, rng):
            texts.append((join_sentences([wrong]), TextLabels({SC: -1.0}, "contradiction")))
            break
    return texts


def _foreign(members: Sequence[Example], position: int, rng: random.Random) -> str:
    """Return a random caption of a random image other than the one at `position`."""
    other = rng.randrange(len(members) - 1)
    return rng.choice(members[other + (other >= position)].captions)


def describe_labels(examples: Iterable[Example]) -> list[str]:
    """Return a line for each split and label: how often each value occurs, and means by source.

    Another line for each split counts its texts without labels, if there are any.
    """
    values: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    unlabelled: Counter[str] = Counter()
    for example in examples:
        for labels in example.labels:
            unlabelled[example.split] += not labels.values
            for name, value in labels.values.items():
                values[example.split, name].append((value, labels.source))
    lines = []
    for split in SPLITS:
        for name in dict.fromkeys(name for s, name in values if s == split):
            found = values[split, name]
            counts = sorted(Counter(value for value, _ in found).items())
            text = "  ".join(f"{value:g}: {count:,}" for value, count in counts)
            lines.append(f"{split} {name}: {text}{_means(found)}")
        if unlabelled[split]:
            lines.append(f"{split} texts without labels: {unlabelled[split]:,}")
    return lines


def _means(found: Sequence[tuple[float, str]]) -> str:
    """Describe the mean value of each source, or return "" unless several sources have a name."""
    sources = sorted({source for _, source in found} - {""})
    if len(sources) < 2:
        return ""
    means = {s: fmean(value for value, source in found if source == s) for s in sources}
    return "; mean by source: " + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
