"""The autoencoder and the classifier: padding, what they can learn, their losses and options."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from captioner.errors import InputError
from captioner.models.relation.articles import Articles, pad_tokens
from captioner.models.relation.encoder import (
    JoinedArticles,
    Matches,
    best_cells,
    compare_sentences,
    unit_scale,
)
from captioner.models.relation.model import (
    MISSING,
    RelationBatch,
    RelationModel,
    ordinal_loss,
)
from captioner.models.relation.options import Head, RelationOptions

WORDS, RATE = 12, 5e-3
SIZES = {
    **{"word_size": 8, "sentence_size": 12, "article_size": 20, "head_size": 6},
    **{"support_groups": 3, "thumbnail_size": 8, "dropout": 0.0, "image_dropout": 0.0},
}


def build(seed=0, channels=5, **options):
    torch.manual_seed(seed)
    model = RelationModel(channels, WORDS, RelationOptions(**SIZES | options)).eval()
    for norm in (model.articles.image_norm, model.articles.matching_norm):  # as after training
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.05, 0.1)
    return model


def articles_of(*texts):
    sentences = [sentence for text in texts for sentence in text]
    return Articles(pad_tokens(sentences), torch.tensor([len(text) for text in texts]))


def random_texts(count, seed=0, longest=6):
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    return [
        [[draw(4, WORDS) for _ in range(draw(1, longest))] for _ in range(draw(1, 4))]
        for _ in range(count)
    ]


def pooled(count, channels=5, seed=0):
    return torch.rand(count, 2, channels, generator=torch.Generator().manual_seed(seed))


def embed(model, features, *texts):
    with torch.no_grad():
        images = model.embed_images(features, are_features=True)
        return model.articles(images, articles_of(*texts)).embeddings


# ---- the article embedding ----------------------------------------------------------------------


def test_an_embedding_does_not_depend_on_the_rest_of_the_batch():
    model, texts, features = build(), random_texts(6), pooled(6)
    together = embed(model, features, *texts)
    for row, text in enumerate(texts):
        alone = embed(model, features[row : row + 1], text)
        assert torch.allclose(together[row], alone[0], atol=1e-6)


def test_an_embedding_is_that_of_the_equations():
    """One text of two sentences, step by step, without packing, padding or masks."""
    model, features = build(), pooled(1)
    text = [[4, 5, 6], [7, 8]]
    encoder, size = model.articles, SIZES["sentence_size"]
    roots = F.normalize(features[:, 0].sqrt(), dim=1)
    image = unit_scale(encoder.image_norm(encoder.image(roots)))
    states, words = [], []
    for sentence in text:
        vectors = encoder.words(torch.tensor([sentence]))
        outputs, _ = encoder.sentence(vectors)
        states.append(outputs[:, -1])
        joined = torch.cat([vectors, outputs], -1)[0]
        words.append(encoder.matching_norm(encoder.matching(joined)))
    sums = [unit_scale(each.sum(0, keepdim=True)) for each in words]
    rows = [image]
    for own, (state, vectors) in enumerate(zip(states, words, strict=True)):
        groups = (vectors * image).view(len(vectors), 3, size // 3).sum(-1) / (size // 3) ** 0.5
        matched = torch.cat(
            [
                sums[own] * image,
                sums[own] * unit_scale(words[1 - own].sum(0, keepdim=True)),
                (sums[own] * sums[1 - own]).sum(-1, keepdim=True) / size**0.5,
                (sums[own] * sums[1 - own]).sum(-1, keepdim=True) / size**0.5,
                (sums[own] * sums[1 - own]).sum(-1, keepdim=True) / size**0.5,
                (sums[1 - own] * image).sum(-1, keepdim=True) / size**0.5,
                (sums[own] * image).sum(-1, keepdim=True) / size**0.5,
                (sums[own] * image).view(1, 3, size // 3).sum(-1) / (size // 3) ** 0.5,
                groups.mean(0, keepdim=True),
                groups.amin(0, keepdim=True),
                groups.amax(0, keepdim=True),
            ],
            1,
        )
        rows.append(state + encoder.matches(matched))
    outputs, _ = encoder.text(torch.stack(rows, 1))
    expected = encoder.article(torch.cat([outputs[:, -1], image], 1)).relu()
    assert torch.allclose(embed(model, features, text), expected, atol=1e-6)


def test_cells_can_pass_a_hidden_layer():
    model = build(image_hidden=7, image_grid=2, image_scaling="none")
    encoder, maps = model.articles, torch.rand(3, 5, 2, 2)
    found = model.embed_images(maps, are_features=True)
    for image, cells, embedding in zip(maps, found.cells, found.embeddings, strict=True):
        hidden = encoder.image_hidden(image.flatten(1).T).clamp_min(0)
        embedded = encoder.image_norm(encoder.image(hidden))
        assert torch.allclose(cells, embedded, atol=1e-6)
        assert torch.allclose(embedding, unit_scale(embedded.mean(0)), atol=1e-6)
    assert not hasattr(build().articles, "image_hidden")


def test_words_take_the_best_cell_of_maps():
    model = build(image_grid=2)
    maps = torch.rand(1, 5, 2, 2)
    images = model.embed_images(maps, are_features=True)
    read = model.articles.read_sentences(torch.tensor([[4, 5]]))
    mean, low, high = model.articles.supports(read, images.cells)
    by_word = torch.stack(
        [(read.words[0, t] * images.cells[0]).view(4, 3, 4).sum(-1).amax(0) / 2 for t in range(2)]
    )
    assert torch.allclose(mean[0], by_word.mean(0), atol=1e-6)
    assert torch.allclose(low[0], by_word.amin(0), atol=1e-6)
    assert torch.allclose(high[0], by_word.amax(0), atol=1e-6)


def test_a_whole_sentence_takes_one_cell_for_all_that_it_says():
    """The first cell has one half of what is asked, the second the other half, the third both."""
    words = torch.tensor([[[1.0, 0, 0, 1]]])
    halves, both = [[2.0, 0, 0, 0], [0, 0, 0, 2]], [[1.5, 0, 0, 1.5]]
    apart = best_cells(words, torch.tensor([halves]), 1)
    assert apart.item() == pytest.approx(2 / 2)  # divided by the root of 4 entries
    together = best_cells(words, torch.tensor([halves + both]), 1)
    assert together.item() == pytest.approx(3 / 2)
    by_group = best_cells(words, torch.tensor([halves + both]), 2)
    assert by_group[0, 0].tolist() == pytest.approx([2 / 2**0.5, 2 / 2**0.5])


def test_sentences_are_compared_with_the_others_of_their_text():
    generator = torch.Generator().manual_seed(0)
    vectors = unit_scale(torch.randn(6, 16, generator=generator))
    matches = torch.rand(6, generator=generator)
    articles = articles_of([[4], [5], [6], [7]], [[8]], [[9]])
    found = compare_sentences(vectors, matches, articles)
    assert found[4:].abs().max() == 0
    for row in range(4):
        others = [other for other in range(4) if other != row]
        cosines = vectors[others] @ vectors[row] / 16
        weights = (8 * matches[others]).softmax(0)
        expected = [cosines.max(), (weights * cosines).sum(), (weights * matches[others]).sum()]
        assert torch.allclose(found[row], torch.stack(expected) * 4, atol=1e-5)


def test_a_sentence_is_read_once_however_often_it_occurs():
    model = build()
    read_rows = []
    hook = model.articles.words.register_forward_hook(
        lambda _, inputs, __: read_rows.append(len(inputs[0]))
    )
    read = model.articles.read_sentences(torch.tensor([[5, 6, 0], [4, 5, 6], [5, 6, 0], [7, 0, 0]]))
    hook.remove()
    assert read_rows == [3]
    alone = [model.articles.read_sentences(torch.tensor([s])) for s in ([5, 6], [4, 5, 6], [7])]
    for row, number in enumerate((0, 1, 0, 2)):
        assert torch.allclose(read.vectors[row], alone[number].vectors[0], atol=1e-6)
        assert torch.allclose(read.states[row], alone[number].states[0], atol=1e-6)
        assert read.lengths[row] == alone[number].lengths[0]


def test_without_support_groups_the_network_is_that_of_the_paper():
    model, features, text = build(support_groups=0), pooled(1), [[4, 5, 6], [7, 8]]
    encoder = model.articles
    roots = F.normalize(features[:, 0].sqrt(), dim=1)
    image = unit_scale(encoder.image_norm(encoder.image(roots)))
    states = [encoder.sentence(encoder.words(torch.tensor([s])))[0][:, -1] for s in text]
    outputs, _ = encoder.text(torch.stack([image, *states], 1))
    expected = encoder.article(torch.cat([outputs[:, -1], image], 1)).relu()
    assert torch.allclose(embed(model, features, text), expected, atol=1e-6)
    with torch.no_grad():
        articles = articles_of(text)
        joined = encoder(model.embed_images(features, are_features=True), articles)
        logits = model.classify(joined, articles)
    assert joined.matches.sentences.shape == (2, 0)
    for head, found in zip(model.heads, logits, strict=True):
        assert torch.allclose(found, head(model.hidden(expected).relu()), atol=1e-6)


def test_maps_and_pooled_features_give_the_same_embedding_without_a_grid():
    model, maps = build(), torch.rand(2, 5, 3, 3)
    stored = torch.stack([maps.mean((2, 3)), maps.amax((2, 3))], 1)
    texts = random_texts(2)
    assert torch.allclose(embed(model, maps, *texts), embed(model, stored, *texts), atol=1e-6)
    assert (model.features, build(image_grid=2).features) == ("pooled", "maps")


def test_image_words_and_their_order_matter():
    model, features = build(), pooled(2)
    text = [[4, 5, 6], [7]]
    base = embed(model, features[:1], text)
    assert not torch.allclose(base, embed(model, features[1:], text))
    assert not torch.allclose(base, embed(model, features[:1], [[6, 5, 4], [7]]))
    assert not torch.allclose(base, embed(model, features[:1], text[::-1]))


# ---- the autoencoder ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_autoencoder_overfits_eight_pairs():
    """Texts come back word for word, and thumbnails nearly so."""
    torch.manual_seed(0)
    model = RelationModel(5, WORDS, RelationOptions(**SIZES | {"article_size": 64}))
    texts = random_texts(8, longest=5)
    quarters = torch.randint(0, 256, (8, 3, 2, 2), dtype=torch.uint8)
    thumbnails = quarters.repeat_interleave(4, 2).repeat_interleave(4, 3)
    articles = articles_of(*texts)
    model.image_decoder.measure(thumbnails)
    counts = torch.bincount(articles.tokens.flatten(), minlength=WORDS).double()
    model.text_decoder.measure(counts)
    model.train_parts(autoencoder=True)
    batch = RelationBatch(
        pooled(8), True, articles, torch.arange(8), torch.full((8, 2), MISSING), thumbnails
    )
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], RATE)
    for step in range(400):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / 400)
        optimizer.zero_grad()
        loss = model.loss(batch)
        loss.value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    embeddings = embed(model, pooled(8), *texts)
    with torch.no_grad():
        decoded = model.text_decoder.most_likely(embeddings, articles, model.articles.words.weight)
        pixels = model.image_decoder.render(embeddings)
    assert torch.equal(decoded, articles.tokens)
    error = (pixels.float() - thumbnails.float()).square().mean()
    mean_error = (thumbnails.float() - thumbnails.float().mean(0)).square().mean()
    assert error < 0.02 * mean_error


def test_the_text_loss_is_the_mean_over_words():
    model, texts = build(), random_texts(4)
    embeddings = torch.rand(4, SIZES["article_size"])
    decoder, vectors = model.text_decoder, model.articles.words.weight
    decoder.measure(torch.arange(WORDS).double())
    unit = F.normalize(vectors, dim=1)
    losses = []
    for own, text in zip(embeddings, texts, strict=True):
        states, _ = decoder.sentences(own.expand(1, len(text), -1))
        for state, sentence in zip(states[0], text, strict=True):
            outputs, _ = decoder.words(state.expand(1, len(sentence), -1))
            cosines = F.normalize(outputs[0], dim=1) @ unit.T
            logits = 15 * cosines + decoder.log_frequency
            losses.append(F.cross_entropy(logits, torch.tensor(sentence), reduction="none"))
    found = decoder.cross_entropy(embeddings, articles_of(*texts), vectors)
    assert found.item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def test_log_frequencies_are_those_of_the_counts_plus_one():
    decoder = build().text_decoder
    decoder.measure(torch.arange(WORDS).double())
    expected = (torch.arange(WORDS).double() + 1)[1:]
    assert torch.allclose(
        decoder.log_frequency[1:].double().exp(), expected / expected.sum(), atol=1e-6
    )


def test_a_constant_image_has_the_error_of_the_mean_thumbnail():
    decoder = build().image_decoder
    thumbnails = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    decoder.measure(thumbnails)
    normalised = decoder.normalise(thumbnails)
    assert normalised.square().mean().item() == pytest.approx(1, rel=1e-4)
    assert normalised.mean(0).abs().max() < 1e-5
    decoder.measure(thumbnails[:1].expand(3, -1, -1, -1))
    assert decoder.normalise(thumbnails[:1]).abs().max() < 1e-5  # not nan


def test_special_tokens_are_never_decoded():
    model = build()
    articles = articles_of([[4, 5, 6]])
    decoded = model.text_decoder.most_likely(
        torch.rand(1, SIZES["article_size"]), articles, model.articles.words.weight
    )
    assert (decoded >= 4).all()


# ---- the classifier -----------------------------------------------------------------------------


def labelled_batch(labels, count=4):
    texts = articles_of(*random_texts(count))
    return RelationBatch(pooled(2), True, texts, torch.arange(count) % 2, torch.tensor(labels))


def test_facts_are_read_of_each_sentence_and_of_each_of_its_words():
    model, articles = build(), articles_of([[4, 5], [6], [7, 8, 9]], [[9]])
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.rand(2, SIZES["article_size"], generator=generator)
    sentences = torch.randn(4, model.articles.match_size, generator=generator)
    words = torch.randn(7, 2 * SIZES["sentence_size"], generator=generator)
    matches = Matches(sentences, words, torch.tensor([0, 0, 1, 2, 2, 2, 3]))
    layers = model.facts
    with torch.no_grad():
        facts = []
        for own, of_words in zip(sentences, words.split([2, 1, 3, 1]), strict=True):
            hidden = layers.words(of_words).relu()
            own = torch.cat([own, hidden.mean(0), hidden.amin(0), hidden.amax(0)])
            facts.append(layers.output(layers.sentence(own).relu()).relu())
        found = model.classify(JoinedArticles(embeddings, matches), articles)
        for row, own in enumerate((torch.stack(facts[:3]), torch.stack(facts[3:]))):
            pooled_facts = [own.mean(0), own.amin(0), own.amax(0)]
            hidden = model.hidden(torch.cat([embeddings[row], *pooled_facts])).relu()
            for head, logits in zip(model.heads, found, strict=True):
                assert torch.allclose(logits[row], head(hidden), atol=1e-6)


def test_words_are_compared_with_the_cell_of_their_sentence():
    model = build(image_grid=2)
    encoder, maps = model.articles, torch.rand(1, 5, 2, 2)
    articles = articles_of([[4, 5, 6], [7]])
    with torch.no_grad():
        images = model.embed_images(maps, are_features=True)
        read = encoder.read_sentences(articles.tokens)
        matches = encoder.match(images.take(torch.zeros(1).long()), read, articles)
    assert matches.sentence_of_word.tolist() == [0, 0, 0, 1]
    row = 0
    for sentence, length in enumerate((3, 1)):
        scores = images.cells[0] @ read.vectors[sentence]
        cell = images.cells[0][scores.argmax()]
        for word in read.words[sentence, :length]:
            assert torch.allclose(matches.words[row], torch.cat([word * cell, word]), atol=1e-6)
            row += 1


def test_each_head_is_averaged_over_the_texts_that_have_its_label():
    model = build()
    batch = labelled_batch([[0, MISSING], [4, 1], [MISSING, 2], [3, MISSING]])
    with torch.no_grad():
        images = model.embed_images(batch.images, are_features=True).take(batch.image_of_text)
        cmi, sc = model.classify(model.articles(images, batch.articles), batch.articles)
        expected = [
            F.cross_entropy(cmi[[0, 1, 3]], torch.tensor([0, 4, 3])),
            F.cross_entropy(sc[[1, 2]], torch.tensor([1, 2])),
        ]
        loss = model.loss(batch)
    assert loss.value.item() == pytest.approx(sum(expected).item(), rel=1e-5)
    assert [loss.parts[f"{name}_loss"].item() for name in ("cmi", "sc")] == pytest.approx(
        [each.item() for each in expected], rel=1e-5
    )
    assert loss.count == 4
    with torch.no_grad():
        without = model.loss(replace(batch, labels=torch.full((4, 2), MISSING)))
    assert without.value.item() == 0


def test_the_ordinal_loss_is_the_squared_distance_of_cumulative_distributions():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 2, 3])
    expected = []
    for row, target in zip(logits.softmax(1), targets, strict=True):
        reached = [sum(row[: level + 1]) for level in range(4)]
        expected.append(sum((p - int(level >= target)) ** 2 for level, p in enumerate(reached)))
    assert torch.allclose(ordinal_loss(logits, targets), torch.stack(expected))
    sure = torch.eye(4) * 50
    assert ordinal_loss(sure, torch.zeros(4).long()).tolist() == pytest.approx([0, 1, 2, 3])
    assert build(loss="ordinal").loss(labelled_batch([[0, 1]] * 4)).value > 0


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("autoencoder", [True, False])
def test_all_parts_that_are_trained_get_a_gradient(autoencoder, paper):
    model = build(support_groups=0, alignment=0.0) if paper else build()
    model.train_parts(autoencoder=autoencoder)
    batch = labelled_batch([[0, 1], [1, 2], [2, 3], [3, 4]])
    if autoencoder:
        thumbnails = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
        batch = replace(batch, thumbnails=thumbnails)
    model.loss(batch).value.backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    parts = {name.partition(".")[0] for name in trained}
    expected = {"image_decoder", "text_decoder"} if autoencoder else {"hidden", "heads"}
    if not paper:
        expected.add("log_scale" if autoencoder else "facts")
    assert parts == {"articles", *expected}


@pytest.mark.parametrize("hidden", [0, 7])
def test_vectors_can_be_kept(hidden):
    model = build(image_hidden=hidden)
    model.train_parts(autoencoder=False, vectors=False)
    batch = labelled_batch([[0, 1], [1, 2], [2, 3], [3, 4]])
    model.loss(batch).value.backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    parts = {".".join(name.split(".")[:2]) for name in trained if name.startswith("articles.")}
    assert parts == {"articles.matches", "articles.text", "articles.article"}


def test_only_images_are_dropped_by_their_rate():
    model, features, texts = build(image_dropout=0.9), pooled(2), [[[4, 5]], [[6, 7]]]
    read = model.articles.read_sentences(articles_of(*texts).tokens)
    exact = model.articles.embed_images(features)
    model.articles.training = True
    assert not torch.allclose(model.articles.embed_images(features).embeddings, exact.embeddings)
    again = model.articles.read_sentences(articles_of(*texts).tokens)
    assert torch.equal(again.vectors, read.vectors)


def test_the_alignment_can_be_left_out():
    batch = labelled_batch([[MISSING] * 2] * 4)
    batch = replace(batch, thumbnails=torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with_it, without = (build(alignment=weight).loss(batch) for weight in (1.0, 0.0))
    assert "alignment_loss" not in without.parts
    assert with_it.value.item() == pytest.approx(
        (without.value + with_it.parts["alignment_loss"]).item(), rel=1e-5
    )


def test_contradictions_are_negatives_of_their_image():
    model, texts = build(), articles_of([[4, 5], [6]], [[7, 8]])
    batch = RelationBatch(
        pooled(2), True, texts, torch.arange(2), torch.full((2, 2), MISSING),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
    )  # fmt: skip
    wrong = replace(
        batch,
        contradictions=articles_of([[4, 9]], [[9, 6]]),
        image_of_contradiction=torch.tensor([0, 0]),
    )
    single = replace(
        wrong, contradictions=articles_of([[9]]), image_of_contradiction=torch.zeros(1).long()
    )
    assert model.train().loss(single).value.isfinite()  # one word has no batch norm of its own
    model = build()
    with torch.no_grad():
        images = model.embed_images(batch.images, are_features=True).embeddings
        own, false = (
            model.articles.read_sentences(each.tokens).vectors
            for each in (texts, wrong.contradictions)
        )
        scale = model.log_scale.exp() / SIZES["sentence_size"]
        right, against = own[:2] @ images[0] * scale, false @ images[0] * scale
        rows = [torch.cat([score[None], against]) for score in right]
        expected = -sum(row.log_softmax(0)[0] for row in rows) / 3  # one of three has none
        losses = [model.loss(each).parts["alignment_loss"] for each in (batch, wrong)]
    assert (losses[1] - losses[0]).item() == pytest.approx(expected.item(), rel=1e-4)


# ---- options ------------------------------------------------------------------------------------


def test_a_third_head_is_one_more_word():
    options = RelationOptions(heads="cmi=0,1 sc=-1,0,1 status=0,1,2")
    assert options.parsed_heads[2] == Head("status", (0.0, 1.0, 2.0))
    assert [len(head.bias) for head in RelationModel(5, WORDS, options).heads] == [2, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": "cmi"}, "heads must be names .letters, digits and _., each with = and at least"),
        ({"heads": "cmi=1"}, "such as sc=-1,0,1, got 'cmi=1'"),
        ({"heads": "cmi=1,0"}, "got 'cmi=1,0'"),
        ({"heads": "cmi=0,x"}, "got 'cmi=0,x'"),
        ({"heads": "cmi=0,inf"}, "the values of heads must be finite, got 'cmi=0,inf'"),
        ({"heads": "=0,1"}, "got '=0,1'"),
        ({"heads": "a=0,1 a=0,2"}, "heads must have different names, got a, a"),
        ({"heads": ""}, "heads is empty; pass at least one label, such as sc=-1,0,1"),
        ({"support_groups": 5}, "support_groups must divide sentence_size 256, got 5"),
        ({"thumbnail_size": 30}, "thumbnail_size must be a multiple of 4 above 0, got 30"),
        ({"thumbnail_size": 0}, "thumbnail_size must be a multiple of 4 above 0, got 0"),
        ({"image_hidden": -1}, "image_hidden must be at least 0, got -1"),
        ({"alignment": -1.0}, "alignment must be at least 0, got -1.0"),
        ({"alignment": math.nan}, "alignment must be finite and at least 0, got nan"),
        ({"loss": "l1"}, "loss must be one of cross-entropy, ordinal, got 'l1'"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        RelationOptions(**options)


def test_labels_are_levels():
    head = Head.parse("cmi=0,0.25,0.5")
    assert [head.index(value) for value in (0, 0.25, 0.5)] == [0, 1, 2]
    with pytest.raises(InputError, match=r"the label cmi must be one of 0, 0.25, 0.5, got 0.3; "):
        head.index(0.3)


def test_padding_of_sentences_is_ignored_by_the_lstm():
    """A longer sentence in the batch changes nothing; checked against one call per sentence."""
    model = build()
    sentences = [[4, 5], [6, 7, 8, 9, 10], [11]]
    read = model.articles.read_sentences(pad_tokens(sentences))
    states = []
    for sentence in sentences:
        outputs, _ = model.articles.sentence(model.articles.words(torch.tensor([sentence])))
        states.append(outputs[0, -1])
    assert torch.allclose(read.states, torch.stack(states), atol=1e-6)
    assert read.lengths.tolist() == [2, 5, 1]
    lengths = pad_sequence([torch.ones(len(s)) for s in sentences], batch_first=True) > 0
    assert ((read.words != 0).any(-1) == lengths).all()
