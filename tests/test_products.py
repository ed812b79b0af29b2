"""Products in number formats against plain ones, and weights that are converted once."""

import pytest
import torch
import torch.nn.functional as F

from captioner import devices, products
from captioner.devices import pick_format
from captioner.errors import InputError
from captioner.products import KeptTable, decoding_in, layer_product, product

CPU = torch.device("cpu")
ABLE = torch.cpu.get_capabilities()
needs_int8 = pytest.mark.skipif(
    not (ABLE.get("avx512_vnni") or ABLE.get("avx_vnni")), reason="the CPU has no VNNI instructions"
)


def draw(rows=7, inputs=24, outputs=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((rows, inputs), (outputs, inputs), (outputs,))
    return [torch.randn(*size, generator=generator) for size in sizes]


def run(precision, rows, weight, bias):
    with torch.inference_mode(), decoding_in(precision, CPU):
        return product(rows, weight, bias)


@needs_int8
@pytest.mark.parametrize("count", [1, 7, 300])
@pytest.mark.parametrize("with_bias", [True, False])
def test_int8_products_are_those_of_quantised_numbers(count, with_bias):
    rows, weight, bias = draw(count)
    rows += 0.5
    low, high = min(rows.min().item(), 0), max(rows.max().item(), 0)
    step = (high - low) / 253
    zero = -(low // step)
    levels = (rows / step + zero + 0.5).floor().clamp(0, 255)
    scales = weight.abs().amax(1) / 127
    expected = ((levels - zero) * step) @ ((weight / scales[:, None]).round() * scales[:, None]).T
    found = run("int8", rows, weight, bias if with_bias else None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected + bias * with_bias, atol=1e-4, rtol=1e-4)
    error = (found - F.linear(rows, weight, bias if with_bias else None)).abs().max()
    assert 0 < error < 0.5


@needs_int8
@pytest.mark.parametrize(
    "rows", [torch.zeros(3, 24), -torch.rand(3, 24), torch.ones(3, 24), torch.zeros(0, 24)]
)
def test_int8_products_of_zeros_of_one_sign_and_of_nothing(rows):
    _, weight, bias = draw()
    found = run("int8", rows, weight, bias)
    torch.testing.assert_close(found, F.linear(rows, weight, bias), atol=0.2, rtol=0)


def test_bfloat16_products_return_float32():
    rows, weight, bias = draw()
    expected = F.linear(*(part.bfloat16() for part in (rows, weight, bias))).float()
    assert torch.equal(run("bfloat16", rows, weight, bias), expected)


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("int8", marks=needs_int8)])
def test_a_weight_is_converted_once_until_it_changes(precision, monkeypatch):
    name = {"bfloat16": "_halve", "int8": "_pack"}[precision]
    convert, calls = getattr(products, name), []
    monkeypatch.setattr(products, name, lambda *parts: calls.append(1) or convert(*parts))
    rows, weight, bias = draw()
    before = run(precision, rows, weight, bias)
    assert torch.equal(run(precision, rows, weight, bias), before)
    assert len(calls) == 1
    weight.mul_(2)
    bias.mul_(2)
    torch.testing.assert_close(run(precision, rows, weight, bias), 2 * before)
    assert len(calls) == 2
    other = [part.clone() for part in (weight, bias)]
    assert not torch.equal(run(precision, rows, other[0] + 1, other[1]), 2 * before)


def test_products_with_a_gradient_and_outside_are_ordinary():
    rows, weight, bias = draw()
    with decoding_in("bfloat16", CPU):
        found = product(rows, weight.requires_grad_(), bias)
    assert found.requires_grad
    with torch.inference_mode():
        assert torch.equal(product(rows, weight, bias), F.linear(rows, weight, bias))
    layer = torch.nn.Linear(24, 40)
    assert torch.equal(layer_product(rows, layer), layer(rows))


def test_auto_uses_8_bits_where_the_cpu_multiplies_them_fast(monkeypatch):
    for able, expected in (
        ({"avx512_vnni": True}, "int8"),
        ({"avx_vnni": True}, "int8"),
        ({"avx512_vnni": True, "amx_bf16": True}, "int8"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({}, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert pick_format("auto", CPU) == expected
        assert pick_format("float32", CPU) == "float32"
        assert pick_format("bfloat16", CPU) == "bfloat16"
    with pytest.raises(InputError, match="precision int8 needs a CPU with VNNI instructions"):
        pick_format("int8", CPU)
    with pytest.raises(InputError, match="precision must be one of auto, float32, bfloat16, int8"):
        pick_format("int4", CPU)
    monkeypatch.setattr(devices, "pick_precision", lambda *_: torch.float32)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    with pytest.raises(InputError, match="precision int8 needs a CPU"):
        pick_format("int8", torch.device("cuda"))


def test_a_table_is_computed_once_it_pays_and_kept_until_its_weights_change():
    embeddings, weight, bias = draw(rows=10)
    calls, table = [], KeptTable()

    def get(rows):
        return table.get(
            rows,
            embeddings,
            (weight, bias),
            lambda: calls.append(1) or embeddings @ weight.T + bias,
        )

    with torch.inference_mode():
        assert get(6) is None
        found = get(6)  # 12 rows in all, and the table has 10
        torch.testing.assert_close(found, embeddings @ weight.T + bias)
        assert get(1) is found
        assert len(calls) == 1
        bias.add_(1)
        assert get(1) is None
        torch.testing.assert_close(get(10), found + 1)
        assert len(calls) == 2
    weight.requires_grad_()
    assert get(10) is None
    assert get(11).requires_grad
    assert len(calls) == 3


def test_large_tables_are_not_kept(monkeypatch):
    monkeypatch.setattr(products, "LARGEST_TABLE", 10 * 40 - 1)
    embeddings, weight, bias = draw(rows=10)
    table = KeptTable()
    with torch.inference_mode():
        for _ in range(3):
            assert table.get(9, embeddings, (weight, bias), lambda: embeddings) is None
            assert table.get(11, embeddings, (weight, bias), lambda: embeddings) is embeddings
