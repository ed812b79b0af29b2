"""States of sentences against torch's own LSTM and against one word after the other."""

import numpy as np
import pytest
import torch

from captioner.data.batches import MAX_WORDS
from captioner.models.captioning import sentence_state as module
from captioner.models.captioning.sentence_state import sentence_state
from captioner.text.tokenizer import split_words

SENTENCES = ["A dog runs.", "", "the red cat sits on the green grass", "a zebra runs", "dog"]


def alone(model, vocabulary, image, sentence):
    """The state after one sentence, read word by word by the whole model."""
    memory, state = model.start(image, 0)
    for word in ["<start>", *split_words(sentence)]:
        token = 1 if word == "<start>" else vocabulary.encode([word])[0]
        _, state, _ = model.step(torch.tensor([token]), state, memory)
    return torch.nn.functional.normalize(state["hidden"][0], dim=0)


@pytest.mark.parametrize("batch_size", [2, 256])
def test_states_are_those_after_the_last_word(
    attention, batch_size, tiny_model, vocabulary, monkeypatch
):
    monkeypatch.setattr(module, "BATCH_SIZE", batch_size)
    model = tiny_model(attention).eval()
    image = torch.zeros(1, 10, 4, 3)
    if not attention:
        model.standardize.measure([torch.randn(5, 10, 4, 3) * 3 + 2])
        image = model.standardize.mean[None, :, None, None].expand(1, 10, 4, 3)
    encoder = sentence_state(model, vocabulary)
    found = encoder.encode(SENTENCES)
    with torch.inference_mode():
        expected = [alone(model, vocabulary, image, sentence) for sentence in SENTENCES]
    expected[1] = torch.zeros(11)
    np.testing.assert_allclose(found, torch.stack(expected), atol=2e-6)
    assert (found.dtype, encoder.dimensions) == (np.float32, 11)
    assert encoder.encode([]).shape == (0, 11)


def test_show_and_tell_reads_the_image_and_then_the_words(tiny_model, vocabulary):
    model = tiny_model(False).eval()
    with torch.no_grad():
        image = model.image_embedding.bias
        initial = tuple(
            torch.tanh(x.bias)[None] for x in (model.initial_hidden, model.initial_cell)
        )
        tokens = [1, *vocabulary.encode(["a", "dog"])]
        words = model.words.weight[tokens] * 3  # the root of the embedding size 9
        _, (hidden, _) = model.lstm(torch.cat([image[None], words]), initial)
    found = sentence_state(model, vocabulary).encode(["a dog"])
    expected = torch.nn.functional.normalize(hidden, dim=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_unknown_words_are_reported_and_read_as_one_token(attention, tiny_model, vocabulary):
    encoder = sentence_state(tiny_model(attention), vocabulary)
    assert encoder.unknown_words("A zebra and a dog") == ["zebra", "and"]
    zebra, horse, shorter, none = encoder.encode(["a zebra", "a horse", "a", "zebra horse"])
    np.testing.assert_allclose(zebra, horse, atol=1e-6)
    assert np.abs(zebra - shorter).max() > 0.01
    assert not none.any()


def test_dropout_is_off_and_long_sentences_are_cut(tiny_model, vocabulary):
    encoder = sentence_state(tiny_model(True, dropout=0.5).train(), vocabulary)
    found = encoder.encode(["dog " * MAX_WORDS, "dog " * (MAX_WORDS + 9)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_array_equal(encoder.encode(SENTENCES), encoder.encode(SENTENCES))


def test_the_image_encoder_is_left_out(attention, tiny_model, vocabulary):
    encoder = sentence_state(tiny_model(attention), vocabulary)
    assert not [name for name in encoder.model.state_dict() if name.startswith("encoder")]
