"""Sizes, atoms, and the loops that are made of them."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from sartor.share.runtime.kernel import TensorType
from sartor.tools.fuse.axes import (
    Atom,
    Axis,
    NotEmittableError,
    Size,
    axis_size,
    fresh,
    parse_size,
    regroup,
    resolve,
    unify,
)  # fmt: skip
from sartor.tools.fuse.layout import Layout
from sartor.tools.fuse.program import Load, Program
from sartor.tools.fuse.tracer import apply, reduce, transpose

D = ir.DataType


def sizes(axis: Axis) -> list[str]:
    """Spell the sizes of an axis's atoms."""
    return [str(atom.size) for atom in resolve(axis)]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (768, Size(768)),
        ("batch", Size(1, ("batch",))),
        ("12*batch", Size(12, ("batch",))),
        ("b * 3 * a * 2", Size(6, ("a", "b"))),
        ("a + 1", Size(1, ("a + 1",))),
    ],
)
def test_parse_size(text: int | str, size: Size) -> None:
    """A product is taken apart; any other expression is one name."""
    assert parse_size(text) == size


@pytest.mark.parametrize("dim", [None, 0, -1])
def test_parse_size_refuses(dim: int | None) -> None:
    """Unknown and empty sizes have no loop."""
    with pytest.raises(NotEmittableError):
        parse_size(dim)


def test_over_divides_exactly() -> None:
    """A quotient exists if it does for every value of the names."""
    assert Size(12, ("a", "b")).over(Size(4, ("a",))) == Size(3, ("b",))
    assert Size(12).over(Size(5)) is None
    assert Size(12).over(Size(1, ("a",))) is None
    assert Size(4, ("a", "a")).over(Size(2, ("a",))) == Size(2, ("a",))


def test_unify_equal_sizes() -> None:
    """Two axes of one size become one atom."""
    left, right = fresh(Size(6)), fresh(Size(6))
    unify(left, right)
    assert resolve(left) == resolve(right)
    unify(left, right)
    assert sizes(left) == ["6"]


@pytest.mark.parametrize("swapped", [False, True])
def test_unify_splits(swapped: bool) -> None:
    """An atom meets the atoms that its axis was split into, from either side."""
    whole, split = fresh(Size(24, ("n",))), (Atom(Size(2, ("n",))), Atom(Size(4)), Atom(Size(3)))
    unify(*((split, whole) if swapped else (whole, split)))
    assert resolve(whole) == resolve(split)
    assert sizes(whole) == ["2*n", "4", "3"]


def test_unify_refuses_what_does_not_nest() -> None:
    """4 x 6 and 3 x 8 have no common loops, and 6 is not 5."""
    with pytest.raises(NotEmittableError):
        unify((Atom(Size(4)), Atom(Size(6))), (Atom(Size(3)), Atom(Size(8))))
    with pytest.raises(NotEmittableError):
        unify(fresh(Size(6)), fresh(Size(5)))
    with pytest.raises(NotEmittableError):
        unify(fresh(Size(6)), fresh(Size(1, ("n",))))


def test_regroup_joins_and_splits() -> None:
    """A reshape keeps the order of atoms and splits those that it cuts."""
    axes = (fresh(Size(1, ("n",))), fresh(Size(12)), fresh(Size(5)))
    joined = regroup(axes, (Size(12, ("n",)), Size(5)))
    assert [sizes(axis) for axis in joined] == [["n", "12"], ["5"]]
    split = regroup(axes, (Size(1, ("n",)), Size(3), Size(4), Size(1), Size(5)))
    assert [sizes(axis) for axis in split] == [["n"], ["3"], ["4"], [], ["5"]]
    assert sizes(axes[1]) == ["3", "4"]


@pytest.mark.parametrize("shape", [(4, 9), (6, 5), (6, 12), (6,)])
def test_regroup_refuses(shape: tuple[int, ...]) -> None:
    """A cut across the old axes, and another number of elements."""
    with pytest.raises(NotEmittableError):
        regroup((fresh(Size(6)), fresh(Size(6))), tuple(Size(size) for size in shape))


def load(position: int, shape: tuple[int | str, ...]) -> Load:
    """Read an input of float32."""
    return Load(D.FLOAT, tuple(fresh(parse_size(dim)) for dim in shape), position)


def loops(*outputs: object) -> list[list[str]]:
    """Lay programs out and spell the loops of every tensor in memory."""
    values = tuple(outputs)
    types = tuple(TensorType(D.FLOAT, tuple(str(axis_size(axis)) for axis in value.axes)) for value in values)
    return [[str(atom.size) for atom in string] for string in Layout(Program((), values, types)).memory()]


def test_layout_merges_what_no_tensor_separates() -> None:
    """Three axes that all tensors share in one order are one loop."""
    assert loops(apply("add", load(0, ("n", 3, 5)), load(1, ("n", 3, 5)))) == [["15*n"]] * 3


def test_layout_keeps_what_a_tensor_separates() -> None:
    """A broadcast, a transpose and a reduction each keep their own loops."""
    assert loops(apply("add", load(0, ("n", 3, 5)), load(1, (5,)))) == [["3*n", "5"], ["5"], ["3*n", "5"]]
    assert loops(transpose(load(0, (2, 3, 5)), (2, 0, 1))) == [["6", "5"], ["5", "6"]]
    assert loops(reduce("sum", load(0, (2, 3, 5)), [1, 2], True)) == [["2", "15"], ["2"]]
    assert loops(reduce("sum", load(0, (2, 3, 5)), [0, 2], True)) == [["2", "3", "5"], ["3"]]
