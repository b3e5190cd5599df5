"""Which executor makes the kernels of a function domain: a table, entry points, and what tests register."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import threading
import warnings
from types import MappingProxyType

from sartor.share.runtime.kernel import Executor

ENTRY_POINTS = "sartor.executors"
"""The entry point group in which other packages name their executors; an entry's name is a function domain."""

_TABLE = MappingProxyType({"sartor.fuse": "sartor.tools.fuse.kernel:kernel_for_call"})
_LOCK = threading.Lock()
_registered: dict[str, Executor] = {}


def register(domain: str, executor: Executor) -> None:
    """Let an executor make the kernels of a domain, before any other."""
    with _LOCK:
        _registered[domain] = executor


def unregister(domain: str) -> None:
    """Undo `register`."""
    with _LOCK:
        _registered.pop(domain, None)


def executor_for(domain: str) -> Executor | None:
    """Return the executor of a domain, or None where there is none; warns where one is named but can't be imported."""
    with _LOCK:
        executor = _registered.get(domain)
    return executor or _imported(domain)


@functools.cache
def _imported(domain: str) -> Executor | None:
    """Import the executor that the table or an entry point names."""
    name = _TABLE.get(domain) or _entry_points().get(domain)
    if name is None:
        return None
    module, _, attribute = name.partition(":")
    try:
        executor: Executor = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        warnings.warn(f"{name}: cannot be imported ({error}); {domain} runs without kernels", RuntimeWarning, 3)
        return None
    return executor


@functools.cache
def _entry_points() -> dict[str, str]:
    """Return the dotted names that installed packages give, by domain."""
    return {entry.name: entry.value for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}
