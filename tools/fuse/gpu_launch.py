"""Running Triton kernels on tensors of torch, one or several in a launch, and compiling them ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sartor.tools.fuse import ops
from sartor.tools.fuse.gpu_compile import (
    FUSE_MULTIPLY_ADD,
    Resources,
    Target,
    compile_ahead,
    kernel_function,
    resources_of,
)  # fmt: skip
from sartor.tools.fuse.gpu_kernel import (
    Config,
    GpuKernel,
    Launch,
    bind,
    configurations,
    plan_launch,
    shapes,
)  # fmt: skip
from sartor.tools.fuse.render.triton_pack import render_pack
from sartor.tools.fuse.schedule import Root

if TYPE_CHECKING:
    import torch

Tensors = Sequence["torch.Tensor | None"]


class IndexOutOfRangeError(Exception):
    """A gather was given an index outside its axis."""


@dataclass(frozen=True)
class Prepared:
    """A kernel with all that one launch of it takes; `sizes` are those of its named sizes."""

    kernel: GpuKernel
    launch: Launch
    tensors: dict[str, torch.Tensor]
    sizes: tuple[int, ...]
    outputs: list[torch.Tensor]

    @property
    def arguments(self) -> list[Any]:
        """The arguments that are no constants."""
        return [*(self.tensors[name] for name in self.kernel.part.tensors), *self.sizes]


def processors_of(device: torch.device) -> int:
    """Count the multiprocessors of a device; the interpreter is one."""
    import torch

    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def prepare(kernel: GpuKernel, inputs: Tensors, config: Config | None = None) -> Prepared:
    """Find sizes and allocate outputs and scratch memory, on the device of the inputs.

    Raises SizesRefusedError for sizes that the kernel was not made for.
    """
    names = bind(kernel.program, [None if tensor is None else tuple(tensor.shape) for tensor in inputs])
    given = {f"x{i}": tensor.contiguous() for i, tensor in enumerate(inputs) if tensor is not None}
    device = next(iter(given.values())).device
    planned = plan_launch(kernel, config or configurations(kernel, names)[0], names, processors_of(device))
    outputs = [
        allocate(shape, torch_type(value.dtype.name), device)
        for shape, value in zip(shapes(kernel.program, names), kernel.program.outputs, strict=True)
    ]
    tensors = {**given, **{f"y{i}": tensor for i, tensor in enumerate(outputs)}, **_scratch(kernel, planned, device)}
    return Prepared(kernel, planned, tensors, tuple(names[name] for name in kernel.part.sizes.values()), outputs)


def launch(kernel: GpuKernel, inputs: Tensors, config: Config | None = None) -> list[torch.Tensor]:
    """Run a kernel on tensors of one device and return its outputs.

    Raises SizesRefusedError for sizes that it was not made for, IndexOutOfRangeError where a gather was given one.
    """
    ready = prepare(kernel, inputs, config)
    planned = ready.launch
    if planned.grid:
        function: Any = kernel_function(kernel.source)
        function[(planned.grid,)](*ready.arguments, **constants(kernel, planned), **options(planned))
        _check_status(ready)
    return ready.outputs


def launch_pack(kernels: Sequence[GpuKernel], inputs: Sequence[Tensors]) -> list[list[torch.Tensor]]:
    """Run independent kernels of one phase each in one launch, and return the outputs of each (kernel packing).

    Raises what `launch` does.
    """
    ready = [prepare(kernel, given) for kernel, given in zip(kernels, inputs, strict=True)]
    function: Any = kernel_function(render_pack([kernel.part for kernel in kernels]))
    ends = [sum(one.launch.grid for one in ready[: i + 1]) for i in range(len(ready))]
    if ends[-1]:
        arguments = [argument for one in ready for argument in one.arguments]
        settings = {
            f"p{i}_{key}": v for i, one in enumerate(ready) for key, v in constants(one.kernel, one.launch).items()
        }
        widest = max((one.launch for one in ready), key=lambda planned: planned.warps)
        function[(ends[-1],)](*arguments, *ends, **settings, **options(widest))
        for one in ready:
            _check_status(one)
    return [one.outputs for one in ready]


def _check_status(ready: Prepared) -> None:
    if "status" in ready.tensors and int(ready.tensors["status"].item()):
        raise IndexOutOfRangeError("a gathered index is out of range")


def _scratch(kernel: GpuKernel, planned: Launch, device: torch.device) -> dict[str, torch.Tensor]:
    import torch

    found = {
        f"m{i}": allocate((elements,), _compute_type(root), device)
        for i, (root, elements) in enumerate(zip(kernel.schedule.scratch, planned.scratch, strict=True))
    }
    zeros = {"gate": len(kernel.schedule.phases), "status": 1}
    for name, size in zeros.items():
        if name in kernel.part.tensors:
            found[name] = torch.zeros(size, dtype=torch.int32, device=device)
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
    return compile_ahead(kernel.source, signature, constants(kernel, planned), options(planned), target)


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
