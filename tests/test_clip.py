"""CLIP and SigLIP models of open_clip with random weights: the same rows as open_clip itself."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner import Index, InputError, Linker
from captioner import __main__ as commands
from captioner.data.images import Transform, load_image
from captioner.models.linking.clip import ClipEmbedding, clip_transform
from tests.support import tiny

open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.filterwarnings("ignore")  # open_clip's own

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
CONFIGS = {
    "tiny-clip": {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "tiny-pooled": {  # the pooling of SigLIP
        "embed_dim": 192,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 224,
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {**TEXT, "width": 64, "no_causal_mask": True},
    },
    "tiny-convolutional": {
        "embed_dim": 8,
        "custom_text": True,
        "vision_cfg": {"image_size": 64, "timm_model_name": "convnext_atto", "timm_proj": "linear"},
        "text_cfg": TEXT,
    },
}
GRIDS = {"tiny-clip": 4, "tiny-pooled": 14, "tiny-convolutional": 2}
TEXTS = ["a red square", "two blue circles on grass", "snow"]


@pytest.fixture(scope="module", params=CONFIGS)
def name(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / f"{request.param}.json"
    path.write_text(json.dumps(CONFIGS[request.param]))
    open_clip.add_model_config(path)
    return request.param


@pytest.fixture(scope="module")
def weights(name, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    torch.save(open_clip.create_model(name).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def linker(name, weights):
    return Linker.from_pretrained(f"open_clip:{name}", "cpu", weights=weights)


@pytest.fixture
def images(tmp_path_factory):
    return sorted((tiny.data(tmp_path_factory) / "val").glob("*.png"))


def test_rows_are_those_of_open_clip(linker, name, weights, images):
    model = open_clip.create_model(name, pretrained=str(weights)).eval()
    pixels = linker.transform.batch([load_image(path) for path in images])
    with torch.no_grad():
        rows = model.encode_image(pixels, normalize=True).numpy()
        texts = model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(linker.encode_images(images), rows, atol=1e-5)
    np.testing.assert_allclose(linker.encode_texts(TEXTS), texts, atol=1e-5)
    np.testing.assert_allclose(linker.similarity(images, TEXTS), rows @ texts.T, atol=1e-5)
    assert linker.transform == Transform(
        CONFIGS[name]["vision_cfg"]["image_size"],
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
    )


def test_patches_are_in_the_space_of_the_texts(linker, name, images):
    """A map whose patches are all equal gives an image embedding equal to each patch's."""
    maps = linker.patch_similarities(images[:2], TEXTS)
    assert maps.shape == (2, 3, GRIDS[name], GRIDS[name])
    assert (np.abs(maps) <= 1 + 1e-6).all()
    model = linker.model
    features = model.encoder(torch.zeros(1, 3, linker.transform.size, linker.transform.size))
    assert features.shape[1] == 2 * model.dimensions
    whole = features[0, : model.dimensions]
    assert torch.equal(whole, whole[:, :1, :1].expand_as(whole))


def test_a_patch_is_pooled_as_if_it_were_alone(linker, name):
    model = linker.model
    if name != "tiny-pooled":
        pytest.skip("pooling by attention only")
    visual = model.encoder.layers[0].visual
    pixels = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        patches = model.encoder(pixels)[0, model.dimensions :]
        tokens = visual.trunk.forward_features(pixels)[:, visual.trunk.num_prefix_tokens :]
        # The pooling drops the first token, so the patch comes twice.
        twice = tokens[:, 14 * 3 + 5][:, None].expand(-1, 2, -1)
        alone = visual.head(visual.trunk.forward_head(twice))
    torch.testing.assert_close(patches[:, 3, 5], alone[0], atol=1e-5, rtol=1e-4)


def test_a_changed_patch_changes_its_own_similarity_most():
    torch.manual_seed(0)
    model = ClipEmbedding("ViT-B-32", open_clip.create_model("tiny-clip"))
    with torch.no_grad():
        plain = model.encoder(torch.zeros(1, 3, 32, 32))[0, 8:]
        for row, column in ((0, 0), (1, 3), (3, 2)):
            image = torch.zeros(1, 3, 32, 32)
            image[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 3
            changed = (model.encoder(image)[0, 8:] - plain).pow(2).sum(0)
            assert divmod(int(changed.argmax()), 4) == (row, column)


@pytest.mark.slow
def test_commands_with_a_saved_model(
    linker, images, tmp_path, monkeypatch, capsys, tmp_path_factory
):
    monkeypatch.chdir(tmp_path)
    saved = linker.save_pretrained("clip")
    again = Linker.from_pretrained(saved, "cpu")
    assert np.array_equal(again.encode_images(images[:2]), linker.encode_images(images[:2]))
    assert np.array_equal(again.encode_texts(TEXTS), linker.encode_texts(TEXTS))
    commands.main(["index", *map(str, images), "--checkpoint", "clip", "--output", "i.index"])
    commands.main(["search", "i.index", "red + snow", "--top", "3", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["hits"]
    vector = linker.encode_query("red + snow")
    scores = linker.encode_images(images) @ vector
    assert [hit["score"] for hit in found] == pytest.approx(sorted(scores)[:-4:-1], abs=2e-3)
    assert Index.open("i.index").rows.shape == (7, linker.model.dimensions)
    words = ["localize", str(images[0]), "red", "snow", "--checkpoint", "clip", "--output", "maps"]
    commands.main([*words, "--npy"])
    assert "patch similarities: maps/100.png" in capsys.readouterr().out
    maps = np.load("maps/100.npy")
    np.testing.assert_allclose(maps, linker.patch_similarities(images[0], ["red", "snow"])[0], 1e-4)
    with Image.open("maps/100.png") as figure:
        assert figure.width > 300
    with pytest.raises(InputError, match="--masks needs a model trained with --system spatial"):
        commands.main([*words, "--masks"])
    data = str(tiny.data(tmp_path_factory))
    commands.main(["evaluate", "--checkpoint", "clip", "--data", data, "--split", "val"])
    printed = capsys.readouterr().out
    assert "R@1" in printed
    assert Path("clip/evaluation-val/scores.json").exists()
    commands.main(["info", "clip"])
    printed = capsys.readouterr().out
    for part in (
        "model     clip: open_clip tiny-",
        "training  not by captioner",
        "data      unknown",
    ):
        assert part in printed
    with pytest.raises(InputError, match="already exists"):
        linker.save_pretrained("clip")


def test_published_models_have_their_own_transform():
    assert clip_transform("ViT-B-32").mean == open_clip.OPENAI_DATASET_MEAN
    assert clip_transform("ViT-B-16-SigLIP-256") == Transform(256, (0.5,) * 3, (0.5,) * 3)


def test_mistakes(linker, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"unknown model open_clip:ViT-B-33; did you mean 'ViT-B-"):
        Linker.from_pretrained("open_clip:ViT-B-33", weights=tmp_path / "a.pt")
    with pytest.raises(InputError, match="open_clip:ViT-B-32 needs weights; pass a file"):
        Linker.from_pretrained("open_clip:ViT-B-32")
    with pytest.raises(InputError, match=r"weights .*gone\.pt do not exist"):
        Linker.from_pretrained("open_clip:tiny-clip", weights=tmp_path / "gone.pt")
    (tmp_path / "bad.pt").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"cannot be built with the weights .*bad\.pt"):
        Linker.from_pretrained("open_clip:tiny-clip", weights=tmp_path / "bad.pt")
    with pytest.raises(InputError, match="weights apply to open_clip:MODEL only"):
        Linker.from_pretrained("checkpoints/run", weights="a.pt")
    with pytest.raises(InputError, match="has no label maps"):
        linker.label_maps([], "red")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(InputError, match=r"needs open_clip; run pip install 'captioner\[clip\]'"):
        Linker.from_pretrained("open_clip:ViT-B-32", weights=tmp_path / "a.pt")


@pytest.mark.slow
def test_clip_score_of_an_evaluation(linker, tmp_path, monkeypatch, capsys, tmp_path_factory):
    monkeypatch.chdir(tmp_path)
    linker.save_pretrained("clip")
    run = tiny.run(tmp_path_factory, attention=True)
    words = ["evaluate", "--checkpoint", str(run), "--output", "out", "--metrics", "bleu"]
    commands.main([*words, "--clip", "clip"])
    printed = capsys.readouterr().out
    scores = json.loads(Path("out/scores.json").read_text())
    assert f"CLIPScore {scores['CLIPScore']:.2f}  RefCLIPScore {scores['RefCLIPScore']:.2f}" in (
        printed
    )
    captions = json.loads(Path("out/captions.json").read_text())
    images = tiny.data(tmp_path_factory) / "val"
    expected = [
        250
        * max(
            0,
            linker.similarity(images / f"{c['image_id']}.png", [f"A photo depicts {c['caption']}"])[
                0, 0
            ],
        )
        for c in captions
    ]
    assert scores["CLIPScore"] == pytest.approx(np.mean(expected), abs=1e-3)
    with pytest.raises(InputError, match="was trained for 'captioning', not linking"):
        commands.main([*words, "--clip", str(run)])
