"""Library and textbook agree in words, scores, losses and gradients."""

import shutil

import pytest
import torch

from benchmarks import measure, setting, textbook
from benchmarks.train_step import textbook_rows
from captioner.decoding.decode import decode
from captioner.decoding.options import DecodingOptions
from captioner.decoding.teacher_forcing import score_captions
from captioner.devices import products_in
from captioner.models.captioning.ensemble import compile_steps

CPU = torch.device("cpu")
SIZES = setting.Sizes(
    positions=9, channels=24, vocabulary=50, hidden=16, steps=6, beams=4, batch=5, captions=3
)


@pytest.fixture
def model(attention):
    """A model whose weights are larger than at initialisation, so that scores differ."""
    model = setting.build(SIZES, attention=attention, device=CPU)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    model.dropout.p = 0.0
    return model


@pytest.fixture
def maps():
    return setting.draw_features(SIZES, SIZES.batch, CPU)


def test_beam_search_is_the_textbooks(model, maps):
    decoder = textbook.with_weights_of(model)
    found = decode(model, maps, setting.forced(SIZES))
    for (best, *_), image in zip(found, maps.flatten(2).mT, strict=True):
        tokens, score = textbook.beam_search(decoder, image, SIZES.beams, SIZES.steps, SIZES.steps)
        assert list(best.tokens) == tokens
        assert best.score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("captions", [1, 5])
def test_loss_and_gradients_are_the_textbooks(model, captions):
    sizes = setting.vary(SIZES, captions=captions)
    batch = setting.draw_batch(sizes, SIZES.batch, 2, 7)
    smoothing, coverage = model.options.label_smoothing, model.options.coverage_weight
    decoder = textbook.with_weights_of(model.train())
    value = textbook.loss(decoder, *textbook_rows(batch), smoothing, coverage)
    loss = model.loss(batch)
    assert loss.value.item() == pytest.approx(value.item(), abs=1e-4)
    value.backward()
    loss.value.backward()
    ours, theirs = model, decoder
    scale = SIZES.hidden**0.5  # by which the library multiplies the words that the LSTM reads
    entering = (
        1 if model.options.attention else scale
    )  # the textbook's attention model has no such factor in its embedding
    embedding = entering * theirs.embedding.weight.grad + theirs.fc.weight.grad  # tied
    pairs = [(ours.words.weight.grad, embedding), (ours.words.bias.grad, theirs.fc.bias.grad)]
    cell = theirs.decode_step
    if model.options.attention:
        _, gate, _ = ours.read_hidden.weight.grad.split(ours.hidden_parts)
        read = ours.read_context.weight.grad.split(ours.context_parts)
        pairs += [
            (ours.annotate.weight.grad, theirs.annotate.weight.grad),
            (ours.key.weight.grad, theirs.attention.encoder_attention.weight.grad),
            (ours.energy.grad, theirs.attention.full_attention.weight.grad[0]),
            (ours.word_gates.weight.grad, scale * cell.weight_ih.grad[:, : SIZES.hidden]),
            (read[0], cell.weight_ih.grad[:, SIZES.hidden :]),
            (read[1], theirs.output_context.weight.grad),
            (gate, theirs.f_beta.weight.grad),
            (ours.initial_cell.weight.grad, theirs.init_c.weight.grad),
        ]
    else:
        pairs += [
            (ours.lstm.weight_ih_l0.grad, cell.weight_ih.grad),
            (ours.lstm.weight_hh_l0.grad, cell.weight_hh.grad),
            (ours.image_embedding.weight.grad, theirs.image.weight.grad),
        ]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_bfloat16_is_close_to_float32(model, maps):
    options = DecodingOptions("greedy", min_length=6, max_length=6)
    tokens = torch.tensor([[[1, *best.tokens]] for (best,) in decode(model, maps, options)])
    exact = score_captions(model, maps, tokens, options)
    with products_in("bfloat16", CPU):
        rough = score_captions(model, maps, tokens, options)
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.15)
    batch = setting.draw_batch(SIZES, SIZES.batch, 2, 7)
    with products_in("bfloat16", CPU):
        value = model.loss(batch).value
    assert value.item() == pytest.approx(model.loss(batch).value.item(), rel=0.02)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_steps_change_nothing(model, maps):
    options = setting.forced(SIZES)
    expected = decode(model, maps, options)
    found = decode(compile_steps(model), maps, options)
    for (one, *_), (other, *_) in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.score == pytest.approx(other.score, abs=1e-4)


# ---- measuring -----------------------------------------------------------------------------------


def test_peak_memory_includes_temporary_allocations():
    def work():
        torch.ones(25_000_000).sum()  # 100 MB

    for _ in range(2):
        assert measure.peak_memory(work, CPU) == pytest.approx(100, abs=15)


def test_cases_take_turns_after_a_warm_up_round():
    order = []
    cases = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    assert set(measure.side_by_side(cases, 2, CPU)) == {"a", "b"}
    assert "".join(order) == "ababab"


def test_tables_are_markdown():
    assert measure.table(["", "s"], [["a", 1234.5], ["b", 0.01234], ["c", 7]]) == (
        "|  | s |\n| --- | --- |\n| a | 1,234 |\n| b | 0.0123 |\n| c | 7 |"
    )
    assert measure.table(["x"], [[float("nan")]]).endswith("| - |")


def test_operation_counts_match_those_of_torch():
    """Counted over the textbook's step, which precomputes nothing."""
    from torch.utils.flop_counter import FlopCounterMode

    model = setting.build(SIZES, attention=True, device=CPU)
    decoder = textbook.with_weights_of(model)
    features, words = torch.rand(1, SIZES.positions, SIZES.hidden), torch.rand(1, SIZES.hidden)
    state = decoder.init_hidden_state(features)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder.step(features, words, state)
    keys = 2 * SIZES.positions * SIZES.hidden**2  # per image in the library
    weighted_mean = 2 * SIZES.positions * SIZES.hidden  # not counted as a product by torch
    expected = setting.word_operations(SIZES, attention=True) - weighted_mean + keys
    assert counter.get_total_flops() == expected
