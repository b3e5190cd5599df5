PYTHON ?= python3
WORKERS ?= 2
# The CPU build of torch is a tenth of the default one; `make TORCH_INDEX=https://pypi.org/simple` takes the CUDA build.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := .venv/bin
READY := .venv/.installed
MODELS := build/demo

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:
.PHONY: demo test test-all lint types bench gpu-wheels docs

demo: $(READY)
	$(BIN)/python examples/demo.py $(MODELS)

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	set -e; for script in benchmarks/*.py; do $(BIN)/python $$script; done

# What the GPU suite needs and a machine with torch, triton, onnx, onnxruntime and numba may lack; pure Python.
gpu-wheels: $(READY)
	$(BIN)/python -m pip download -q --no-deps -c constraints.txt -d build/gpu-wheels \
		onnx-ir onnx-shape-inference onnxscript pytest pluggy iniconfig

docs: $(READY)
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/picture.py
	$(BIN)/python docs/convergence.py

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet --no-deps --retries 1 --extra-index-url $(TORCH_INDEX) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable . --group dev
	touch $@
