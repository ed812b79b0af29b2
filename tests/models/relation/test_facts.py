"""The facts of sentences: their cosines, and what is read of each word."""

import pytest
import torch
import torch.nn.functional as F

from captioner.models.relation.encoder import EmbeddedImages
from captioner.models.relation.facts import best_products, sentence_cosines
from tests.models.relation.test_model import SIZES, articles_of, build, random_texts

SIZE = SIZES["sentence_size"]


def embed(model, grid, *texts):
    """Return the images of texts, one for each, their sentences and the articles."""
    articles = articles_of(*texts)
    maps = torch.rand(len(texts), 5, grid, grid, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        images = model.embed_images(maps, are_features=True)
        return images, model.articles.read_sentences(articles.tokens), articles


def of_sentences(images, articles):
    owner = articles.text_of_sentence
    return EmbeddedImages(images.embeddings[owner], images.cells[owner])


@pytest.mark.parametrize("grid", [1, 2])
def test_cosines_compare_a_sentence_with_its_image_and_the_other_sentences(grid):
    texts = [[[4, 5], [6, 7, 8], [9]], [[5]], [[7], [8, 4]]]
    images, read, articles = embed(build(image_grid=grid), grid, *texts)
    found, row = sentence_cosines(of_sentences(images, articles), read, articles), 0
    for text, sentences in enumerate(texts):
        own = read.vectors[row : row + len(sentences)]
        fits = F.cosine_similarity(own, images.embeddings[text], dim=1)
        for place, vector in enumerate(own):
            rest = [i for i in range(len(own)) if i != place]
            with_rest = F.cosine_similarity(own[rest], vector, dim=1)
            expected = [
                fits[place],
                max(cell @ vector for cell in images.cells[text]) / SIZE,
                with_rest.mean() if rest else 0,
                with_rest.max() if rest else 0,
                (with_rest * fits[rest]).sum(),
            ]
            assert found[row + place].tolist() == pytest.approx(
                [float(e) for e in expected], abs=1e-5
            )
        row += len(sentences)


def test_a_word_is_multiplied_by_the_cell_that_fits_it_best():
    words = torch.tensor([[[1.0, 2.0], [-1.0, 0.0]]])
    cells = torch.tensor([[[1.0, 1.0], [3.0, -1.0], [-2.0, 0.0]]])
    assert best_products(words, cells).tolist() == [[[1.0, 2.0], [2.0, 0.0]]]
    assert best_products(words, cells[:, :1]).tolist() == [[[1.0, 2.0], [-1.0, 0.0]]]


def test_words_are_read_with_their_neighbours_and_their_image():
    """Sentence by sentence and word by word, without padding."""
    model, texts = build(image_grid=2), random_texts(3)
    images, read, articles = embed(model, 2, *texts)
    with torch.no_grad():
        found = torch.cat(model.facts.read_words(of_sentences(images, articles), read), -1)
        row, nothing = 0, torch.zeros(SIZES["word_size"])
        for text, sentences in enumerate(texts):
            for sentence in sentences:
                vectors = model.articles.words(torch.tensor(sentence)) * len(nothing) ** 0.5
                padded = [nothing, *vectors, nothing]
                units = []
                for i in range(len(sentence)):
                    word = read.words[row, i]
                    best = max(images.cells[text], key=lambda cell, word=word: float(cell @ word))
                    units.append(model.facts.word(torch.cat([*padded[i : i + 3], word * best])))
                units = torch.stack(units).relu()
                expected = torch.cat([units.mean(0), units.amax(0), units.amin(0)])
                assert torch.allclose(found[row], expected, atol=1e-5)
                row += 1
    assert row == len(found)


def test_facts_do_not_depend_on_the_rest_of_the_batch():
    model, texts = build(image_grid=2), random_texts(5)
    images, read, articles = embed(model, 2, *texts)
    with torch.no_grad():
        together = model.facts(images, read, articles)
        first = 0
        for text, sentences in enumerate(texts):
            own = articles_of(sentences)
            alone = model.facts(
                images.take(torch.tensor([text])), model.articles.read_sentences(own.tokens), own
            )
            assert torch.allclose(together[first : first + len(sentences)], alone, atol=1e-5)
            first += len(sentences)
    assert ((together > 0) & (together < 1)).all()
