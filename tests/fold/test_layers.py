"""The functions that kernels may replace, against slow references in float64, over odd shapes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from sartor.tools.fold.model.attention import attention
from sartor.tools.fold.model.dropout import COLUMNS, ROWS, dropout_add
from sartor.tools.fold.model.linear import JointLinear, Part, split_on_export
from sartor.tools.fold.model.msa_attention import global_attention
from sartor.tools.fold.model.outer_product_mean import OuterProductMean, outer_products
from sartor.tools.fold.model.triangle_multiplication import combine


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize(("rows", "queries", "keys"), [(1, 1, 1), (3, 5, 7), (0, 4, 4), (2, 63, 1)])
def test_attention(rows: int, queries: int, keys: int) -> None:
    heads, width = 2, 8
    q, k, v = noise(2, rows, heads, queries, width), noise(2, rows, heads, keys, width), noise(2, rows, heads, keys, 3)
    mask = torch.ones(2, rows, keys, dtype=torch.float64)
    mask[:, :, 1::3] = 0
    bias = noise(2, heads, queries, keys)
    found = attention(q, k, v, mask, bias)
    assert found.shape == (2, rows, heads, queries, 3)
    for b, r, h, i in itertools.product(range(2), range(rows), range(heads), range(queries)):
        kept = [j for j in range(keys) if mask[b, r, j]]
        weight = torch.stack([(q[b, r, h, i] @ k[b, r, h, j] + bias[b, h, i, j]).exp() for j in kept])
        expected = sum(w * v[b, r, h, j] for w, j in zip(weight / weight.sum(), kept, strict=True))
        # The offset of masked keys takes nothing from the others' digits.
        assert torch.allclose(found[b, r, h, i], expected, rtol=1e-12, atol=1e-12)


def test_attention_where_nothing_is_kept_is_the_mean() -> None:
    q, k, v = (noise(1, 1, 3, 4).float() for _ in range(3))
    found = attention(q, k, v, torch.zeros(1, 3), None)
    assert torch.allclose(found, v.mean(dim=-2, keepdim=True).expand_as(v))


def test_attention_gradients() -> None:
    q, k, v, bias = (noise(1, 2, 2, 3, 4), noise(1, 2, 2, 3, 4), noise(1, 2, 2, 3, 4), noise(1, 2, 3, 3))
    mask = torch.tensor([[[1, 0, 1], [1, 1, 1]]], dtype=torch.float64)
    inputs = tuple(each.requires_grad_() for each in (q, k, v, bias))
    assert torch.autograd.gradcheck(lambda q, k, v, bias: attention(q, k, v, mask, bias), inputs)


def test_logits_of_bf16_are_wide() -> None:
    """A difference of logits that bfloat16 can't hold still decides."""
    q = torch.tensor([[[[1.0, 1.0]]]], dtype=torch.bfloat16)
    k = torch.tensor([[[[256.0, 1.0], [256.0, 0.0]]]], dtype=torch.bfloat16)
    v = torch.tensor([[[[1.0], [0.0]]]], dtype=torch.bfloat16)
    found = attention(q, k, v, torch.ones(1, 2, dtype=torch.bfloat16), None)
    assert found.dtype == torch.bfloat16
    assert float(found) == pytest.approx(1 / (1 + torch.tensor(-1.0).exp().item()), abs=0.01)


def test_global_attention() -> None:
    q, k, v = noise(2, 3, 4), noise(2, 5, 4), noise(2, 5, 4)
    mask = torch.tensor([[1, 1, 0, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.float64)
    found = global_attention(q, k, v, mask)
    assert torch.allclose(found[1], v[1, :1].expand(3, 4))
    kept = [0, 1, 3, 4]
    assert torch.allclose(found[0], torch.softmax(q[0] @ k[0, kept].T, dim=-1) @ v[0, kept])


@pytest.mark.parametrize("length", [0, 1, 5])
def test_triangles(length: int) -> None:
    a, b = noise(2, length, length, 3), noise(2, length, length, 3) + 1
    outgoing, incoming = combine(a, b, outgoing=True), combine(a, b, outgoing=False)
    for i, j in itertools.product(range(length), range(length)):
        assert torch.allclose(outgoing[:, i, j], sum(a[:, i, k] * b[:, j, k] for k in range(length)))
        assert torch.allclose(incoming[:, i, j], sum(a[:, k, i] * b[:, k, j] for k in range(length)))


def test_outer_products() -> None:
    a, b = noise(2, 4, 5, 3), noise(2, 4, 5, 3) + 1
    found = outer_products(a, b)
    for i, j in itertools.product(range(5), range(5)):
        expected = sum(a[1, s, i][:, None] * b[1, s, j] for s in range(4))
        assert torch.allclose(found[1, i, j], expected.flatten())


def test_outer_product_mean_counts_sequences_in_bf16() -> None:
    """A thousand and one equal sequences give what one gives, though bfloat16 can't count so far."""
    torch.manual_seed(0)
    layer = OuterProductMean(8, 4, 4)
    nn.init.normal_(layer.linear_out.weight)
    one = torch.randn(1, 2, 8).to(torch.bfloat16)
    many = one.expand(1001, 2, 8)
    single = layer(one, torch.ones(1, 2, dtype=torch.bfloat16))
    mean = layer(many, torch.ones(1001, 2, dtype=torch.bfloat16))
    assert mean.dtype == torch.bfloat16
    assert torch.allclose(mean.float(), single.float(), rtol=0.03, atol=0.03)


@pytest.mark.parametrize(("shared", "other"), [(ROWS, COLUMNS), (COLUMNS, ROWS)])
def test_dropout_shares_its_mask(shared: int, other: int) -> None:
    torch.manual_seed(0)
    update = torch.ones(2, 16, 16, 8, dtype=torch.float64)
    dropped = dropout_add(torch.full_like(update, 3.0), update, 0.25, shared, training=True) - 3
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0.0, 4 / 3])
    assert torch.equal(dropped, dropped.narrow(shared, 0, 1).expand_as(dropped))
    assert not torch.equal(dropped, dropped.narrow(other, 0, 1).expand_as(dropped))
    assert abs(float(dropped.mean()) - 1) < 0.15
    assert torch.equal(dropout_add(update, update, 0.25, shared, training=False), 2 * update)


class Owner(nn.Module):
    """Two joint layers, one part with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = JointLinear(3, [Part("plain", 2, bias=False), Part("gate", 4, init="gating")])
        split_on_export(self, "joint")


def test_joint_layers_are_their_parts() -> None:
    owner = Owner()
    nn.init.normal_(owner.joint.weight)
    state = owner.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "plain.weight": (2, 3),
        "gate.weight": (4, 3),
        "gate.bias": (4,),
    }
    x = torch.randn(5, 3)
    plain, gate = owner.joint(x)
    assert torch.allclose(plain, x @ state["plain.weight"].T, atol=1e-6)
    assert torch.allclose(gate, x @ state["gate.weight"].T + 1, atol=1e-6)
    other = nn.ModuleDict({"inner": Owner()})
    other.load_state_dict({f"inner.{name}": value for name, value in state.items()})
    assert torch.equal(other["inner"].joint.weight, owner.joint.weight)
