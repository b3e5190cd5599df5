"""What turns with the structure and what does not, in float64."""

from __future__ import annotations

import torch
from tests.kits.fold_kit import random_rigid

from sartor.tools.fold.geometry.rigid import Rigid, from_7
from sartor.tools.fold.losses.fape import backbone_fape, frame_aligned_error
from sartor.tools.fold.losses.lddt import lddt_ca
from sartor.tools.fold.model.config import ModelConfig
from sartor.tools.fold.model.invariant_point_attention import InvariantPointAttention

N = 11


def attention() -> InvariantPointAttention:
    torch.manual_seed(0)
    module = InvariantPointAttention(ModelConfig.tiny()).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def test_point_attention_does_not_see_the_global_frame() -> None:
    module, config, frames = attention(), ModelConfig.tiny(), random_rigid(1, N)
    s = torch.randn(1, N, config.c_s, dtype=torch.float64)
    z = torch.randn(1, N, N, config.c_z, dtype=torch.float64)
    mask = torch.ones(1, N, dtype=torch.float64)
    moved = random_rigid(seed=7).compose(frames)
    assert torch.allclose(module(s, z, frames, mask), module(s, z, moved, mask), rtol=1e-10, atol=1e-10)
    other = random_rigid(1, N, seed=8)
    assert not torch.allclose(module(s, z, frames, mask), module(s, z, other, mask))


def test_point_attention_against_a_loop() -> None:
    """Algorithm 22 line by line, one residue and one head at a time."""
    module, config, frames = attention(), ModelConfig.tiny(), random_rigid(N)
    sizes = config.structure
    s, z = torch.randn(N, config.c_s, dtype=torch.float64), torch.randn(N, N, config.c_z, dtype=torch.float64)
    mask = torch.ones(N, dtype=torch.float64)
    mask[3] = 0
    q, kv, qp, kvp = (part.detach() for part in module.linear_single(s))
    per_query, per_key = sizes.query_points, sizes.query_points + sizes.value_points
    rows = []
    for i in range(N):
        scalars, points, lengths, pairs = [], [], [], []
        for h in range(sizes.heads):
            width = sizes.attention
            at = Rigid(frames.rotation[i], frames.translation[i])
            query = q[i, h * width : (h + 1) * width]
            query_points = at.apply(_own(qp[i], h, per_query, sizes.heads))
            logits, values, value_points = [], [], []
            for j in range(N):
                there = Rigid(frames.rotation[j], frames.translation[j])
                key, value = kv[j].reshape(sizes.heads, 2 * width)[h].split(width)
                both = there.apply(_own(kvp[j], h, per_key, sizes.heads))
                gamma = torch.nn.functional.softplus(module.head_weights[h])
                squares = (query_points - both[:per_query]).square().sum()
                w_c, w_l = (2 / (9 * per_query)) ** 0.5, (1 / 3) ** 0.5
                bias = module.linear_b(z[i, j])[h]
                logit = w_l * (query @ key / width**0.5 + bias - gamma * w_c / 2 * squares)
                logits.append(logit + (mask[i] * mask[j] - 1) * 1e5)
                values.append(value)
                value_points.append(both[per_query:])
            weights = torch.softmax(torch.stack(logits), dim=0)
            scalars.append((weights[:, None] * torch.stack(values)).sum(dim=0))
            local = at.invert_apply((weights[:, None, None] * torch.stack(value_points)).sum(dim=0))
            points.append(local)
            lengths.append(torch.sqrt(local.square().sum(dim=-1) + 1e-8))
            pairs.append((weights[:, None] * z[i]).sum(dim=0))
        flat = torch.cat(points)
        rows.append(torch.cat([*scalars, flat[:, 0], flat[:, 1], flat[:, 2], *lengths, *pairs]))
    expected = module.linear_out(torch.stack(rows))
    assert torch.allclose(module(s, z, frames, mask), expected, rtol=1e-9, atol=1e-9)


def _own(projected: torch.Tensor, head: int, points: int, heads: int) -> torch.Tensor:
    """Return the points [points, 3] of a head: all x of all heads come first, then all y, then all z."""
    return projected.reshape(3, heads, points)[:, head].T


def test_frame_aligned_error_does_not_move() -> None:
    predicted, true = random_rigid(N, seed=1), random_rigid(N, seed=2)
    points, true_points = torch.randn(2, N, 3, dtype=torch.float64)
    mask = torch.ones(N, dtype=torch.float64)
    still = frame_aligned_error(predicted, true, mask, points, true_points, mask)
    motion, other = random_rigid(seed=3), random_rigid(seed=4)
    moved = frame_aligned_error(
        motion.compose(predicted), other.compose(true), mask, motion.apply(points), other.apply(true_points), mask
    )
    assert torch.allclose(still, moved, rtol=1e-10, atol=1e-10)


def test_perfect_prediction_has_the_smallest_error() -> None:
    true = random_rigid(1, N)
    frames = torch.randn(1, 2, N, 7, dtype=torch.float64)
    frames = torch.cat([frames[..., :4] / frames[..., :4].norm(dim=-1, keepdim=True), frames[..., 4:]], dim=-1)
    exact = from_7(frames[:, 0]).to_4x4()
    mask, clamped = torch.ones(1, N, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    best = backbone_fape(frames[:, :1], exact, mask, clamped)
    assert abs(float(best) - 1e-3) < 1e-5  # the square root of the small number, in units of 10 angstroms
    assert backbone_fape(frames[:, :1], true.to_4x4(), mask, clamped) > 10 * best


def test_mirror_image_is_an_error_but_not_to_lddt() -> None:
    positions = torch.randn(1, N, 37, 3, dtype=torch.float64)
    mask = torch.ones(1, N, 37, dtype=torch.float64)
    mirrored = positions * torch.tensor([1.0, 1.0, -1.0])
    assert torch.allclose(lddt_ca(mirrored, positions, mask), torch.ones(1, dtype=torch.float64))
    assert lddt_ca(3 * positions, positions, mask) < 0.9
