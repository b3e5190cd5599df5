"""What a kernel's work costs on a processor: the coefficients of the cost model, shipped or measured here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from sartor.share.doctor import Finding, State

SCHEMA = 1
FILE = "calibration.json"
VERSIONS = ("sartor", "numba", "llvmlite", "onnxruntime")
"""Packages that have a hand in how fast a kernel runs; the file says which ones were measured."""

Source = Literal["defaults", "calibrated", "data sheet"]


class CalibrationError(Exception):
    """A calibration file is damaged; the message says how."""


class OtherProcessorError(CalibrationError):
    """A calibration file is of another processor."""


@dataclass(frozen=True)
class Caches:
    """Bytes of the caches: first and second level of one core, third level of all."""

    l1: int = 48 << 10
    l2: int = 1 << 20
    l3: int = 32 << 20


@dataclass(frozen=True)
class KernelRates:
    """Nanoseconds a unit of each feature of a kernel (features.py says what is counted)."""

    call: float
    argument: float
    fork: float
    task: float
    run: float
    fold: float
    light: float
    expensive: float
    chained: float
    scalar: float
    scalar_expensive: float
    library: float
    near: float
    l2: float
    l3: float
    memory: float
    strided: float
    strided_l2: float
    strided_l3: float
    gathered: float
    scratch: float


@dataclass(frozen=True)
class StockRates:
    """Nanoseconds a unit of what onnxruntime does to run nodes one by one; `work` scales the costs of ops.py."""

    call: float
    node: float
    work: float
    near: float
    l2: float
    l3: float
    memory: float


@dataclass(frozen=True)
class Coefficients:
    """The cost model of one processor."""

    kernel: KernelRates
    stock: StockRates
    caches: Caches = field(default_factory=Caches)
    source: Source = "defaults"


@dataclass(frozen=True)
class Quality:
    """How well predictions fit what was measured: samples, Spearman's rank correlation, relative errors."""

    samples: int
    rank_correlation: float
    median_error: float
    mean_error: float


@dataclass(frozen=True)
class Calibration:
    """Coefficients with what they were fitted on; `stock_quality` is that of the predictions for onnxruntime."""

    coefficients: Coefficients
    processor: str
    versions: Mapping[str, str]
    quality: Quality
    stock_quality: Quality

    def as_json(self) -> dict[str, Any]:
        """Return the document of the calibration file."""
        return {
            "schema": SCHEMA,
            "processor": self.processor,
            "versions": dict(self.versions),
            "quality": {"kernel": asdict(self.quality), "onnxruntime": asdict(self.stock_quality)},
            **{name: asdict(getattr(self.coefficients, name)) for name in ("caches", "kernel", "stock")},
        }


def processor() -> str:
    """Name the processor: its model and the vector extensions that kernels use."""
    from sartor.share.device import cpu

    found = cpu()
    return f"{found.model} ({' '.join(found.features)})"


def versions() -> dict[str, str]:
    """Return the versions of what has a hand in a kernel's time."""
    return {name: version(name) for name in VERSIONS}


def calibration_path() -> Path:
    """Return where this machine's calibration lies, or would lie."""
    from sartor.share.cache import cache_dir

    return cache_dir() / FILE


def read_calibration(path: Path) -> Calibration | None:
    """Read a calibration of this processor; None where there is no file.

    Raises OtherProcessorError for a file of another processor and CalibrationError for one that is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError("it can't be read") from error
    found = _parsed(text)
    if found.processor != processor():
        raise OtherProcessorError(f"it is of another processor, {found.processor}")
    return found


def _parsed(text: str) -> Calibration:
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise CalibrationError(f"its schema is {document['schema']!r}, not {SCHEMA}")
        rates = _numbers(KernelRates, document["kernel"]), _numbers(StockRates, document["stock"])
        coefficients = Coefficients(*rates, Caches(**_integers(document["caches"])), "calibrated")
        quality = [_quality(document["quality"][side]) for side in ("kernel", "onnxruntime")]
        return Calibration(coefficients, str(document["processor"]), dict(document["versions"]), *quality)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError("it is damaged") from error


def _numbers(kind: Any, found: Mapping[str, float]) -> Any:
    """Make rates of a mapping that holds a finite number, not negative, for each name and nothing else."""
    numbers = {name: float(value) for name, value in found.items()}
    if not all(math.isfinite(value) and value >= 0 for value in numbers.values()):
        raise ValueError("not a rate")
    return kind(**numbers)


def _quality(found: Mapping[str, float]) -> Quality:
    numbers = {name: float(value) for name, value in found.items()}
    return Quality(samples=int(numbers.pop("samples")), **numbers)


def _integers(found: Mapping[str, int]) -> dict[str, int]:
    sizes = {name: int(size) for name, size in found.items()}
    if min(sizes.values()) <= 0:
        raise ValueError("not a cache")
    return sizes


def coefficients() -> Coefficients:
    """Return the coefficients of this machine's calibration, or those that ship; warn of a file that is of no use."""
    from sartor.share import console

    path = calibration_path()
    try:
        found = read_calibration(path)
    except CalibrationError as error:
        say = console.note if isinstance(error, OtherProcessorError) else console.warn
        say(f"{path}: {error}. Predictions use the defaults. Run sartor doctor --calibrate")
        return DEFAULTS
    return DEFAULTS if found is None else found.coefficients


def finding() -> Finding:
    """Report whether the cost model was calibrated on this machine, and how well it fits."""
    path = calibration_path()
    try:
        found = read_calibration(path)
    except CalibrationError as error:
        state: State = "ok" if isinstance(error, OtherProcessorError) else "warning"
        return Finding("fuse", "cost model", f"defaults; {path}: {error}", state, "Run sartor doctor --calibrate")
    if found is None:
        return Finding("fuse", "cost model", "defaults; sartor doctor --calibrate measures this machine")
    fit = found.quality
    facts = f"rank correlation {fit.rank_correlation:.3f}, median error {fit.median_error:.0%}"
    return Finding("fuse", "cost model", f"calibrated on {fit.samples} samples, {facts}")


def described() -> dict[str, Any]:
    """Return the entry of the cost model in the document of doctor."""
    try:
        found = read_calibration(calibration_path())
    except CalibrationError:
        found = None
    facts = {} if found is None else found.as_json()
    return {"coefficients": "defaults" if found is None else "calibrated", "quality": facts.get("quality")}


def names(rates: KernelRates | StockRates | type[KernelRates] | type[StockRates]) -> tuple[str, ...]:
    """List the features that rates belong to."""
    return tuple(entry.name for entry in fields(rates))


def caches_of(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> Caches:
    """Read the sizes of this machine's caches; what the system does not tell is as in the defaults."""
    known = Caches()
    sizes = {"l1": known.l1, "l2": known.l2, "l3": known.l3}
    for entry in folder.glob("index*"):
        try:
            level, kind, size = ((entry / name).read_text().strip() for name in ("level", "type", "size"))
            if kind != "Instruction" and f"l{level}" in sizes:
                sizes[f"l{level}"] = int(size.removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return Caches(**sizes)


# Fitted on 2026-11-26 to 204 samples on a virtual machine with two cores of an AMD EPYC (family 26, AVX-512, 1 MiB of
# second and 32 MiB of shared third cache); `fork` is an estimate, because the suite runs on one thread.
DEFAULTS = Coefficients(
    KernelRates(
        call=1631, argument=60.76, fork=3000, task=1.043, run=0, fold=2.356,
        light=0.1111, expensive=0.2452, chained=0.2755, scalar=3.243, scalar_expensive=4.775, library=0.3056,
        near=0.003052, l2=0.0003331, l3=0.004121, memory=0.01299,
        strided=0.1046, strided_l2=0.1379, strided_l3=3.973, gathered=0.2178, scratch=0.003668,
    ),
    StockRates(call=1653, node=211.7, work=0.8329, near=0.007411, l2=0, l3=0.001524, memory=0.007793),
)  # fmt: skip
