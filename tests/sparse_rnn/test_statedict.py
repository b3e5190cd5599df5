"""State dicts become models that compute what torch's modules do for packed sequences; other files are refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sartor.share.errors import InputRefusedError
from sartor.tools.sparse_rnn.pattern import Pattern
from sartor.tools.sparse_rnn.plan import Options
from sartor.tools.sparse_rnn.sparsify import sparsify
from sartor.tools.sparse_rnn.statedict import holds_state_dict, read_source, read_state_dict

WHOLE = Options(density=1.0, pattern=Pattern("unstructured", ()), values="fp32")
STEPS, WIDTH, HIDDEN = 7, 5, 6
LENGTHS = torch.tensor([3, 7, 1])
MODULES = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def module(kind: str, **options: Any) -> Any:
    """Make a module of drawn weights."""
    torch.manual_seed(1)
    return MODULES[kind](WIDTH, HIDDEN, **options)


def saved(state: dict[str, Any], path: Path, prefix: str = "") -> str:
    """Save a state dict by the suffix of a path."""
    named = {f"{prefix}{name}": value for name, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(named, path)
    else:
        torch.save(named, path)
    return str(path)


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("layers", "bias", "file"), [(2, True, "m.safetensors"), (1, False, "m.pt"), (3, True, "m.pth")]
)
def test_torch_agrees(kind: str, bidirectional: bool, layers: int, bias: bool, file: str, tmp_path: Path) -> None:
    made = module(kind, num_layers=layers, bidirectional=bidirectional, bias=bias)
    source = saved(made.state_dict(), tmp_path / file, "encoder.rnn.")
    sparsify(source, str(tmp_path / "out.onnx"), WHOLE, ["sparsify-rnn"])
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    x = torch.randn(STEPS, len(LENGTHS), WIDTH)
    initial = [torch.randn(layers * (1 + bidirectional), len(LENGTHS), HIDDEN) for _ in range(1 + (kind == "LSTM"))]
    with torch.no_grad():
        packed = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
        y, last = made(packed, tuple(initial) if kind == "LSTM" else initial[0])
    wanted = [pad_packed_sequence(y, total_length=STEPS)[0], *(last if kind == "LSTM" else [last])]
    session = onnxruntime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    feed = {"X": x.numpy(), "sequence_lens": LENGTHS.numpy().astype(np.int32)}
    feed |= {f"initial_{name}": state.numpy() for name, state in zip("hc", initial, strict=False)}
    assert [one.name for one in session.get_inputs()] == list(feed)
    assert [one.name for one in session.get_outputs()] == ["Y", "Y_h", "Y_c"][: len(wanted)]
    for ours, theirs in zip(session.run(None, feed), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {name: value.to(torch.bfloat16) for name, value in module("GRU").state_dict().items()}
    read = read_state_dict(saved(state, tmp_path / "m.safetensors"))
    tensor = read.model.ir.graph.initializers["l0.R"].const_value
    assert tensor is not None
    torch_R = state["weight_hh_l0"].float().numpy()
    np.testing.assert_array_equal(tensor.numpy()[0, :HIDDEN], torch_R[HIDDEN : 2 * HIDDEN])


def changed(name: str, value: Any) -> dict[str, Any]:
    """Return the state dict of an LSTM with one entry put in, or taken out for None."""
    state = dict(module("LSTM", num_layers=2).state_dict())
    if value is None:
        del state[name]
    else:
        state[name] = value
    return state


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"weight": torch.zeros(2)}, "no recurrent layer"),
        (changed("b.weight_ih_l0", torch.zeros(2)), "2 recurrent modules, '', 'b.'"),
        (nn.LSTM(WIDTH, HIDDEN, proj_size=2).state_dict(), "projections"),
        (changed("weight_hh_l1", None), "lacks 'weight_hh_l1'"),
        (changed("bias_ih_l0", None), "lacks 'bias_ih_l0'"),
        (changed("weight_ih_l0_reverse", torch.zeros(24, 5)), "lacks 'weight_hh_l0_reverse'"),
        (changed("weight_ih_l9", torch.zeros(24, 6)), "lacks 'weight_ih_l2'"),
        (changed("weight_hh_l0", torch.zeros(12, 6)), r"weight_hh_l0 has the shape \[12, 6\]"),
        (changed("weight_hh_l0", torch.zeros(24)), r"weight_hh_l0 has the shape \[24\]"),
        (changed("weight_ih_l1", torch.zeros(24, 5)), r"'weight_ih_l1' has the shape \[24, 5\], not \[24, 6\]"),
        (changed("weight_ih_l0", torch.tensor(0.0)), r"'weight_ih_l0' has the shape \[\]"),
        (changed("weight_ih_l0", torch.zeros(24, 0)), r"'weight_ih_l0' has the shape \[24, 0\]"),
        (changed("bias_hh_l1", torch.full((24,), 1e300, dtype=torch.float64)), "'bias_hh_l1' has numbers beyond"),
        (changed("bias_hh_l1", torch.zeros(24, dtype=torch.int32)), r"'bias_hh_l1' is torch.int32"),
    ],
)
@pytest.mark.parametrize("file", ["m.pt", "m.safetensors"])
def test_other_modules_are_refused(state: dict[str, Any], reason: str, file: str, tmp_path: Path) -> None:
    source = saved(state, tmp_path / file)
    with pytest.raises(InputRefusedError, match=reason) as caught:
        read_state_dict(source)
    assert caught.value.subject == source


class Code:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_never_run(legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight_ih_l0": Code()}, "m.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputRefusedError, match="damaged or holds more than tensors"):
        sparsify("m.pt", None, WHOLE, None)
    Path("m.pt").write_bytes(pickle.dumps(Code()))
    with pytest.raises(InputRefusedError, match="damaged or holds more than tensors"):
        sparsify("m.pt", None, WHOLE, None)
    assert not Path("ran").exists()


@pytest.mark.parametrize("file", ["m.pt", "m.safetensors"])
def test_files_cut_short_or_of_another_kind_are_refused(file: str, tmp_path: Path) -> None:
    source = Path(saved(module("LSTM").state_dict(), tmp_path / file))
    whole = source.read_bytes()
    for data in (whole[: len(whole) // 2], whole[:-1], whole[:40], b"", b"some text", bytes(100)):
        source.write_bytes(data)
        with pytest.raises(InputRefusedError, match=file):
            sparsify(str(source), None, WHOLE, None)


def test_an_archive_without_a_dict_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "m.pt")
    with pytest.raises(InputRefusedError, match="holds a list, not a state dict"):
        read_state_dict(str(tmp_path / "m.pt"))


def test_names_of_other_layers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = read_source(saved(changed("head.weight", torch.zeros(2)), tmp_path / "m.pt"))
    assert read.notes == ("left out, as no recurrent layer has such names: 'head.weight'",)
    assert "'head.weight'" in capsys.readouterr().err


def test_models_are_no_state_dicts(models: Path, tmp_path: Path) -> None:
    misnamed = tmp_path / "model.pt"
    misnamed.write_bytes((models / "recurrent.onnx").read_bytes())
    assert not holds_state_dict(str(misnamed))
    assert not holds_state_dict(str(tmp_path / "missing.pt"))
