# Two commands set up everything themselves: `make demo` and `make test`. PYTHON may name another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types unit unit-all worker-test install docs clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Fedspect needs Python 3.10 or newer; name one with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/installed ## make the environment in .venv

demo: install ## train a federation of four plants on synthetic surfaces, from its closed form on (about a minute)
	$(BIN)/fedsim run --rounds 1

# A file's tests stay in one process, for they share what takes long to make; tests/conftest.py puts long files first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: SELECTED := -m "not slow"
test: lint types unit worker-test ## what must hold: style, types, arrows, tests on two Pythons

test-all: SELECTED :=
test-all: lint types unit-all worker-test ## all of it, also kills, faults and whole federations, with coverage

lint: install
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/mypy

unit: install
	$(PYTEST) $(SELECTED)

unit-all: install
	$(PYTEST) --cov --cov-report=term:skip-covered

worker-test: install ## the worker's side under CPython 3.8 with torch 2.1
	.ci/worker-test $(BIN)/uv $(SELECTED)

docs: install ## these pages as a site in site/, searchable
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs site

clean: ## remove the environments and the demo's output
	rm -rf .venv .venv-worker runs site
