"""Demands on a plan: all nodes that a glob matches have to lie in one kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from sartor.share.errors import GoalNotMetError
from sartor.tools.fuse.options import Selection
from sartor.tools.fuse.plan import Plan, Verdict

SHOWN = 5
"""Nodes that a message names."""


def demand(plan: Plan, model: ir.Model, globs: Sequence[str]) -> Plan:
    """Return the plan with what it does not meet; each glob matches names of nodes or operator types."""
    owners = {node: verdict for verdict in plan.verdicts for node in verdict.group.nodes}
    unmet = [_unmet(plan, model, glob, owners) for glob in globs]
    return replace(plan, unmet=tuple(reason for reason in unmet if reason))


def require_met(plan: Plan, subject: str) -> None:
    """Raise GoalNotMetError unless a plan meets all demands."""
    if plan.unmet:
        remedy = "No model is written; see the plan with --dry-run"
        raise GoalNotMetError("; ".join(plan.unmet), subject=subject, remedy=remedy)


def _unmet(plan: Plan, model: ir.Model, glob: str, owners: Mapping[ir.Node, Verdict]) -> str:
    """Say which nodes lie outside the kept group with the most of them, or nothing."""
    chosen = Selection(only=(glob,))
    nodes = [node for graph in model.graphs() for node in graph if chosen.admits(node)]
    if not nodes:
        return f"no node has a name or an operator type like {glob!r}"
    kept = Counter(owners[node].group.id for node in nodes if node in owners and owners[node].kept)
    home = kept.most_common(1)[0][0] if kept else ""
    outside = [node for node in nodes if node not in owners or owners[node].group.id != home]
    if not outside:
        return ""
    reasons = [f"{_name(node)} ({_reason(node, owners.get(node), plan)})" for node in outside[:SHOWN]]
    more = [f"{len(outside) - SHOWN} more"] if len(outside) > SHOWN else []
    where = f"outside {home}" if home else "in no kernel"
    return f"{len(outside)} of {len(nodes)} nodes like {glob!r} are {where}: {', '.join([*reasons, *more])}"


def _reason(node: ir.Node, owner: Verdict | None, plan: Plan) -> str:
    if owner is None:
        return plan.refused.get(node.name or str(node.outputs[0].name), "not worth a kernel of its own")
    return f"in {owner.group.id}" if owner.kept else f"{owner.group.id} is left out: {owner.reason}"


def _name(node: ir.Node) -> str:
    return node.name or f"{node.op_type} {node.outputs[0].name}"
