"""Guarded opening of HDF5 files: what they show must lie in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sartor.share.artifact.contents import damaged, quote
from sartor.share.artifact.sniff import Kind, identify, refuse_unless
from sartor.share.errors import InputRefusedError

if TYPE_CHECKING:
    import h5py

_COPY_IN = "Copy the data into the file"


def open_hdf5(path: str | Path, mode: Literal["r", "r+"] = "r", *, whole: bool = True) -> h5py.File:
    """Open an HDF5 file after checking that nothing in it reaches outside; the caller closes it.

    Without `whole` nothing in it is checked yet, as that takes long in a file of many parts: take what is in it with
    `hdf5_item` alone. Raises InputRefusedError for external storage, links or sources, and for damage.
    """
    import h5py

    subject = str(path)
    refuse_unless(identify(path), Kind.HDF5, subject)
    try:
        file = h5py.File(path, mode)
    except OSError as error:
        raise _open_refusal(error, subject) from error
    try:
        if whole:
            _check(file, subject)
    except BaseException:
        file.close()
        raise
    return file


def hdf5_item(group: h5py.Group, path: str) -> Any:
    """Return the group or dataset at a path below a group after checking that all on the way lies in the file.

    Raises KeyError where there is none, and InputRefusedError for links and for data outside.
    """
    import h5py

    subject, item = os.fsdecode(group.file.filename), group
    for name in path.split("/"):
        if not isinstance(item, h5py.Group) or name not in item:
            raise KeyError(f"there is no {path}")
        where = f"{item.name.rstrip('/')}/{name}"
        if _is_soft_link(item, name, where, subject):
            raise InputRefusedError(f"{quote(where)} is a soft link", subject=subject, remedy=_COPY_IN)
        item = item[name]
        if isinstance(item, h5py.Dataset):
            _refuse_outside_data(where, item, subject)
    return item


def _open_refusal(error: OSError, subject: str) -> InputRefusedError:
    text = str(error)
    if "truncated" in text:
        return damaged("the HDF5 file is cut short", subject)
    if "lock" in text:
        return InputRefusedError("another process is writing it", subject=subject, remedy="Wait until it is done")
    return damaged("the HDF5 file is damaged", subject)


def _check(file: h5py.File, subject: str) -> None:
    try:
        soft: list[tuple[h5py.Group, str, str]] = []
        for name, dataset in _datasets(file, soft, subject):
            _refuse_outside_data(name, dataset, subject)
        # Resolved last: by then it is sure that no external link lies on the way.
        for group, name, path in soft:
            _refuse_dangling(group, name, path, subject)
    # h5py maps the failures of the HDF5 library on a damaged file to any of these.
    except (KeyError, OSError, RuntimeError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise damaged("the HDF5 file is damaged", subject) from error


def _datasets(
    file: h5py.File, soft: list[tuple[h5py.Group, str, str]], subject: str
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the datasets that hard links lead to, each once; collect soft links and refuse all others."""
    import h5py

    seen: set[int] = set()
    groups: list[h5py.Group] = [file]
    while groups:
        group = groups.pop()
        for name in group:
            path = f"{group.name.rstrip('/')}/{name}"
            if _is_soft_link(group, name, path, subject):
                soft.append((group, name, path))
                continue
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                yield path, item


def _is_soft_link(group: h5py.Group, name: str, path: str, subject: str) -> bool:
    """Tell a soft link from a hard one; refuse external and user-defined links, without following any."""
    from h5py import h5l

    kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
    if kind in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
        return bool(kind == h5l.TYPE_SOFT)
    title = "an external link" if kind == h5l.TYPE_EXTERNAL else "a link of an unknown kind"
    raise InputRefusedError(f"{quote(path)} is {title}", subject=subject, remedy=_COPY_IN)


def _refuse_dangling(group: h5py.Group, name: str, path: str, subject: str) -> None:
    try:
        group[name]
    # A target that is missing and a link in a circle are different errors to h5py.
    except (KeyError, OSError, RuntimeError):
        target = group.get(name, getlink=True).path
        raise InputRefusedError(
            f"{quote(path)} is a soft link to {quote(target)}, which is not in the file",
            subject=subject,
            remedy=_COPY_IN,
        ) from None


def _refuse_outside_data(name: str, dataset: h5py.Dataset, subject: str) -> None:
    if dataset.external:
        raise InputRefusedError(f"dataset {quote(name)} has external storage", subject=subject, remedy=_COPY_IN)
    if dataset.is_virtual and any(source.file_name != "." for source in dataset.virtual_sources()):
        raise InputRefusedError(f"dataset {quote(name)} is virtual, over other files", subject=subject, remedy=_COPY_IN)
