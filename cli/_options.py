"""The options that commands share, each spelled once, and the parsers of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from sartor.share.errors import UsageError

Model = Annotated[str, typer.Argument(metavar="MODEL", help="ONNX model; - is stdin.")]
Output = Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="Where to write; - is stdout.")]
Threads = Annotated[
    int | None,
    typer.Option(
        "-@",
        "--threads",
        min=1,
        metavar="N",
        help="Threads to use; by default SLURM_CPUS_PER_TASK or the cores this process may run on.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.")]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="Where to run: cpu, cuda or cuda:N.")]
Report = Annotated[str | None, typer.Option("--report", metavar="FILE", help="Write a report as JSON to this file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]
NoHistory = Annotated[bool, typer.Option("--no-history", help="Do not append a history record to the output.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=SIZES", help="Sizes of an input (ids=1,128) or an axis (batch=4)."),
]

Pack = Annotated[
    str | None,
    typer.Option("--pack", metavar="FILE", help="Packed weights of the model, as sparsify-rnn --pack writes them."),
]
Shard = Annotated[
    str, typer.Option("--shard", metavar="I/N", help="Do the I-th of N parts, as in a job array; 1/1 is all of it.")
]


def parse_shard(text: str) -> tuple[int, int]:
    """Return which part of how many; raises UsageError for anything but `I/N` with 1 <= I <= N."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and text.isascii() and 1 <= int(number) <= int(count)):
        raise UsageError("it is no part", subject=f"--shard {text}", remedy="Write it as --shard 3/8, from 1/8 to 8/8")
    return int(number), int(count)


def parse_shapes(texts: Sequence[str] | None) -> dict[str, tuple[int, ...]]:
    """Return the sizes by input name; raises UsageError for anything but `NAME=SIZE,SIZE,...` once a name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts or ():
        # Names of tensors may contain an equals sign themselves.
        name, _, sizes = text.rpartition("=")
        if not name:
            raise _bad_shape(text, "a shape is a name, an equals sign and sizes")
        if name in shapes:
            raise _bad_shape(text, "this input already has a shape")
        shapes[name] = tuple(_parse_size(size, text) for size in sizes.split(","))
    return shapes


def _parse_size(size: str, text: str) -> int:
    if not (size.isascii() and size.isdecimal()):
        raise _bad_shape(text, f"{size!r} is not a size")
    return int(size)


def _bad_shape(text: str, reason: str) -> UsageError:
    return UsageError(reason, subject=f"--shape {text}", remedy="Write it as --shape ids=1,128")
