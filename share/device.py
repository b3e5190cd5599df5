"""What this machine can compute on, and refusal of devices that it lacks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sartor.share.errors import UnavailableError, UsageError

_QUERY_SECONDS = 20
_QUERY = "index,name,memory.total,compute_cap,driver_version"
_TELLING_FEATURES = {
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16"),
    *("asimd", "asimdhp", "bf16", "sve", "sve2"),
}


@dataclass(frozen=True)
class Cpu:
    """The processor; `features` are the vector extensions that matter to kernels, `affinity` the cores we may use."""

    model: str
    features: tuple[str, ...]
    cores: int
    affinity: tuple[int, ...]


@dataclass(frozen=True)
class Gpu:
    """One CUDA device; memory in MiB, `capability` as `9.0`."""

    index: int
    name: str
    memory_mib: int
    capability: str
    driver: str


@dataclass(frozen=True)
class Devices:
    """Everything to compute on; `gpu_problem` says why the GPUs could not be listed, or is empty."""

    cpu: Cpu
    gpus: tuple[Gpu, ...]
    gpu_problem: str


def devices() -> Devices:
    """Return the facts about this machine without loading a GPU library."""
    gpus, problem = _list_gpus()
    return Devices(cpu(), gpus, problem)


def require(device: str) -> None:
    """Return when `cpu`, `cuda` or `cuda:N` can be used; raises UsageError or UnavailableError."""
    number = parse(device)
    if number is None:
        return
    count = _usable_gpus()
    if number >= count:
        reason = f"this installation can use {count} CUDA devices"
        raise UnavailableError(reason, subject=f"device {device}", remedy="Use the device cpu or see `sartor doctor`")


def parse(device: str) -> int | None:
    """Return the number of a CUDA device, None for the CPU; raises UsageError for another name."""
    match = re.fullmatch(r"cpu|cuda(?::(\d{1,4}))?", device)
    if match is None:
        raise UsageError("no such device", subject=f"device {device}", remedy="Use cpu, cuda or cuda:N")
    return None if device == "cpu" else int(match[1] or 0)


def _usable_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def cpu() -> Cpu:
    """Return the facts about the processor."""
    facts = parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    # x86 names the two lines one way, ARM the other.
    flags = set((facts.get("flags") or facts.get("Features", "")).split())
    model = facts.get("model name") or os.uname().machine
    affinity = tuple(sorted(os.sched_getaffinity(0)))
    return Cpu(model, tuple(sorted(flags & _TELLING_FEATURES)), os.cpu_count() or len(affinity), affinity)


def parse_cpuinfo(text: str) -> dict[str, str]:
    """Return the fields of the first processor in the text of /proc/cpuinfo."""
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _list_gpus() -> tuple[tuple[Gpu, ...], str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return (), ""
    command = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=True)
        return parse_gpus(answer.stdout), ""
    except subprocess.CalledProcessError as error:
        return (), (error.stdout or error.stderr).strip() or f"nvidia-smi exits with {error.returncode}"
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return (), f"nvidia-smi: {error}"


def parse_gpus(table: str) -> tuple[Gpu, ...]:
    """Return the devices of nvidia-smi's CSV answer; raises ValueError for text of another form."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.strip()]
    return tuple(
        Gpu(int(index), name, int(float(memory)), capability, driver)
        for index, name, memory, capability, driver in rows
    )
