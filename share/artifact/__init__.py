"""Artifacts: reading is guarded, writing is atomic."""

from __future__ import annotations

from sartor.share.artifact.hdf5 import hdf5_item, open_hdf5
from sartor.share.artifact.intact import quickcheck, read_manifest
from sartor.share.artifact.model import Model
from sartor.share.artifact.read import read_model, read_stdin
from sartor.share.artifact.safetensors_header import (
    SafetensorsHeader,
    TensorEntry,
    check_safetensors,
    read_safetensors_header,
)
from sartor.share.artifact.save import write_model
from sartor.share.artifact.sniff import Kind, identify
from sartor.share.artifact.tensors import read_tensors, write_tensors
from sartor.share.artifact.write import atomic, check_target, make_folder, write_bytes

__all__ = [
    "Kind",
    "Model",
    "SafetensorsHeader",
    "TensorEntry",
    "atomic",
    "check_safetensors",
    "check_target",
    "hdf5_item",
    "identify",
    "make_folder",
    "open_hdf5",
    "quickcheck",
    "read_manifest",
    "read_model",
    "read_safetensors_header",
    "read_stdin",
    "read_tensors",
    "write_bytes",
    "write_model",
    "write_tensors",
]
