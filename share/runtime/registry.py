"""Which executor makes the kernels of a function domain: a table, entry points, and what tests register."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import threading
import warnings
from types import MappingProxyType
from typing import Any, cast

from sartor.share.density import DensityTeller
from sartor.share.runtime.kernel import DeviceExecutor, Executor

ENTRY_POINTS = "sartor.executors"
"""The entry point group in which other packages name their executors; an entry's name is a function domain."""

DEVICE_ENTRY_POINTS = "sartor.device_executors"
"""The same for sessions of torch."""

DENSITY_ENTRY_POINTS = "sartor.densities"
"""The same for what tells the densities of coded weights in a model."""

_TABLES = MappingProxyType(
    {
        ENTRY_POINTS: MappingProxyType(
            {
                "sartor.fuse": "sartor.tools.fuse.kernel:kernel_for_call",
                "sartor.sparse_rnn": "sartor.tools.sparse_rnn.executor:kernel_for_call",
            }
        ),
        DEVICE_ENTRY_POINTS: MappingProxyType(
            {
                "sartor.fuse": "sartor.tools.fuse.gpu_call:kernel_for_call",
                "sartor.sparse_rnn": "sartor.tools.sparse_rnn.gpu.executor:kernel_for_call",
            }
        ),
        DENSITY_ENTRY_POINTS: MappingProxyType({"sartor.sparse_rnn": "sartor.tools.sparse_rnn.density:densities"}),
    }
)
_LOCK = threading.Lock()
_registered: dict[tuple[str, str], Any] = {}


def register(domain: str, executor: Executor) -> None:
    """Let an executor make the kernels of a domain, before any other."""
    with _LOCK:
        _registered[ENTRY_POINTS, domain] = executor


def register_device(domain: str, executor: DeviceExecutor) -> None:
    """Let an executor make the kernels of a domain for sessions of torch, before any other."""
    with _LOCK:
        _registered[DEVICE_ENTRY_POINTS, domain] = executor


def unregister(domain: str) -> None:
    """Undo `register` and `register_device`."""
    with _LOCK:
        for group in _TABLES:
            _registered.pop((group, domain), None)


def executor_for(domain: str) -> Executor | None:
    """Return the executor of a domain, or None where there is none; warns where one is named but can't be imported."""
    return cast("Executor | None", _find(ENTRY_POINTS, domain))


def device_executor_for(domain: str) -> DeviceExecutor | None:
    """Return the executor of a domain for sessions of torch, as `executor_for` does."""
    return cast("DeviceExecutor | None", _find(DEVICE_ENTRY_POINTS, domain))


def densities_for(domain: str) -> DensityTeller | None:
    """Return what tells the densities of weights that functions of a domain decode, as `executor_for` does."""
    return cast("DensityTeller | None", _find(DENSITY_ENTRY_POINTS, domain))


def _find(group: str, domain: str) -> Any:
    with _LOCK:
        executor = _registered.get((group, domain))
    return executor or _imported(group, domain)


@functools.cache
def _imported(group: str, domain: str) -> Any:
    """Import the executor that the table or an entry point names."""
    name = _TABLES[group].get(domain) or _entry_points(group).get(domain)
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        warnings.warn(f"{name}: cannot be imported ({error}); {domain} runs without kernels", RuntimeWarning, 4)
        return None


@functools.cache
def _entry_points(group: str) -> dict[str, str]:
    """Return the dotted names that installed packages give, by domain."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=group)}
