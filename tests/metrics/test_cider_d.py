"""CIDEr-D of tokens against pycocoevalcap's on the same captions as words."""

import random

import pytest
import torch

from captioner.errors import InputError
from captioner.metrics.cider_d import CiderD
from captioner.text.collate import pad_captions

END, UNKNOWN = 2, 3
WORDS = range(4, 10)


def draw(rng, longest):
    return [rng.choice(WORDS) for _ in range(rng.randint(1, longest))]


@pytest.fixture(params=range(5))
def corpus(request):
    """Four captions each, some without an end token, and the references of 1 to 40 images."""
    rng = random.Random(request.param)
    images = [1, 2, 12, 40, 40][request.param]
    references = [[draw(rng, 12) for _ in range(rng.randint(1, 4))] for _ in range(images)]
    captions = [
        [
            [*(draw(rng, 9) if rng.random() < 0.8 else rng.choice(several)[:9]), END],
            [END],
            draw(rng, 9),
            [*rng.choice(several)[: rng.randint(1, 9)], END],
        ]
        for several in references
    ]
    return captions, references


def reward(captions, references):
    whole = [[[1, *words, END] for words in several] for several in references]
    cider = CiderD.of(whole, len(WORDS) + 4)
    return cider.score(pad_captions(captions), pad_captions(whole)[..., 1:])


def by_pycocoevalcap(captions, references):
    """Scores of one caption per image, with the document frequencies of the references."""
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer()
    for tokens, several in zip(captions, references, strict=True):
        texts = [" ".join(f"w{token}" for token in [*words, END]) for words in several]
        scorer += (" ".join(f"w{token}" for token in tokens), texts)
    return scorer.compute_score()[1]


def test_same_as_pycocoevalcap(corpus):
    captions, references = corpus
    ours = reward(captions, references)
    assert ours.shape == (len(references), 4)
    for number in range(4):
        theirs = by_pycocoevalcap([several[number] for several in captions], references)
        assert ours[:, number].tolist() == pytest.approx(theirs.tolist(), abs=1e-4)
    if len(references) > 1:
        assert ours.max() > 1
        assert len(ours.unique()) > len(references)


def test_batching_does_not_change_the_scores(corpus):
    captions, references = corpus
    whole = [[[1, *words, END] for words in several] for several in references]
    cider = CiderD.of(whole, len(WORDS) + 4)
    together = cider.score(pad_captions(captions), pad_captions(whole)[..., 1:])
    for row, ours, several in zip(together, captions, whole, strict=True):
        alone = cider.score(pad_captions([ours]), pad_captions([several])[..., 1:])
        torch.testing.assert_close(alone[0], row)


REFERENCES = [
    [[4, 5, 6, 7, 8], [4, 5, 6, 7]],
    [[9, 5, 6], [9, 9, 9]],
    [[8, 8, 4], [6, 4]],
]


def test_the_end_token_counts_as_a_word():
    complete, cut, empty = ([[words]] * 3 for words in ([4, 5, 6, 7, 2], [4, 5, 6, 7], [2]))
    scores = [reward(captions, REFERENCES)[0].item() for captions in (complete, cut, empty)]
    assert scores[0] > scores[1] + 0.3 > scores[2] + 0.3
    exact = [[[*several[0], END]] for several in REFERENCES]
    assert reward(exact, [several[:1] for several in REFERENCES]).tolist() == [[10.0]] * 3


def test_an_unknown_word_matches_nothing():
    references = [[[4, UNKNOWN, 5]], [[6, 7]], [[8, 8]]]
    scores = [
        reward([[[4, word, 5, END]], [[END]], [[END]]], references)[0].item()
        for word in (UNKNOWN, 9)
    ]
    assert scores[0] == scores[1] < 10


def test_a_vocabulary_too_large_for_int64_is_refused():
    captions = [[[1, 55_107, 2]], [[1, 4, 2]]]
    assert len(CiderD.of(captions, 55_108).ngrams) == 5
    message = r"^--self-critical supports .* up to 55,108 tokens, got 55109; raise --min-count$"
    with pytest.raises(InputError, match=message):
        CiderD.of(captions, 55_109)
