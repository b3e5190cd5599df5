"""Rotations, rigid transforms and quaternions.

Products of 3 x 3 matrices are written out: matrix units would round them to fewer bits (tf32, bf16).
Shapes: [*, 3, 3] rotations, [*, 3] points and translations, [*, 4] quaternions (real part first), [*, 7] a quaternion
and a translation, [*, 4, 4] homogeneous transforms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


def rotate(rotation: Tensor, point: Tensor) -> Tensor:
    """Return rotated points [*, 3]."""
    x, y, z = point[..., 0:1], point[..., 1:2], point[..., 2:3]
    return rotation[..., 0] * x + rotation[..., 1] * y + rotation[..., 2] * z


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the product [*, 3, 3] of two rotations."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(dim=-2)


@dataclass(frozen=True)
class Rigid:
    """A rigid transform: rotate, then translate."""

    rotation: Tensor
    translation: Tensor

    def apply(self, point: Tensor) -> Tensor:
        """Return transformed points [*, 3]."""
        return rotate(self.rotation, point) + self.translation

    def invert_apply(self, point: Tensor) -> Tensor:
        """Return the points [*, 3] that this transform would bring to the given ones."""
        return rotate(self.rotation.mT, point - self.translation)

    def compose(self, other: Rigid) -> Rigid:
        """Return the transform that applies `other` first."""
        return Rigid(product(self.rotation, other.rotation), self.apply(other.translation))

    def invert(self) -> Rigid:
        """Return the inverse."""
        inverse = self.rotation.mT
        return Rigid(inverse, -rotate(inverse, self.translation))

    def unsqueeze(self, dim: int) -> Rigid:
        """Insert a dimension among the leading ones; `dim` counts from their end."""
        assert dim < 0
        return Rigid(self.rotation.unsqueeze(dim - 2), self.translation.unsqueeze(dim - 1))

    def to_4x4(self) -> Tensor:
        """Return [*, 4, 4]."""
        top = torch.cat([self.rotation, self.translation[..., None]], dim=-1)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
        return torch.cat([top, bottom], dim=-2)


def from_4x4(matrix: Tensor) -> Rigid:
    """Take a homogeneous transform apart."""
    return Rigid(matrix[..., :3, :3], matrix[..., :3, 3])


def from_7(tensor: Tensor) -> Rigid:
    """Return the transform of unit quaternions and translations."""
    return Rigid(quaternion_rotation(tensor[..., :4]), tensor[..., 4:])


def from_three_points(negative_x: Tensor, origin: Tensor, xy: Tensor, eps: float = 1e-8) -> Rigid:
    """Return frames by Gram-Schmidt (algorithm 21).

    `negative_x` lies on the x axis before the origin, `xy` in the xy plane where y is positive; `eps`, in square
    angstroms, keeps degenerate frames finite.
    """
    x = _unit(origin - negative_x, eps)
    y = xy - origin
    y = _unit(y - x * _dot(x, y), eps)
    return Rigid(torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1), origin)


Terms = tuple[tuple[tuple[float, str], ...], ...]

_ROTATION: Terms = (
    ((1, "aa"), (1, "bb"), (-1, "cc"), (-1, "dd")), ((2, "bc"), (-2, "ad")), ((2, "bd"), (2, "ac")),
    ((2, "bc"), (2, "ad")), ((1, "aa"), (-1, "bb"), (1, "cc"), (-1, "dd")), ((2, "cd"), (-2, "ab")),
    ((2, "bd"), (-2, "ac")), ((2, "cd"), (2, "ab")), ((1, "aa"), (-1, "bb"), (-1, "cc"), (1, "dd")),
)  # fmt: skip
_HAMILTON: Terms = (
    ((1, "aa"), (-1, "bb"), (-1, "cc"), (-1, "dd")), ((1, "ab"), (1, "ba"), (1, "cd"), (-1, "dc")),
    ((1, "ac"), (-1, "bd"), (1, "ca"), (1, "db")), ((1, "ad"), (1, "bc"), (-1, "cb"), (1, "da")),
)  # fmt: skip


@cache
def _table(terms: Terms, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where sums of up to four terms find their products of components [out, 4], and what these are times."""
    filled = [[*one, *[(0.0, "aa")] * (4 - len(one))] for one in terms]
    places = [["abcd".index(pair[0]) * 4 + "abcd".index(pair[1]) for _, pair in one] for one in filled]
    with torch.inference_mode(False):
        factors = torch.tensor([[factor for factor, _ in one] for one in filled], device=device)
        return torch.tensor(places, device=device), factors


def _combine(p: Tensor, q: Tensor, terms: Terms) -> Tensor:
    """Return sums of products of the components of quaternions [*, 4], [*, out], added up in the order of the terms."""
    places, factors = _table(terms, p.device)
    products = (p[..., :, None] * q[..., None, :]).flatten(-2)
    first, second, third, fourth = (products[..., places] * factors.to(products.dtype)).unbind(-1)
    total: Tensor = first + second + third + fourth
    return total


def quaternion_rotation(quaternion: Tensor) -> Tensor:
    """Return the rotations [*, 3, 3] of unit quaternions."""
    rotation: Tensor = _combine(quaternion, quaternion, _ROTATION).unflatten(-1, (3, 3))
    return rotation


def quaternion_product(p: Tensor, q: Tensor) -> Tensor:
    """Return the Hamilton product [*, 4]."""
    return _combine(p, q, _HAMILTON)


def normalise(quaternion: Tensor) -> Tensor:
    """Return quaternions of length 1."""
    length: Tensor = torch.linalg.vector_norm(quaternion, dim=-1, keepdim=True)
    return quaternion / length


def _unit(vector: Tensor, eps: float) -> Tensor:
    return vector / torch.sqrt(_dot(vector, vector) + eps)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return [*, 1]."""
    return (a * b).sum(dim=-1, keepdim=True)
