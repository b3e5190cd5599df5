"""How the operators of a kernel hand on their values, in the words of FusionStitching."""

from __future__ import annotations

from collections.abc import Sequence

from sartor.tools.fuse.schedule import Leaf, Loop, Schedule


def composition(parts: Sequence[Schedule]) -> str:
    """Name how the operators of a kernel hand on their values (FusionStitching, table 1).

    packing: parts of a kernel have no value in common; thread: in registers; warp: a row in cache between loops over
    it; block: several rows; global: one task does it all.
    """
    if len(parts) > 1:
        return "packing"
    (planned,) = parts
    if not any(root.folds for root in planned.roots):
        return "thread"
    if not planned.parallel:
        return "global"
    return "block" if _depth(planned.tree) > 1 else "warp"


def _depth(tree: Sequence[Loop | Leaf]) -> int:
    return max((1 + _depth(item.body) for item in tree if isinstance(item, Loop)), default=0)
