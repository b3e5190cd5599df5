"""Say what an artifact is: interface, operators, fused groups, sparsity, history."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor.share.columns import column_table, read_columns
from sartor.share.density import density_table
from sartor.share.errors import InputRefusedError
from sartor.share.tables import Table

if TYPE_CHECKING:
    import h5py
    import onnx_ir as ir

    from sartor.share.density import MatrixDensity
    from sartor.share.history import Record

OUR_DOMAINS = "sartor."
"""What the domains of our functions start with."""

SOURCES = "sartor.sources"
"""The metadata key under which a call names the nodes that it replaced, as a JSON list."""

_SPARSEST = 10


@dataclass(frozen=True)
class TensorFact:
    """Name, element type and shape of an input, an output or a stored tensor; None is an unknown rank or size."""

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None

    def as_json(self) -> dict[str, Any]:
        """Return the fact as the JSON contracts spell it."""
        return {"name": self.name, "type": self.type, "shape": None if self.shape is None else list(self.shape)}


@dataclass(frozen=True)
class Group:
    """A function of ours: how often it is called, what it holds, and the nodes that its calls replaced."""

    name: str
    domain: str
    calls: int
    operators: dict[str, int]
    sources: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the group as the JSON contracts spell it."""
        return {
            "name": self.name,
            "domain": self.domain,
            "calls": self.calls,
            "nodes": sum(self.operators.values()),
            "operators": self.operators,
            "sources": list(self.sources),
        }


@dataclass(frozen=True)
class Description:
    """What an artifact holds; parts that its kind does not have are empty."""

    kind: str
    inputs: tuple[TensorFact, ...] = ()
    outputs: tuple[TensorFact, ...] = ()
    operators: dict[str, int] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    sparsity: dict[str, Any] | None = None
    densities: tuple[MatrixDensity, ...] = ()
    tensors: tuple[TensorFact, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    table: dict[str, list[Any]] | None = None
    history: tuple[Record, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the inspect document."""
        return {
            "schema": 1,
            "kind": self.kind,
            "inputs": [fact.as_json() for fact in self.inputs],
            "outputs": [fact.as_json() for fact in self.outputs],
            "operators": self.operators,
            "groups": [group.as_json() for group in self.groups],
            "sparsity": self.sparsity,
            "densities": [one.as_json() for one in self.densities],
            "tensors": [fact.as_json() for fact in self.tensors],
            "attributes": self.attributes,
            **({} if self.table is None else {"table": self.table}),
            "history": [record_json(record) for record in self.history],
        }


def describe(path: str | Path) -> Description:
    """Describe a model, HDF5 file or folder of such, safetensors file or run directory.

    Raises InputRefusedError for anything else.
    """
    from sartor.share.artifact import Kind, identify

    if str(path) == "-":
        return _describe_model(path)
    describers = {
        Kind.HDF5: _describe_hdf5,
        Kind.SAFETENSORS: _describe_safetensors,
        Kind.RUN_DIRECTORY: _describe_run_directory,
        Kind.FOLDER: _describe_folder,
    }
    # Whatever is none of these goes to the model reader, which refuses it by name.
    return describers.get(identify(path), _describe_model)(path)


def record_json(record: Record) -> dict[str, Any]:
    """Return a history record as the JSON contracts spell it."""
    return {
        "id": record.id,
        "tool": record.tool,
        "version": record.version,
        "argv": list(record.argv),
        "input_sha256": list(record.input_sha256),
        "parameters": dict(record.parameters),
        "seed": record.seed,
        "previous": record.previous,
    }


def tables(path: str, description: Description) -> list[Table]:
    """Lay a description out for people."""
    return [
        Table(path, ("", ""), (("kind", description.kind), *_sparsity_rows(description.sparsity))),
        _tensor_table("inputs", description.inputs),
        _tensor_table("outputs", description.outputs),
        Table("attributes", ("name", "value"), tuple((name, str(one)) for name, one in description.attributes.items())),
        column_table(description.table),
        _tensor_table("tensors", description.tensors),
        Table("operators", ("operator", "nodes"), tuple((name, str(n)) for name, n in description.operators.items())),
        _group_table(description.groups),
        _sparsest_table(description.sparsity),
        density_table(description.densities),
        _history_table(description.history),
    ]


def _describe_model(path: str | Path) -> Description:
    from sartor.share.artifact import read_model
    from sartor.share.history import read_onnx

    model = read_model(path)
    return Description(
        kind="onnx",
        inputs=tuple(map(_value_fact, model.ir.graph.inputs)),
        outputs=tuple(map(_value_fact, model.ir.graph.outputs)),
        operators=_counted(model.ir.graph.all_nodes()),
        groups=_groups(model.ir, model.source),
        sparsity=_sparsity(model.ir),
        densities=_densities(model.ir, model.source),
        history=tuple(read_onnx(model.ir, model.source)),
    )


def _describe_hdf5(path: str | Path) -> Description:
    import h5py

    from sartor.share.artifact import open_hdf5
    from sartor.share.history import read_hdf5

    found: list[TensorFact] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found.append(TensorFact(name, str(node.dtype), node.shape))

    with open_hdf5(path) as file:
        columns = read_columns(file)
        # A table tells what is in a file of many parts.
        if columns is None:
            file.visititems(visit)
        facts, history = _plain_attributes(file), tuple(read_hdf5(file, str(path)))
        return Description(kind="hdf5", tensors=tuple(found), attributes=facts, table=columns, history=history)


def _describe_folder(path: str | Path) -> Description:
    """Describe a folder of HDF5 files by their tables, one after the other."""
    paths = sorted(one for one in Path(path).glob("*.h5") if not one.name.startswith("."))
    if not paths:
        return _describe_model(path)
    parts = [(one.name, _describe_hdf5(one)) for one in paths]
    columns: dict[str, list[Any]] = {"file": []}
    names = dict.fromkeys(name for _, part in parts for name in part.table or {})
    for file, part in parts:
        table = part.table or {}
        count = len(next(iter(table.values()), []))
        columns["file"] += [file] * count
        for name in names:
            columns.setdefault(name, []).extend(table.get(name, [None] * count))
    history = {record.id: record for _, part in parts for record in part.history}
    facts = {"files": len(parts)}
    return Description("hdf5-folder", attributes=facts, table=columns, history=tuple(history.values()))


def _plain_attributes(file: h5py.File) -> dict[str, Any]:
    """Return the attributes of the root that are texts and numbers, but for our history."""
    from sartor.share.history import KEY

    found = {name: getattr(value, "item", lambda value=value: value)() for name, value in file.attrs.items()
             if name != KEY and getattr(value, "size", 1) == 1}  # fmt: skip
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def _describe_safetensors(path: str | Path) -> Description:
    from sartor.share.artifact import read_safetensors_header
    from sartor.share.history import read_safetensors

    header = read_safetensors_header(path)
    facts = tuple(TensorFact(name, entry.dtype, entry.shape) for name, entry in header.tensors.items())
    history = tuple(read_safetensors(header.metadata, str(path)))
    return Description(kind="safetensors", tensors=facts, history=history)


def _describe_run_directory(path: str | Path) -> Description:
    from sartor.share.history import read_run_directory

    return Description(kind="run-directory", history=tuple(read_run_directory(path)))


def _value_fact(value: ir.Value) -> TensorFact:
    shape = value.shape
    sizes = None if shape is None else tuple(axis if isinstance(axis, int) else axis.value for axis in shape)
    return TensorFact(str(value.name), "unknown" if value.type is None else _type_name(value.type), sizes)


def _type_name(type_: Any) -> str:
    """Spell a type as `float32`, or `sequence(float32)` and the like."""
    import onnx_ir as ir

    if isinstance(type_, ir.TensorType):
        return "string" if type_.dtype == ir.DataType.STRING else str(type_.dtype.numpy())
    return f"{type(type_).__name__.removesuffix('Type').lower()}({_type_name(type_.elem_type)})"


def _counted(nodes: Iterable[ir.Node]) -> dict[str, int]:
    """Count nodes by operator, the most frequent first."""
    counts = Counter(f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in nodes)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _groups(model: ir.Model, subject: str) -> tuple[Group, ...]:
    calls: dict[Any, list[ir.Node]] = {}
    for node in model.graph.all_nodes():
        if node.domain.startswith(OUR_DOMAINS):
            calls.setdefault(node.op_identifier(), []).append(node)
    return tuple(
        Group(
            function.name,
            function.domain,
            len(calls.get(identifier, ())),
            _counted(function.all_nodes()),
            tuple(source for node in calls.get(identifier, ()) for source in _sources(node, subject)),
        )
        for identifier, function in sorted(model.functions.items())
        if function.domain.startswith(OUR_DOMAINS)
    )


def _sources(node: ir.Node, subject: str) -> list[str]:
    try:
        names = json.loads(node.metadata_props.get(SOURCES, "[]"))
    except ValueError:
        names = None
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        reason = f"the metadata {SOURCES!r} of node {node.name!r} is no list of names"
        raise InputRefusedError(reason, subject=subject, remedy="Fuse the model again")
    return names


def _sparsity(model: ir.Model) -> dict[str, Any]:
    """Return zeros over all weights, and the matrices and kernels with the largest share of them."""
    from sartor.share.sparsity import count_zeros, counts_json

    counts = count_zeros(model)
    layers = [count for count in counts if count.zeros and count.rank > 1]
    sparsest = sorted(layers, key=lambda count: (-count.fraction, count.name))[:_SPARSEST]
    total = counts_json(sum(count.elements for count in counts), sum(count.zeros for count in counts))
    return {**total, "sparsest": [count.as_json() for count in sparsest]}


def _densities(model: ir.Model, subject: str) -> tuple[MatrixDensity, ...]:
    """Return the coded matrices of functions of ours, as the tool of their domain tells them."""
    domains = sorted({function.domain for function in model.functions.values()})
    if not any(domain.startswith(OUR_DOMAINS) for domain in domains):
        return ()
    from sartor.share.runtime.registry import densities_for

    tellers = [teller for domain in domains if (teller := densities_for(domain)) is not None]
    return tuple(one for teller in tellers for one in teller(model, subject))


def _tensor_table(title: str, facts: Iterable[TensorFact]) -> Table:
    rows = tuple((fact.name, fact.type, _shape_text(fact.shape)) for fact in facts)
    return Table(title, ("name", "type", "shape"), rows)


def _shape_text(shape: tuple[int | str | None, ...] | None) -> str:
    return "?" if shape is None else f"[{', '.join('?' if axis is None else str(axis) for axis in shape)}]"


def _group_table(groups: Iterable[Group]) -> Table:
    rows = tuple(
        (f"{group.domain}::{group.name}", str(group.calls), " ".join(f"{n}x{op}" for op, n in group.operators.items()))
        for group in groups
    )
    return Table("groups", ("function", "calls", "members"), rows)


def _sparsity_rows(sparsity: dict[str, Any] | None) -> tuple[tuple[str, str], ...]:
    if sparsity is None:
        return ()
    return (
        ("weights", f"{sparsity['elements']:,}"),
        ("zeros", f"{sparsity['zeros']:,} ({sparsity['fraction']:.2%})"),
    )


def _sparsest_table(sparsity: dict[str, Any] | None) -> Table:
    entries = sparsity["sparsest"] if sparsity else []
    rows = tuple((entry["name"], f"{entry['fraction']:.2%}", f"{entry['elements']:,}") for entry in entries)
    return Table("sparsest weights", ("name", "zeros", "elements"), rows)


def _history_table(history: Iterable[Record]) -> Table:
    rows = tuple((record.id, f"{record.tool} {record.version}", " ".join(record.argv)) for record in history)
    return Table("history", ("id", "tool", "command"), rows)
