"""The facts about an installation, and which of them are wrong."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from sartor.share.device import Devices, devices
from sartor.share.errors import GoalNotMetError
from sartor.share.mounts import Mount, mount_of, parse_mounts

SCHEMA = 1
_COMPILER_SECONDS = 20

NEEDED = ("h5py", "numba", "onnx", "onnx_ir", "onnxruntime", "safetensors")
"""Modules without which models can't be read or run; importing torch as well would take seconds."""

State = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One fact; `warning` costs speed or comfort, `broken` keeps a command from working."""

    section: str
    name: str
    value: str
    state: State = "ok"
    advice: str = ""


@dataclass(frozen=True)
class Cache:
    """A folder that holds compiled kernels; the size in bytes."""

    name: str
    path: str
    size: int
    writable: bool
    file_system: str
    over_network: bool


@dataclass(frozen=True)
class Diagnosis:
    """Everything that doctor found."""

    devices: Devices
    caches: tuple[Cache, ...]
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings that keep commands from working."""
        return tuple(finding for finding in self.findings if finding.state == "broken")

    def as_json(self) -> dict[str, Any]:
        """Return the document that `sartor doctor --json` prints."""
        return {"schema": SCHEMA, "healthy": not self.broken, **asdict(self)}


def diagnose(more: Iterable[Finding] = ()) -> Diagnosis:
    """Look at versions, devices, caches, compiler, kernel library and Triton; `more` is what the tools found."""
    found = devices()
    caches = tuple(inspect_cache(name, path) for name, path in cache_folders().items())
    findings = (
        *version_findings(),
        *import_findings(NEEDED),
        *device_findings(found),
        *(cache_finding(cache) for cache in caches),
        compiler_finding(),
        library_finding(),
        triton_finding(),
        *more,
    )
    return Diagnosis(found, caches, findings)


def version_findings() -> Iterator[Finding]:
    """Report Python, sartor and each dependency against the range that sartor declares."""
    from packaging.requirements import Requirement

    yield Finding("versions", "python", platform.python_version())
    yield Finding("versions", "sartor", metadata.version("sartor"))
    for line in metadata.requires("sartor") or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate():
            yield dependency_finding(requirement.name, str(requirement.specifier))


def dependency_finding(name: str, accepted: str) -> Finding:
    """Report the installed version of one package; outside the accepted range is a warning, absent is broken."""
    from packaging.specifiers import SpecifierSet

    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding("versions", name, "missing", "broken", f"Run pip install '{name}{accepted}'")
    if SpecifierSet(accepted).contains(version, prereleases=True):
        return Finding("versions", name, version)
    return Finding("versions", name, version, "warning", f"Tested with {accepted} only")


def import_findings(modules: tuple[str, ...]) -> Iterator[Finding]:
    """Report each module that is installed and yet can't be imported."""
    for module in modules:
        try:
            import_module(module)
        except Exception as error:
            # Compiled code that does not fit the system raises whatever it likes.
            yield Finding(
                "versions", f"import {module}", f"{type(error).__name__}: {error}", "broken", "Install it anew"
            )


def device_findings(found: Devices) -> Iterator[Finding]:
    """Report the processor and the GPUs."""
    cpu = found.cpu
    yield Finding("devices", "cpu", f"{cpu.model}, {len(cpu.affinity)} of {cpu.cores} cores, {' '.join(cpu.features)}")
    for gpu in found.gpus:
        facts = f"{gpu.name}, {gpu.memory_mib} MiB, capability {gpu.capability}, driver {gpu.driver}"
        yield Finding("devices", f"cuda:{gpu.index}", facts)
    if found.gpu_problem:
        yield Finding("devices", "cuda", found.gpu_problem, "warning", "Check the NVIDIA driver")


def cache_folders() -> dict[str, Path]:
    """Return the folders that hold compiled kernels, by name."""
    from sartor.share.cache import cache_dir

    triton = os.environ.get("TRITON_CACHE_DIR")
    return {"kernels": cache_dir(), "triton": Path(triton) if triton else Path.home() / ".triton" / "cache"}


def inspect_cache(name: str, path: Path) -> Cache:
    """Measure one cache folder, which need not exist yet."""
    absolute = path.resolve()
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    mount = mount_of(absolute, mounts) or Mount(Path("/"), "unknown")
    return Cache(name, str(path), _size(absolute), _writable(absolute), mount.kind, mount.over_network)


def cache_finding(cache: Cache) -> Finding:
    """Judge one cache folder."""
    facts = f"{cache.path}, {cache.size / 2**20:.1f} MiB on {cache.file_system}"
    if not cache.writable:
        return Finding("caches", cache.name, f"{facts}, not writable", "broken", _cache_advice(cache))
    if cache.over_network:
        return Finding("caches", cache.name, f"{facts}, over the network", "warning", _cache_advice(cache))
    return Finding("caches", cache.name, facts)


def _cache_advice(cache: Cache) -> str:
    variable = {"kernels": "SARTOR_CACHE_DIR", "triton": "TRITON_CACHE_DIR"}[cache.name]
    return f"Set {variable} to a writable folder on a local disk"


def _size(folder: Path) -> int:
    return sum(_file_size(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)


def _file_size(path: str) -> int:
    # Another process may be filling or emptying the cache.
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def _writable(folder: Path) -> bool:
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def compiler_finding() -> Finding:
    """Report the C compiler that builds the kernel library: `$CC`, cc, gcc or clang."""
    wanted = (shlex.split(os.environ.get("CC", ""))[:1] or [""])[0]
    name = next((name for name in (wanted, "cc", "gcc", "clang") if name and shutil.which(name)), None)
    if name is None:
        return Finding(
            "compiler", "cc", "no C compiler", "warning", "Install one; without it every kernel call costs more"
        )
    try:
        answer = subprocess.run(
            [name, "--version"], capture_output=True, text=True, timeout=_COMPILER_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("compiler", name, f"does not run: {error}", "warning", "Set CC to a C compiler that works")
    return Finding("compiler", name, (answer.stdout.splitlines() or [name])[0])


def library_finding() -> Finding:
    """Report the custom-op library that brings kernels into onnxruntime sessions."""
    try:
        from sartor.share.runtime.library import library_path, library_status
    except ImportError as error:
        return Finding("runtime", "onnxruntime library", f"does not import: {error}", "broken", "Install sartor anew")
    # Sessions fall back to segments without it: slower, never broken.
    state: State = "warning" if library_path() is None else "ok"
    advice = "Make a C compiler work; without it every kernel call costs more" if state == "warning" else ""
    return Finding("runtime", "onnxruntime library", library_status(), state, advice)


def triton_finding() -> Finding:
    """Report whether Triton imports and for which targets it compiles."""
    try:
        from triton.backends import backends
    except Exception as error:
        # Triton loads compiled code of its own and of drivers: any error there must not end the diagnosis.
        advice = "GPU kernels can't be compiled; reinstall triton"
        return Finding("triton", "triton", f"{type(error).__name__}: {error}", "warning", advice)
    return Finding("triton", "triton", f"compiles for {', '.join(sorted(backends)) or 'nothing'}")


def table(diagnosis: Diagnosis) -> str:
    """Return the findings as lines of text, the advice below what is not as it should be."""
    width = max(len(finding.name) for finding in diagnosis.findings)
    lines: list[str] = []
    for finding in diagnosis.findings:
        lines.append(f"{finding.state:<8} {finding.name:<{width}}  {finding.value}")
        if finding.advice:
            lines.append(f"{'':<8} {'':<{width}}  {finding.advice}.")
    return "\n".join(lines)


def require_healthy(diagnosis: Diagnosis) -> None:
    """Raise GoalNotMetError when something is broken."""
    if diagnosis.broken:
        names = ", ".join(finding.name for finding in diagnosis.broken)
        advice = diagnosis.broken[0].advice
        raise GoalNotMetError(f"broken: {names}", remedy=advice)
