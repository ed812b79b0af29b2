"""The words of sentences, compared with the Java tokeniser that they follow."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.text import tokenizer
from captioner.text.tokenizer import join_words, plain_words, split_words

# Sentences and the words that the Java program finds in them.
SAME_AS_JAVA = {
    "A dog runs .": "a dog runs",
    "A black-and-white dog's T-shirt, and two dogs' balls!": (
        "a black-and-white dog 's t-shirt and two dogs balls"
    ),
    "I'm sure they'll say we've; he'd, you're": "i 'm sure they 'll say we 've he 'd you 're",
    "don't CAN'T won't isn't, shouldn't've": "do n't ca n't wo n't is n't should n't 've",
    "\"don't\" 'don't' (don't) walk": "do n't do n't -lrb- do n't -rrb- walk",
    "do n't it 's 's": "do n't it 's 's",
    "cannot gonna gotta wanna lemme gimme": "can not gon na got ta wan na lem me gim me",
    "slip 'n' slide rock'n'roll rock 'n roll": "slip 'n' slide rock 'n' roll rock 'n roll",
    "five o'clock, o'neil's ma'am s'mores c'mon": "five o'clock o'neil 's ma'am s'mores c'mon",
    "get 'em 'til the '90s 1950's goin' home": "get 'em 'til the '90s 1950 's goin home",
    "in the U.S. and D.C. at 5 p.m.": "in the u.s. and d.c. at 5 p.m.",
    "Mr. Smith, Jr. of St. Louis etc.": "mr. smith jr. of st. louis etc.",
    "no. 5 says no. Sign a. End.": "no. 5 says no sign a. end",
    "Miami U. pushes": "miami u. pushes",
    "avrovulcan.com on the grass.The end": "avrovulcan.com on the grass.the end",
    "red,t-shirt a,b,c-d-e u.s.-made dog.-b x,y-": ("red,t-shirt a,b,c-d-e u.s.-made dog.-b x y"),
    "star\xadshaped": "starshaped",
    "and/or 1/2 w/ b/w red/ blue": "and/or 1/2 w / b/w red / blue",
    "1,000 10,000.50 7:15pm 2.5-inch 3.5mm 4x4 3rd mp3": (
        "1,000 10,000.50 7:15 pm 2.5-inch 3.5 mm 4x4 3rd mp3"
    ),
    "5'10\" # 28 #7 #tag $5 50% b&b RIF=ding a*b": (
        "5 10 # 28 # 7 #tag $ 5 50 % b & b rif = ding a * b"
    ),
    "[a] {b} (c) -lrb- x": "-lsb- a -rsb- -lcb- b -rcb- -lrb- c -rrb- -lrb- x",
    "wow! wow!! what?! really?": "wow wow !! what ?! really",
    "a - b -- c --- pre- -d e--f ... .. . hmm...": "a b c pre d e f hmm",
    "``quoted'' `x` \"y\" a;b a:b a,b": "quoted x y a b a b a b",
    "“Don’t” – it’s ‘so’…": "do n't it 's so",
    "Café Überblick 日本語 привет हिन्दी ภาษาไทย": "café überblick 日本語 привет हिन्दी ภาษาไทย",
    "a😀b ❤": "a b ❤",
    "9½ km², ½ cup, 3¼-inch ⅔": "9 1/2 km ² 1/2 cup 3 1/4 inch 2/3",
    "3⅛ m³ H₂O CO₂ 10² 10⁻³ x²³y ²": "3 ⅛ m ³ h ₂ o co ₂ 10 ² 10 ⁻³ x ²³ y ²",
    "img_001.jpg IMG-2.PNG a_b.c img001.jpg x_y": "img_001 jpg img-2 png a_b c img001.jpg x_y",
    "a t-shirt.The man, wi-fi.it": "a t-shirt the man wi-fi it",
    "!": "",
    "": "",
}
# Intended differences: case never counts, typographic apostrophes do, and signs stay signs.
OUR_OWN = {
    "AT&T at&t": "at & t at & t",
    "rock ’n’ roll, ’90s": "rock 'n' roll '90s",
    "e\u0301te\u0301": "été",
    "<b> <unk> <end>": "< b > <unk> < end >",
    ":) £5": "-rrb- £ 5",
    "a,b-c_d": "a b-c_d",
}


@pytest.mark.parametrize(("sentence", "words"), [*SAME_AS_JAVA.items(), *OUR_OWN.items()])
def test_sentences_split_into_their_words(sentence: str, words: str) -> None:
    assert split_words(sentence) == words.split()


@pytest.mark.java
@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
@pytest.mark.skipif(find_spec("pycocoevalcap") is None, reason="pycocoevalcap is not installed")
def test_the_java_tokeniser_finds_the_same_words() -> None:
    from pycocoevalcap.tokenizer import ptbtokenizer

    sentences = [sentence for sentence in SAME_AS_JAVA if sentence]
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = "edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase -encoding utf-8"
    run = subprocess.run(
        ["java", "-cp", str(jar), *command.split()],
        input="\n".join(sentences) + "\n",
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.split("\n")[:-1]
    assert len(lines) == len(sentences)
    for sentence, line in zip(sentences, lines, strict=True):
        words = [word for word in line.split(" ") if word not in ptbtokenizer.PUNCTUATIONS]
        assert split_words(sentence) == [word for word in words if word], sentence


@pytest.mark.parametrize(
    "space", ["\n", "\r", "\r\n", *"\t\v\f\x1c\x85\u2028\u2029\0\x7f\xa0\ufeff\ud800"]
)
def test_line_breaks_and_control_characters_are_spaces(space: str) -> None:
    assert split_words(f"{space}a dog{space}runs{space}") == ["a", "dog", "runs"]


@pytest.mark.parametrize(
    ("sentence", "joined"),
    [
        ("They don't say it's the dogs' ball.", "they don't say it's the dogs ball"),
        ("he can not, shouldn't've", "he cannot shouldn't've"),
        ("I'm gonna", "i'm gonna"),
        ("the sign ( red ) is [ no. 5 ]", "the sign (red) is [ no. 5]"),
        ("a <unk> 's ball", "a <unk>'s ball"),
    ],
)
def test_joined_words_read_well(sentence: str, joined: str) -> None:
    assert join_words(split_words(sentence)) == joined


def test_a_first_word_has_nothing_to_join() -> None:
    assert join_words([]) == ""
    assert join_words(["'s", "dog"]) == "'s dog"
    assert join_words([")"]) == ")"


# Pieces that interact when they are joined; arbitrary text is drawn as well.
PIECES = (
    "n't ' n t , a,b- 's 'd 're can not gon na gotta no. 5 1, 3.5 . a a. u.s st. jr - ( ) [ -lrb-"
    " lrb ! ? # @ 'n' 'n '90s o' c' é \u0301 हि _ & … ’ 😀 'em me / I İ \u200b ß Σ ½ ٣ <unk> <"
    " ² ⅛ _ x_1 .jpg -"
).split(" ")
TEXTS = st.text(max_size=30) | st.lists(st.sampled_from([*PIECES, " "]), max_size=9).map("".join)


@settings(deadline=None, max_examples=200, database=None)
@given(TEXTS)
def test_joined_words_split_into_the_same_words(sentence: str) -> None:
    words = split_words(sentence)
    assert split_words(join_words(words)) == words
    assert split_words(" ".join(words)) == words
    assert all(word.split() == [word] and word == word.lower() for word in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("My #dog at the #BeachLife!", ["my", "dog", "at", "the", "beachlife"]),
        ("#dog#cat", ["dog", "cat"]),
        ("we are # 1, #2 and c#", ["we", "are", "#", "1", "#", "2", "and", "c", "#"]),
        ("#été", ["été"]),
    ],
)
def test_hashtags_are_plain_words_for_text_vectors(text, words):
    assert plain_words(text) == words


SIMPLE = (*"a Dog no mr etc u cannot gonna n 7 , . ' -".split(), " ", " ")


@settings(deadline=None, max_examples=500, database=None)
@given(TEXTS | st.lists(st.sampled_from(SIMPLE), max_size=12).map("".join))
def test_simple_sentences_are_split_like_all_others(sentence):
    assert split_words(sentence) == tokenizer._split_any(sentence)


def test_most_captions_are_simple_sentences():
    for sentence in ("A dog runs .", "Two dogs, one brown, play in the snow.", "the u s"):
        assert tokenizer._split_simple(sentence) == split_words(sentence)
    for sentence in ("he has a mr.", "made in the u.", "it cannot", "it's", "3 dogs", "a t-shirt"):
        assert tokenizer._split_simple(sentence) is None
