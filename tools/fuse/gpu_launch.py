"""Running Triton kernels on tensors of torch, one or several in a launch, and compiling them ahead of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from sartor.share.triton_ahead import Resources, Target, compile_ahead, resources_of
from sartor.tools.fuse import ops
from sartor.tools.fuse.gpu_compile import FUSE_MULTIPLY_ADD, kernel_function
from sartor.tools.fuse.gpu_kernel import (
    Config,
    GpuKernel,
    Launch,
    configurations,
    plan_launch,
    shapes,
)  # fmt: skip
from sartor.tools.fuse.render.triton_pack import render_pack
from sartor.tools.fuse.schedule import Root

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor | None"]


@dataclass(frozen=True)
class Planned:
    """A kernel in a configuration, with the values of its program's named sizes and the parameters of a launch."""

    kernel: GpuKernel
    config: Config
    names: Mapping[str, int]
    launch: Launch

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The values of the sizes that the kernel takes."""
        return tuple(self.names[name] for name in self.kernel.part.sizes.values())

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the outputs."""
        return tuple(shapes(self.kernel.program, self.names))


@dataclass(frozen=True)
class Prepared:
    """A planned launch with its tensors."""

    planned: Planned
    tensors: dict[str, torch.Tensor]
    outputs: list[torch.Tensor]

    @property
    def arguments(self) -> list[Any]:
        """The arguments that are no constants."""
        return [*(self.tensors[name] for name in self.planned.kernel.part.tensors), *self.planned.sizes]


def plan(kernel: GpuKernel, names: Mapping[str, int], processors: int, config: Config | None = None) -> Planned:
    """Plan a launch for the values of a program's named sizes."""
    chosen = config or configurations(kernel, names)[0]
    return Planned(kernel, chosen, names, plan_launch(kernel, chosen, names, processors))


def prepare(planned: Planned, inputs: Tensors, status: torch.Tensor) -> Prepared:
    """Allocate outputs and scratch memory on the device of the status word."""
    kernel, device = planned.kernel, status.device
    given = {f"x{i}": tensor.contiguous() for i, tensor in enumerate(inputs) if tensor is not None}
    outputs = [
        allocate(shape, torch_type(value.dtype.name), device)
        for shape, value in zip(planned.shapes, kernel.program.outputs, strict=True)
    ]
    results = {f"y{i}": tensor for i, tensor in enumerate(outputs)}
    scratch = _scratch(kernel, planned.launch, device)
    return Prepared(planned, {**given, **results, **scratch, "status": status}, outputs)


def launch(planned: Planned, inputs: Tensors, status: torch.Tensor) -> list[torch.Tensor]:
    """Enqueue a kernel and return its outputs.

    `status` is an int32 on the device of the inputs that becomes 1 where a gathered index is out of range.
    """
    ready = prepare(planned, inputs, status)
    if planned.launch.grid:
        function: Any = kernel_function(planned.kernel.source)
        settings = {**constants(planned.kernel, planned.launch), **options(planned.launch)}
        function[(planned.launch.grid,)](*ready.arguments, **settings)
    return ready.outputs


def launch_pack(
    planned: Sequence[Planned], inputs: Sequence[Tensors], status: torch.Tensor
) -> list[list[torch.Tensor]]:
    """Enqueue independent kernels of one phase each as one launch, and return the outputs of each (kernel packing)."""
    ready = [prepare(one, given, status) for one, given in zip(planned, inputs, strict=True)]
    function: Any = kernel_function(render_pack([one.kernel.part for one in planned]))
    ends = list(accumulate(one.launch.grid for one in planned))
    if ends[-1]:
        arguments = [argument for one in ready for argument in one.arguments]
        fixed = [constants(one.kernel, one.launch).items() for one in planned]
        settings = {f"p{i}_{key}": value for i, items in enumerate(fixed) for key, value in items}
        widest = max((one.launch for one in planned), key=lambda launch: launch.warps)
        function[(ends[-1],)](*arguments, *ends, **settings, **options(widest))
    return [one.outputs for one in ready]


def _scratch(kernel: GpuKernel, planned: Launch, device: torch.device) -> dict[str, torch.Tensor]:
    import torch

    found = {
        f"m{i}": allocate((elements,), _compute_type(root), device)
        for i, (root, elements) in enumerate(zip(kernel.schedule.scratch, planned.scratch, strict=True))
    }
    if "gate" in kernel.part.tensors:
        # In a CUDA graph this is a node of its own, so that every replay starts from zero.
        found["gate"] = torch.zeros(len(kernel.schedule.phases), dtype=torch.int32, device=device)
    return found


def _compute_type(root: Root) -> torch.dtype:
    return torch_type("FLOAT" if ops.compute_type(root.value.dtype) == "f32" else root.value.dtype.name)


def torch_type(name: str) -> torch.dtype:
    """Return torch's element type for that of ONNX."""
    import torch

    known = {"FLOAT": "float32", "DOUBLE": "float64"}
    found: torch.dtype = getattr(torch, known.get(name, name.lower()))
    return found


def allocate(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Make a tensor that is not yet written."""
    import torch

    return torch.empty(shape, dtype=dtype, device=device)


def constants(kernel: GpuKernel, planned: Launch) -> dict[str, Any]:
    import triton.language as tl

    ordered = {name: planned.constants[name] for name in kernel.part.constants if name != "INDEX"}
    return {**ordered, "INDEX": tl.int64 if planned.index_bits == 64 else tl.int32}


def options(planned: Launch) -> dict[str, Any]:
    return {
        "num_warps": planned.warps,
        "num_stages": 1,
        "enable_fp_fusion": FUSE_MULTIPLY_ADD,
        "launch_cooperative_grid": planned.cooperative,
    }


def resources(kernel: GpuKernel, planned: Launch, target: Target) -> Resources:
    """Compile a kernel ahead of time and read what it takes."""
    return resources_of(compiled(kernel, planned, target))


def compiled(kernel: GpuKernel, planned: Launch, target: Target) -> Any:
    """Compile a kernel ahead of time for the parameters of a launch."""
    signature = {name: f"*{_pointer(kernel, name)}" for name in kernel.part.tensors}
    signature |= dict.fromkeys(kernel.part.sizes, "i64" if planned.index_bits == 64 else "i32")
    function = kernel_function(kernel.source)
    return compile_ahead(function, signature, constants(kernel, planned), options(planned), target)


def _pointer(kernel: GpuKernel, name: str) -> str:
    """Name what a parameter points to as Triton does."""
    if name in ("gate", "status"):
        return "i32"
    place = int(name[1:])
    if name[0] == "m":
        kind = ops.compute_type(kernel.schedule.scratch[place].value.dtype)
    else:
        declared = kernel.program.inputs[place] if name[0] == "x" else kernel.program.types[place]
        assert declared is not None
        kind = ops.STORAGE[declared.dtype].memory
    return {"f16": "fp16", "bf16": "bf16", "f32": "fp32", "f64": "fp64", "b1": "i1"}.get(kind, kind)
