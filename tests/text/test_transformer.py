"""The transformer encoder against a loop over sentences and heads, on a tiny random model."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import processors

from captioner.errors import InputError
from captioner.text.transformer import BATCH_SIZE, read_transformer
from tests.support.sentence_encoder import (
    CONFIG,
    HEADS,
    LAYERS,
    POSITIONS,
    WIDTH,
    random_weights,
    tiny_tokenizer,
    write_sentence_encoder,
)

WEIGHTS = "model.safetensors"
SENTENCES = ["A dog", "the cats running on the red ball", "", "a zebra dogs", "dog"]


@pytest.fixture
def directory(tmp_path):
    return write_sentence_encoder(tmp_path)


def naive_vector(weights, ids):
    """The vector of one sentence in float64 with a loop over positions and heads, no padding."""
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}

    def linear(row, name):
        return w[f"{name}.weight"] @ row + w[f"{name}.bias"]

    def norm(row, name):
        centred = row - row.mean()
        unit = centred / math.sqrt((centred**2).mean() + CONFIG["layer_norm_eps"])
        return unit * w[f"{name}.weight"] + w[f"{name}.bias"]

    def gelu(row):
        return np.array([x * (1 + math.erf(x / math.sqrt(2))) / 2 for x in row])

    rows = [
        norm(
            w["embeddings.word_embeddings.weight"][token]
            + w["embeddings.position_embeddings.weight"][position]
            + w["embeddings.token_type_embeddings.weight"][0],
            "embeddings.LayerNorm",
        )
        for position, token in enumerate(ids)
    ]
    for layer in (f"encoder.layer.{i}" for i in range(LAYERS)):
        queries, keys, values = (
            [linear(row, f"{layer}.attention.self.{name}") for row in rows]
            for name in ("query", "key", "value")
        )
        after = []
        for row, query in zip(rows, queries, strict=True):
            heads = []
            for head in np.split(np.arange(WIDTH), HEADS):
                energies = [query[head] @ key[head] / math.sqrt(len(head)) for key in keys]
                shares = np.exp(energies) / np.exp(energies).sum()
                heads.append(sum(s * v[head] for s, v in zip(shares, values, strict=True)))
            mixed = linear(np.concatenate(heads), f"{layer}.attention.output.dense")
            row = norm(row + mixed, f"{layer}.attention.output.LayerNorm")
            inner = gelu(linear(row, f"{layer}.intermediate.dense"))
            after.append(
                norm(row + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
            )
        rows = after
    mean = sum(rows) / len(rows)
    return mean / np.linalg.norm(mean)


def test_vectors_match_loops_over_positions_and_heads(directory):
    encoder = read_transformer(directory)
    found = encoder.encode(SENTENCES)
    tokenizer = tiny_tokenizer()
    tokenizer.no_padding()
    ids = [tokenizer.encode(sentence).ids for sentence in SENTENCES]
    assert [len(each) for each in ids] == [4, 11, 2, 6, 3]
    expected = [naive_vector(random_weights(), each) for each in ids]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found.dtype, encoder.dimensions) == (np.float32, WIDTH)


def test_order_and_batches_do_not_change_vectors(directory):
    encoder = read_transformer(directory)
    sentences = (SENTENCES * BATCH_SIZE)[: 3 * BATCH_SIZE + 1]
    alone = {sentence: encoder.encode([sentence])[0] for sentence in SENTENCES}
    expected = [alone[sentence] for sentence in sentences]
    np.testing.assert_allclose(encoder.encode(sentences), expected, atol=1e-5)
    assert encoder.encode([]).shape == (0, WIDTH)


def test_long_sentences_are_cut_to_the_positions(directory):
    encoder = read_transformer(directory)
    found = encoder.encode(["dog " * 9, "dog " * 300])
    np.testing.assert_array_equal(found[0], found[1])


def test_sentences_without_a_token_are_zero(directory):
    tokenizer = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save(str(directory / "tokenizer.json"))
    found = read_transformer(directory).encode(["", "dog"])
    assert np.linalg.norm(found, axis=1) == pytest.approx([0, 1])


def test_unknown_words_are_those_without_pieces(directory):
    encoder = read_transformer(directory)
    assert encoder.unknown_words("A zebra, two dogs and a ball") == ["zebra", "two", "and"]
    assert encoder.unknown_words("") == []


def test_weights_may_have_a_prefix_and_half_precision(directory):
    half = {name: tensor.half() for name, tensor in random_weights().items()}
    save_file({name: tensor.float() for name, tensor in half.items()}, directory / WEIGHTS)
    expected = read_transformer(directory).encode(SENTENCES)
    prefixed = {f"bert.{name}": tensor for name, tensor in half.items()}
    ids = torch.arange(POSITIONS)[None]  # a buffer that older checkpoints contain
    save_file(prefixed | {"bert.embeddings.position_ids": ids}, directory / WEIGHTS)
    np.testing.assert_array_equal(read_transformer(directory).encode(SENTENCES), expected)


@pytest.mark.parametrize("pooling", [{"pooling_mode": "mean"}, {"pooling_mode_mean_tokens": True}])
def test_mean_pooling_is_accepted(directory, pooling):
    (directory / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False} | pooling
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    assert read_transformer(directory).dimensions == WIDTH


def test_modules_that_would_be_left_out_are_refused(directory):
    """As in distiluse and LaBSE, whose vectors a dense layer transforms."""
    names = ["Transformer", "Pooling", "Normalize"]
    modules = [{"path": name, "type": f"sentence_transformers.models.{name}"} for name in names]
    (directory / "modules.json").write_text(json.dumps(modules))
    assert read_transformer(directory).dimensions == WIDTH
    modules[2]["type"] = "sentence_transformers.models.Dense"
    (directory / "modules.json").write_text(json.dumps(modules))
    message = (
        "is not supported: modules.json contains the module 'Dense'; choose a model that contains"
    )
    with pytest.raises(InputError, match=message):
        read_transformer(directory)
    (directory / "modules.json").write_text("[{}]")
    with pytest.raises(InputError, match=r"a module in modules\.json has no type"):
        read_transformer(directory)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "config.json",
            {"model_type": "mpnet"},
            "model_type is 'mpnet', not 'bert'; choose a BERT",
        ),
        ("config.json", {"hidden_act": "relu"}, "hidden_act is 'relu', not 'gelu'"),
        (
            "config.json",
            {"position_embedding_type": "relative_key"},
            "position_embedding_type is 'relative_key', not 'absolute'",
        ),
        ("1_Pooling/config.json", {"pooling_mode": "cls"}, "pooling_mode is 'cls', not 'mean'"),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
            "pooling_mode is 'pooling_mode_cls_token', not 'mean'",
        ),
    ],
)
def test_other_models_are_refused(directory, file, change, message):
    (directory / file).parent.mkdir(exist_ok=True)
    (directory / file).write_text(json.dumps(CONFIG | change if file[0] == "c" else change))
    with pytest.raises(InputError, match=f"is not supported: {message}"):
        read_transformer(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_and_damaged_files_are_refused(directory, name):
    (directory / name).write_bytes(b"[]")
    with pytest.raises(InputError, match="is not a sentence encoder: "):
        read_transformer(directory)
    (directory / name).unlink()
    with pytest.raises(InputError, match=f"is not a sentence encoder: {name} is missing; choose"):
        read_transformer(directory)


def without(name):
    return lambda weights: weights.pop(name)


def cut(name, rows):
    return lambda weights: weights.update({name: weights[name][:rows].clone()})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            without("encoder.layer.1.output.dense.bias"),
            "layer.1.output.dense.bias' is missing; choose",
        ),
        (cut("encoder.layer.0.output.dense.weight", 3), "is not a sentence encoder: ."),
        (
            cut("embeddings.word_embeddings.weight", 13),
            r"the tokenizer contains the token id 13, but there are only 13 embeddings; choose",
        ),
        (
            lambda weights: weights["embeddings.LayerNorm.bias"].fill_(torch.nan),
            "the weights contain NaN or infinite values; choose",
        ),
    ],
)
def test_damaged_weights_are_refused_when_read(directory, damage, message):
    weights = random_weights()
    damage(weights)
    save_file(weights, directory / WEIGHTS)
    with pytest.raises(InputError, match=message):
        read_transformer(directory)


def test_reading_needs_tokenizers(directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    message = r"^reading a sentence encoder needs tokenizers; run pip install 'captioner\[text\]'$"
    with pytest.raises(InputError, match=message):
        read_transformer(directory)
