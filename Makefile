PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types unit lock clean

help:  ## what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /	/'

setup: .venv/.installed  ## create .venv and install everything, exactly as locked

.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Weibing needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## the whole way on a synthetic county, then serve it
	$(BIN)/weibing demo $(ARGS)

test: lint types unit  ## lint, types, all tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# A thread that waits for another spins, and takes its core from the other worker.
unit: export OPENBLAS_NUM_THREADS := 1
unit: export OMP_WAIT_POLICY := passive
unit: setup
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

lock:  ## resolve the newest versions within pyproject.toml's ranges
	uv pip compile pyproject.toml --extra dev --python-version 3.11 --universal --upgrade \
	    --generate-hashes --no-emit-index-url --quiet --output-file requirements.lock

clean:  ## remove what was made, but not mlruns/ and out/
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .coverage htmlcov build *.egg-info
