"""What the user asked of `fuse`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import onnx_ir as ir

from sartor.tools.fuse.plan import PlanKind


@dataclass(frozen=True)
class Selection:
    """Globs over node names and operator types: which nodes may be fused."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def admits(self, node: ir.Node) -> bool:
        """Tell whether a node may be fused."""
        wanted = not self.only or any(_matches(node, glob) for glob in self.only)
        return wanted and not any(_matches(node, glob) for glob in self.skip)

    def idle(self, model: ir.Model) -> tuple[str, ...]:
        """List the globs that match no node of a model."""
        nodes = [node for graph in model.graphs() for node in graph]
        return tuple(glob for glob in (*self.only, *self.skip) if not any(_matches(node, glob) for node in nodes))


def _matches(node: ir.Node, glob: str) -> bool:
    return any(fnmatchcase(name, glob) for name in (node.name or "", node.op_type))


@dataclass(frozen=True)
class Options:
    """What the user asked for; `shapes` gives sizes by input or axis name.

    `require` are globs of nodes that have to lie in one kernel, `library` is where compiled kernels go.
    """

    selection: Selection = field(default_factory=Selection)
    measure: bool = True
    verify: bool = True
    require: tuple[str, ...] = ()
    library: str | None = None
    device: str = "cpu"
    threads: int = 1
    seed: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    search: PlanKind = "search"
