"""The float64 twin of a model: nothing in it is rounded to a narrower type."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from sartor.share.double import run_double, run_twin, shaken, twin_of, widened

HEAD = '<ir_version: 10, opset_import: ["" : 20, "local" : 1]>'
TEXTS = {
    "constants": f"""{HEAD} g (float[n] x) => (float[n] y) {{
        a = Constant<value = float {{0.1}}>()  b = Constant<value_float = 0.1>()  c = Constant<value_floats = [0.1]>()
        d = Add(x, a)  e = Add(d, b)  y = Add(e, c) }}""",
    "casts": f"""{HEAD} g (float[n] x) => (float[n] y) {{
        h = Cast<to = 10>(x)  f = Cast<to = 1>(h)  t = Constant<value = float {{0.3}}>()  y = Add(f, t) }}""",
    "weights": f"{HEAD} g (float[n] x) => (float[n] y) <float[1] w = {{0.3}}> {{ y = Add(x, w) }}",
    "function": f"""{HEAD} g (float[n] x) => (float[n] y) {{ y = local.shift(x) }}
        <domain: "local", opset_import: ["" : 20]> shift (a) => (b) {{
            t = Constant<value = float {{0.3}}>()  b = Add(a, t) }}""",
    "branch": f"""{HEAD} g (float[n] x) => (float[n] y) {{
        yes = Constant<value = bool {{1}}>()
        y = If(yes) <then_branch = t () => (float[n] p) {{ c = Constant<value = float {{0.3}}>()  p = Add(x, c) }},
                     else_branch = e () => (float[n] q) {{ q = Identity(x) }}> }}""",
    "fill": f"""{HEAD} g (float[n] x) => (float[n] y) {{
        s = Shape(x)  z = ConstantOfShape(s)  t = Constant<value = float {{0.3}}>()  a = Add(x, t)  y = Add(a, z) }}""",
}


@pytest.mark.parametrize("case", TEXTS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_nothing_is_rounded(case: str, dtype: Any) -> None:
    model = onnx.parser.parse_model(TEXTS[case])
    before = model.SerializeToString()
    x = np.array([0.1, 1.0, 3.0], dtype)
    (y,) = run_double(model, {"x": x})
    addend = 3 * float(np.float32(0.1)) if case == "constants" else float(np.float32(0.3))
    if case == "constants":
        # Attributes that are plain numbers are float32 too, and not those of the text.
        assert y.dtype == np.float64
    np.testing.assert_allclose(y, x.astype(np.float64) + addend, rtol=1e-15)
    assert model.SerializeToString() == before


def test_float16_is_widened() -> None:
    text = f"{HEAD} g (float16[n] x, int64[n] i) => (float16[n] y, int64[n] j) {{ y = Mul(x, x)  j = Add(i, i) }}"
    model = onnx.parser.parse_model(text)
    assert [value.type.tensor_type.elem_type for value in widened(model).graph.input] == [11, 7]
    y, j = run_double(model, {"x": np.full(2, 300, np.float16), "i": np.full(2, 3)})
    assert (y.dtype, j.dtype) == (np.float64, np.int64)
    np.testing.assert_array_equal(y, 90000.0)


def test_shaken_results_show_what_cancels() -> None:
    text = f"""{HEAD} g (float[n] x, float[1] b) => (float[n] good, float[1] bad, int64[1] n) {{
        y = Add(x, b)  good = Mul(y, y)  one = Constant<value = int64[1] {{0}}>()
        m = ReduceMean(y, one)  mm = Mul(m, m)  s = ReduceMean(good, one)  bad = Sub(s, mm)  n = Shape(x) }}"""
    twin = twin_of(onnx.parser.parse_model(text))
    feed = {"x": np.linspace(-1, 1, 50, dtype=np.float32), "b": np.full(1, 100, np.float32)}
    exact = run_twin(twin, feed)
    moved = [run_twin(shaken(twin, 1e-9, [seed]), feed) for seed in range(4)]
    good, bad, sizes = (max(np.max(np.abs(a[i] / exact[i] - 1)) for a in moved) for i in range(3))
    assert 1e-10 < good < 4e-9
    assert 1e-6 < bad < 1e-3
    assert sizes == 0
    np.testing.assert_array_equal(run_twin(twin, feed)[1], exact[1])


def test_an_operator_without_a_reference_is_an_error() -> None:
    text = (
        '<ir_version: 10, opset_import: ["com.example" : 1]> g (float[n] x) => (float[n] y) { y = com.example.Odd(x) }'
    )
    with pytest.raises(Exception, match="Odd"):
        run_double(onnx.parser.parse_model(text), {"x": np.zeros(2, np.float32)})
