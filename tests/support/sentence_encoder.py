"""A tiny random BERT encoder in the format of sentence-transformers."""

import json

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WIDTH, INNER, HEADS, LAYERS, POSITIONS = 8, 12, 2, 2, 11
PIECES = "[PAD] [UNK] [CLS] [SEP] a dog cat ##s run ##ning on the red ball".split()
CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "layer_norm_eps": 1e-3,  # large enough for a wrong one to show
}


def random_weights():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    weights = {
        "embeddings.word_embeddings.weight": normal(len(PIECES), WIDTH),
        "embeddings.position_embeddings.weight": normal(POSITIONS, WIDTH),
        "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    linears = {}
    for layer in (f"encoder.layer.{i}" for i in range(LAYERS)):
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            linears[f"{layer}.attention.{name}"] = (WIDTH, WIDTH)
        linears[f"{layer}.intermediate.dense"] = (INNER, WIDTH)
        linears[f"{layer}.output.dense"] = (WIDTH, INNER)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name, (outputs, inputs) in (linears | dict.fromkeys(norms, (WIDTH, 0))).items():
        weights[f"{name}.weight"] = normal(outputs, inputs) if inputs else 1 + normal(outputs) / 3
        weights[f"{name}.bias"] = normal(outputs)
    return weights


def tiny_tokenizer():
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=9)  # published files have padding enabled
    return tokenizer


def write_sentence_encoder(directory):
    """Write the files of the encoder into an existing directory; returns it."""
    (directory / "config.json").write_text(json.dumps(CONFIG))
    save_file(random_weights(), directory / "model.safetensors")
    tiny_tokenizer().save(str(directory / "tokenizer.json"))
    return directory
