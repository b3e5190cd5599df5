"""Draw `plan.svg`: the plan of one layer of the encoder that `examples/make_models.py` writes."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

import onnx_ir as ir

from sartor.tools.fuse.fuse import fuse
from sartor.tools.fuse.options import Options
from sartor.tools.fuse.plan import Group
from sartor.tools.fuse.regions import producers
from sartor.tools.fuse.stock import is_compute

FIRST, LAST = "layernormalization_4", "layernormalization_37"
"""The nodes between which the layer lies."""

SIZES = {"batch": (8,), "sequence": (128,)}

BOX_WIDTH, BOX_HEIGHT = 154, 20
COLUMN, ROW = 196, 44
LEFT, TOP = 60, 30
PAD, TITLE = 8, 15
"""Between boxes and the border of their group, and for the group's name above them."""

CHARACTER = 6.7
"""Pixels of one letter of the boxes."""

FAR = 5
"""Rows beyond which an edge runs at the left border of the picture."""

FILLS = ("#cfe3f7", "#d5efd2", "#fbe3c0", "#ead7f3", "#f9d3d6", "#d2eeee", "#efe9bd", "#e3dcd2")
STYLE = """<style>
text { font: 11px monospace; fill: #222 }
.group { stroke: #667; stroke-width: 1 }
.node { fill: #fff; stroke: #445 }
.compute { fill: #ccc; stroke: #777 }
.stock { fill: #fff; stroke: #777; stroke-dasharray: 4 3 }
.edge { fill: none; stroke: #555; marker-end: url(#tip) }
.packed { stroke: #667; stroke-width: 3; stroke-dasharray: 2 4 }
</style>
<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0L8 4L0 8z" fill="#555"/></marker>"""


@dataclass(frozen=True)
class Hull:
    """The box around connected nodes of a group."""

    group: Group
    left: float
    top: float
    right: float
    bottom: float


def picture(source: Path) -> str:
    """Plan a model without measuring and return the picture of its layer, the same on every call."""
    plan = fuse(str(source), None, Options(measure=False, verify=False, shapes=SIZES), None)
    nodes = layer(plan.kept[0].graph)
    places = arrange(nodes)
    owner = {node: group for group in plan.kept for node in group.nodes if node in places}
    hulls = list(surround(places, owner))
    fills = {group: FILLS[i % len(FILLS)] for i, group in enumerate(dict.fromkeys(owner.values()))}
    width, height = LEFT + 3 * COLUMN, max(y for _, y in places.values()) + BOX_HEIGHT + TOP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}">',
        *(STYLE, f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>'),
        *(draw_hull(hull, fills[hull.group]) for hull in hulls),
        *(draw_link(one, other) for one, other in pairwise(hulls) if one.group is other.group),
        *(draw_edge(places[p], places[node]) for node in nodes for p in before(node) if p in places),
        *(draw_node(node, places[node], owner) for node in nodes),
        *legend(),
    ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def layer(graph: ir.Graph) -> list[ir.Node]:
    """Return the nodes of the layer in topological order."""
    names = [node.name for node in graph]
    return list(graph)[names.index(FIRST) : names.index(LAST) + 1]


def before(node: ir.Node) -> list[ir.Node]:
    """Return the nodes that a node reads from, each once."""
    assert node.graph is not None
    return list(dict.fromkeys(producers(node, node.graph)))


def arrange(nodes: Sequence[ir.Node]) -> dict[ir.Node, tuple[float, float]]:
    """Place the upper left corners of boxes: a node lies one row below the lowest that it reads."""
    row: dict[ir.Node, int] = {}
    for node in nodes:
        row[node] = 1 + max((row[p] for p in before(node) if p in row), default=-1)
    rows = [[node for node in nodes if row[node] == number] for number in range(max(row.values()) + 1)]
    places: dict[ir.Node, tuple[float, float]] = {}
    for number, members in enumerate(rows):
        for i, node in enumerate(members):
            x = LEFT + (3 - len(members)) * COLUMN / 2 + i * COLUMN + (COLUMN - BOX_WIDTH) / 2
            places[node] = (x, TOP + number * ROW)
    return places


def surround(places: Mapping[ir.Node, tuple[float, float]], owner: Mapping[ir.Node, Group]) -> Iterator[Hull]:
    """Yield the box around each connected part of a group, parts of one group in turn."""
    for group in dict.fromkeys(owner.values()):
        rest = [node for node in group.nodes if node in places]
        while rest:
            part = [rest.pop(0)]
            for node in list(rest):
                if any(p in part for p in before(node)):
                    part.append(node)
                    rest.remove(node)
            xs, ys = zip(*(places[node] for node in part), strict=True)
            right, bottom = max(xs) + BOX_WIDTH + PAD, max(ys) + BOX_HEIGHT + PAD / 2
            yield Hull(group, min(xs) - PAD, min(ys) - TITLE, right, bottom)


def draw_hull(hull: Hull, fill: str) -> str:
    """Draw the background of a group with its name and composition."""
    width, height = hull.right - hull.left, hull.bottom - hull.top
    return (
        f'<rect class="group" x="{hull.left:g}" y="{hull.top:g}" width="{width:g}" height="{height:g}" rx="5"'
        f' fill="{fill}"/>\n'
        f'<text x="{hull.left + PAD:g}" y="{hull.top + 11:g}">{hull.group.id} {hull.group.composition}</text>'
    )


def draw_link(one: Hull, other: Hull) -> str:
    """Draw the line between two parts of a packed kernel."""
    y = (one.top + one.bottom) / 2
    return f'<line class="packed" x1="{one.right:g}" y1="{y:g}" x2="{other.left:g}" y2="{y:g}"/>'


def draw_edge(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Draw an edge: straight to the next row, else beside the boxes between."""
    (x, y), (to_x, to_y) = start, end
    middle, rows = BOX_WIDTH / 2, round((to_y - y) / ROW)
    below, half = y + BOX_HEIGHT, to_y + BOX_HEIGHT / 2
    if rows == 1:
        path = f"M{x + middle:g} {below:g}L{to_x + middle:g} {to_y:g}"
    elif x != to_x:
        path = f"M{x + middle:g} {below:g}V{half:g}H{to_x + (BOX_WIDTH if x > to_x else 0):g}"
    elif rows > FAR:
        path = f"M{x:g} {y + BOX_HEIGHT / 2:g}H{LEFT / 2:g}V{half:g}H{to_x:g}"
    else:
        lane = x + BOX_WIDTH + PAD / 2
        path = f"M{x + BOX_WIDTH:g} {y + BOX_HEIGHT / 2:g}H{lane:g}V{half:g}H{to_x + BOX_WIDTH:g}"
    return f'<path class="edge" d="{path}"/>'


def draw_node(node: ir.Node, place: tuple[float, float], owner: Mapping[ir.Node, Group]) -> str:
    """Draw the box of a node with its name."""
    kind = "compute" if is_compute(node.op_type) else "node" if node in owner else "stock"
    return draw_box(str(node.name), place, kind)


def draw_box(name: str, place: tuple[float, float], kind: str) -> str:
    """Draw a box with text in the middle."""
    assert CHARACTER * len(name) < BOX_WIDTH, name
    (x, y), middle = place, BOX_WIDTH / 2
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="2"/>\n'
        f'<text x="{x + middle:g}" y="{y + 14:g}" text-anchor="middle">{escape(name)}</text>'
    )


def legend() -> Iterator[str]:
    """Yield what boxes and lines mean, in the empty right column."""
    x, y = LEFT + 2 * COLUMN + (COLUMN - BOX_WIDTH) / 2, TOP + 12.0 * ROW
    kinds = {"compute": "compute", "stock": "left to onnxruntime", "node": "in a group"}
    for i, (kind, meaning) in enumerate(kinds.items()):
        yield draw_box(meaning, (x, y + i * ROW * 0.75), kind)
    y += 3 * ROW * 0.75 + BOX_HEIGHT / 2
    yield f'<line class="packed" x1="{x:g}" y1="{y:g}" x2="{x + 2 * PAD:g}" y2="{y:g}"/>'
    yield f'<text x="{x + 3 * PAD:g}" y="{y + 4:g}">one kernel</text>'


def main() -> None:
    """Write the picture, beside this file or where the command line says."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path, nargs="?", default=here / "plan.svg")
    target = parser.parse_args().target
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, here.parent / "examples" / "make_models.py", folder], check=True)
        target.write_text(picture(Path(folder) / "encoder.onnx"), encoding="utf-8")


if __name__ == "__main__":
    main()
