# What a person types. Everything happens in .venv, which is made from pyproject.toml at first need.
#
# PyTorch's CUDA build is what PyPI has. Where its own index can be reached and no GPU is at hand, a tenth of that does:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
TORCH := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),)

# In processes of their own: Lightning, ONNX and scikit-learn bring threads and OpenMPs beside OpenVINO's and GDAL's, and a
# process that held them all has been seen to crash.
TRAINING := $(shell grep -lE "from train|import train|models.exporting|import onnx|import_onnx|import segmentation|import_rows|csmask" tests/test_*.py)
OTHERS := $(filter-out $(TRAINING),$(wildcard tests/test_*.py))

.PHONY: help env demo test test-slow test-all check format notebooks bench clean

help:
	@echo "make demo       run the main job on a real scene and look at the result"
	@echo "make test       run the tests (make test-all: the slow ones too)"
	@echo "make check      ruff, mypy --strict, import rules, the figures of the structure"
	@echo "make notebooks  run the notebooks"
	@echo "make bench      measure against MONAI, TorchGeo and plain dask (half an hour)"

env: $(VENV)/.made

$(VENV)/.made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Swathe needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "making the environment in $(VENV); PyTorch makes it some gigabytes, this takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: env
	$(BIN)/swathe demo -o demo-output

# Two processes, each with one thread for torch, which spins where cores are short; the one that is done first takes tests
# of the other. $(1): what pytest is asked for.
define tests
	@trap 'exit 130' INT; failed=0; for files in "$(TRAINING)" "$(OTHERS)"; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal $(1) $$files || failed=1; \
	done; exit $$failed
endef

test: env
	$(call tests,)

test-slow: env
	$(call tests,-m "slow and not gpu")

test-all: test test-slow

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m benchmarks.structure

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: env
	$(BIN)/python -m pytest tests/test_notebooks.py -m ""

bench: env
	$(BIN)/python -m pip install --quiet -e '.[bench]'
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.scale --quick
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.objects
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.chaos --quick
	$(BIN)/python -m benchmarks.faults --quick

clean:
	rm -rf $(VENV) demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
