"""Models of several gigabytes in little memory; the sources are sparse files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper

GIGABYTES = 3

OPEN = """
import sys
import onnx_ir, onnx
from sartor.share.artifact import quickcheck, read_model, write_model

def high_water():
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) >> 10

def anonymous():
    text = open("/proc/self/status").read()
    return int(text.split("RssAnon:")[1].split()[0]) >> 10

before, before_anonymous = high_water(), anonymous()
model = read_model(sys.argv[1])
assert quickcheck(sys.argv[1]) is None
assert model.ir.graph.initializers["w0"].const_value.numpy()[5, 5] == 0
if len(sys.argv) > 2:
    write_model(model.ir, sys.argv[2])
print(high_water() - before, anonymous() - before_anonymous)
"""


@pytest.fixture
def huge_model(tmp_path: Path) -> Path:
    """Return the path of a model with one external weight a gigabyte, all zero and not on the disk."""
    rows = (1 << 30) // (4 * 4096)
    initialisers = []
    for index in range(GIGABYTES):
        tensor = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[rows, 4096])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "net.data"), ("offset", str(index << 30)), ("length", str(1 << 30))):
            tensor.external_data.add(key=key, value=value)
        initialisers.append(tensor)
    nodes = [helper.make_node("Gather", [f"w{index}", "i"], [f"y{index}"]) for index in range(GIGABYTES)]
    outputs = [helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, None) for index in range(GIGABYTES)]
    inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, [1])]
    model = helper.make_model(helper.make_graph(nodes, "huge", inputs, outputs, initialisers), ir_version=10)
    del model.opset_import[:]
    model.opset_import.add(domain="", version=20)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "net.data").touch()
    with (tmp_path / "net.data").open("r+b") as file:
        file.truncate(GIGABYTES << 30)
    return tmp_path / "net.onnx"


def memory_used(*arguments: Path) -> tuple[int, int]:
    """Return the growth of the peak and of the private resident memory, in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    peak, private = done.stdout.split()
    return int(peak), int(private)


def test_a_huge_model_opens_in_little_memory(huge_model: Path) -> None:
    assert max(memory_used(huge_model)) < 100


@pytest.mark.slow
def test_a_huge_model_is_written_in_little_memory(huge_model: Path, tmp_path: Path) -> None:
    assert max(memory_used(huge_model, tmp_path / "out.onnx")) < 200
    data = list(tmp_path.glob("out.*.data"))
    assert [path.stat().st_size for path in data] == [GIGABYTES << 30]
