"""Labels of relations: generated from captions and from the demo, read and written."""

import json
import random
import re

import pytest

from captioner import __main__ as commands
from captioner.data.contradictions import GROUPS, contradict, replace_word
from captioner.data.dataset import CaptionData, Example, fingerprint
from captioner.data.demo import dataset as demo
from captioner.data.demo.shapes import COLORS, KINDS, SIZES, TEXTURES
from captioner.data.readers import read_captions
from captioner.data.relations import describe_labels, join_sentences, with_relations
from captioner.errors import InputError
from tests.support.layouts import touch, write

CAPTIONS = [
    ("a man runs.", "two dogs", "red ball!", "grass here", "a fifth one"),
    ("one woman sits", "cold snow", "a blue hat", "some hill"),
    ("nothing else", "at all"),
]


def data_of(*captions, split="train"):
    examples = [Example(i, f"{i}.jpg", own, split) for i, own in enumerate(captions)]
    return CaptionData("three", "jsonl", "nowhere", tuple(examples))


def texts_of(example, name):
    """The sentences of the texts that have this label, with its value."""
    return [
        (labels.values[name], text.split("\n"))
        for text, labels in zip(example.captions, example.labels, strict=True)
        if name in labels.values
    ]


def with_full_stop(caption):
    return caption if caption[-1] in ".!?" else caption + "."


def test_cmi_is_the_share_of_four_sentences_that_belong_to_the_image():
    data = data_of(*CAPTIONS)
    for example, captions in zip(with_relations(data).examples, CAPTIONS, strict=True):
        own = {with_full_stop(caption) for caption in captions}
        texts = texts_of(example, "cmi")
        assert [value for value, _ in texts] == [k / 4 for k in range(min(4, len(captions)) + 1)]
        for value, sentences in texts:
            assert len(sentences) == 4
            belonging = [sentence for sentence in sentences if sentence in own]
            assert len(belonging) == len(set(belonging)) == 4 * value


def test_sc_says_whose_caption_it_is_and_whether_a_word_contradicts():
    data = data_of(*CAPTIONS)
    everyone = {with_full_stop(c) for captions in CAPTIONS for c in captions}
    for example, captions in zip(with_relations(data).examples, CAPTIONS, strict=True):
        own = {with_full_stop(caption) for caption in captions}
        found = {}
        for value, (sentence,) in texts_of(example, "sc"):
            found.setdefault(value, set()).add(sentence)
        assert found[1] <= own
        assert found[0] <= everyone - own
        for sentence in found.get(-1, ()):
            assert sentence not in everyone
            words = sentence.split()
            originals = [c.split() for c in own if len(c.split()) == len(words)]
            changed = [[(a, b) for a, b in zip(o, words, strict=True) if a != b] for o in originals]
            pairs = min(changed, key=len)
            assert len(pairs) == 1
            group = next(g for g in GROUPS if pairs[0][0].rstrip(".!") in g)
            assert pairs[0][1].rstrip(".!") in group
    assert -1 not in {value for value, _ in texts_of(with_relations(data).examples[2], "sc")}


def test_every_image_keeps_its_captions_as_one_text_without_labels():
    for example, captions in zip(
        with_relations(data_of(*CAPTIONS)).examples, CAPTIONS, strict=True
    ):
        assert example.captions[0] == join_sentences(captions)
        assert (example.labels[0].values, example.labels[0].source) == ({}, "captions")
        assert all(labels.values for labels in example.labels[1:])


def test_texts_depend_on_the_seed_and_the_own_split_only():
    data = data_of(*CAPTIONS)
    both = CaptionData(
        *("three", "jsonl", "nowhere"),
        data.examples + data_of(("other words",), ("a last one",), split="val").examples,
    )
    alone, beside = with_relations(data).examples, with_relations(both).examples
    assert alone == beside[:3]
    assert alone == with_relations(data).examples
    assert alone != with_relations(data, seed=1).examples
    assert with_relations(both).notes == (
        "labels of relations were generated from the captions (seed 0)",
    )


def test_an_image_alone_in_its_split_has_no_foreign_sentences():
    (example,) = with_relations(data_of(("a man runs", "a dog"))).examples
    assert {value for value, _ in texts_of(example, "sc")} == {1, -1}
    assert texts_of(example, "cmi") == []


def test_labels_that_exist_are_kept(tmp_path):
    write(tmp_path / "relations.jsonl", '{"image": "a.jpg", "text": "a dog", "labels": {"x": 1}}\n')
    touch(tmp_path / "a.jpg")
    data = read_captions(tmp_path)
    assert with_relations(data) is data


# ---- contradictions -----------------------------------------------------------------------------


def test_a_contradiction_replaces_one_word_by_another_of_its_group():
    found = {
        contradict("A man has a hat", ["A man has a hat"], {}, random.Random(i)) for i in range(9)
    }
    assert found == {"A woman has a hat"}
    assert contradict("a hat", ["a hat"], {}, random.Random(0)) is None


def test_words_that_are_true_in_any_form_are_no_replacements():
    own = ["a man runs", "two women"]
    rng = random.Random(0)
    found = {contradict("a man runs", own, {}, rng) for _ in range(30)}
    assert found == {"a woman runs", "a man stands", "a man sits"}  # "women" is another word
    assert contradict("a man", ["a man", "the woman's hat"], {}, rng) is None


def test_frequent_words_replace_others_more_often():
    rng, counts = random.Random(0), {"white": 98}
    found = [contradict("a black dog", ["a black dog"], counts, rng) for _ in range(200)]
    assert found.count("a white dog") > 150
    assert len(set(found)) > 3


@pytest.mark.parametrize(
    ("sentence", "word", "new", "result"),
    [
        ("an orange hat", "orange", "red", "a red hat"),
        ("A red hat", "red", "orange", "An orange hat"),
        ("Men and a man", "Men", "women", "Women and a man"),
        ("china red", "red", "orange", "china orange"),
    ],
)
def test_articles_and_capitals_fit_the_new_word(sentence, word, new, result):
    start = sentence.index(word)
    assert replace_word(sentence, start, start + len(word), new) == result


# ---- the demo -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "demo"
    demo.write_demo(root, train=40, val=12, test=0)
    return root


def parse(sentence):
    """The attributes that a sentence states, as a set with one of each kind."""
    article, *words = re.fullmatch(r"there is (an?) (.+)\.", sentence)[0][9:-1].split()
    assert article == ("an" if words[0] == "orange" else "a")
    known = {*SIZES, *TEXTURES, *COLORS, *KINDS}
    assert set(words) <= known
    return set(words)


def test_the_labels_of_the_demo_are_true(shapes):
    data, contradicting = read_captions(shapes), set()
    for split in ("train", "val"):
        truth = demo.read_shapes(shapes, split)
        for example in with_relations(data).split(split):
            looks = [{s.size, s.texture, s.color, s.kind} for s in truth[example.id]]
            kinds = {shape.kind for shape in truth[example.id]}

            def is_true(sentence, looks=looks):
                return any(parse(sentence) <= look for look in looks)

            for value, sentences in texts_of(example, "cmi"):
                assert sum(map(is_true, sentences)) == 4 * value
            for value, sentences in texts_of(example, "sc"):
                wrong = [sentence for sentence in sentences if not is_true(sentence)]
                if value == 1:
                    assert not wrong
                elif value == -1:
                    (attribute,) = {
                        word
                        for stated in map(parse, wrong)
                        for word in stated - next(x for x in looks if kinds & stated & x)
                    }
                    contradicting.add(attribute)
                else:
                    assert not any(parse(sentence) & kinds for sentence in sentences)
            values = [value for value, _ in texts_of(example, "cmi")]
            assert values == [0, 0.25, 0.5, 0.75, 1]
            assert sorted(value for value, _ in texts_of(example, "sc")) == [-1, -1, 0, 0, 1, 1]
    assert contradicting == {*SIZES, "striped", "dotted", *COLORS}


def test_a_text_of_the_demo_has_any_number_of_sentences_and_may_repeat_them(shapes):
    examples = with_relations(read_captions(shapes)).split("train")
    texts = [text for example in examples for text in texts_of(example, "sc")]
    for value in (-1, 0, 1):
        counts = {len(sentences) for v, sentences in texts if v == value}
        assert counts == {1, 2, 3, 4}
    assert any(len(set(sentences)) < len(sentences) for value, sentences in texts if value == 1)


# ---- files --------------------------------------------------------------------------------------


def read_rows(root, *rows, name="relations.jsonl", **options):
    write(root / name, "".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        touch(root / str(row.get("image", row.get("imgpath", "a.jpg"))))
    return read_captions(root if name == "relations.jsonl" else root / name, **options)


def test_rows_of_an_image_are_merged_with_their_labels(tmp_path):
    data = read_rows(
        tmp_path,
        {"image": "a.jpg", "text": "A dog. It runs.", "labels": {"cmi": 0.5}, "split": "train"},
        {"image": "b.jpg", "text": ["One", "Two"], "labels": {"sc": -1}, "split": "val"},
        {"image": "a.jpg", "text": "Else", "source": "news", "split": "train"},
    )
    first, second = data.examples
    assert (data.format, first.captions) == ("relations", ("A dog. It runs.", "Else"))
    assert [labels.values for labels in first.labels] == [{"cmi": 0.5}, {}]
    assert [labels.source for labels in first.labels] == ["", "news"]
    assert (second.captions, second.labels[0].values) == (("One\nTwo",), {"sc": -1})
    assert (first.split, second.split) == ("train", "val")
    assert data.notes == ()


def test_the_layout_of_2017(tmp_path):
    data = read_rows(
        tmp_path,
        {"imgpath": "a.jpg", "text": "x", "annotation": {"mi": 3, "sc": 0.5, "type": "photo"}},
        {"imgpath": "b.jpg", "text": "y", "annotation": {"sc": -1.0}},
        name="bbc-anno-samples.jsonl",
    )
    assert {e.path.name: e.labels[0].values for e in data.examples} == {
        "a.jpg": {"cmi": 0.75, "sc": 0.5},
        "b.jpg": {"sc": -1.0},
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.jpg"}, "line 1: the text is missing, empty or neither a string nor a list"),
        ({"text": "x"}, 'line 1: the image is missing; add its name as "image"'),
        ({"image": "a.jpg", "text": []}, 'nor a list of strings; write it as "text"'),
        ({"image": "a.jpg", "text": "x", "labels": 3}, "the labels are 3, not an object"),
        ({"image": "a.jpg", "text": "x", "labels": {"sc": "1"}}, "the label sc is '1', not a num"),
        ({"image": "a.jpg", "text": "x", "labels": {"sc": True}}, "the label sc is True, not a nu"),
        (
            {"image": "a.jpg", "text": "x", "annotation": {}},
            r'the annotation {} is not an object with mi or sc; .* {"mi": 2, "sc": 1}',
        ),
        (
            {"image": "a.jpg", "text": "x", "annotation": {"mi": "2"}},
            r'the label mi is \'2\', not a number; .* {"mi": 2, "sc": 1}',
        ),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path, row)
    good = {"image": "b.jpg", "text": "a dog", "labels": {}}
    assert len(read_rows(tmp_path, row, good, on_error="skip").examples) == 1


def test_not_finite_labels_are_refused(tmp_path):
    write(tmp_path / "relations.jsonl", '{"image": "a", "text": "x", "labels": {"sc": NaN}}\n')
    with pytest.raises(InputError, match="the label sc is nan, not a number; write numbers, for"):
        read_captions(tmp_path)


def test_tables_of_captions_are_read_as_before(tmp_path):
    data = read_rows(tmp_path, {"image": "a.jpg", "text": "a dog"}, name="train.jsonl")
    assert (data.format, data.examples[0].labels) == ("jsonl", ())


def test_written_texts_are_read_as_they_were(shapes, tmp_path, capsys):
    commands.main(["data", str(shapes), "--convert", "relations", str(tmp_path / "out")])
    assert f"written: {tmp_path / 'out' / 'relations.jsonl'}\n" in capsys.readouterr().out
    expected, found = with_relations(read_captions(shapes)), read_captions(tmp_path / "out")
    assert [(e.id, e.captions, e.labels, e.split) for e in found.examples] == [
        (e.id, e.captions, e.labels, e.split) for e in expected.examples
    ]
    assert fingerprint(found) == fingerprint(expected)
    commands.main(["data", str(tmp_path / "out")])
    assert "val sc: -1: 24  0: 24  1: 24\n" in capsys.readouterr().out


def test_the_fingerprint_depends_on_labels(tmp_path):
    rows = [{"image": "a.jpg", "text": "x", "labels": {"sc": value}} for value in (0, 1)]
    first, second = (read_rows(tmp_path, row) for row in rows)
    assert fingerprint(first) != fingerprint(second)


def test_counts_and_means_of_labels(tmp_path):
    texts = [("news", 0.5), ("news", -1), ("wiki", 1), ("wiki", 1)]
    rows = [
        {"image": f"{i}.jpg", "text": "x", "labels": {"sc": v}, "source": s, "split": "train"}
        for i, (s, v) in enumerate(texts)
    ]
    rows.append({"image": "9.jpg", "text": "x", "split": "val"})
    assert describe_labels(read_rows(tmp_path, *rows).examples) == [
        "train sc: -1: 1  0.5: 1  1: 2; mean by source: news -0.25, wiki 1.00",
        "val texts without labels: 1",
    ]
