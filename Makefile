# Everything runs in a virtual environment that the first target makes: Python 3.11 or later is all that is needed.
#   make demo PYTHON=python3.13 VENV=/tmp/venv      make test ARGS="-k prefetch -x"

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

.PHONY: help demo test soak bench-check lint format types docs build clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

demo: $(VENV)/.installed ## run the example application on the memory driver, to its end
	$(BIN)/wippy-queue demo

test: $(VENV)/.installed-dev ## run the tests; those of a broker that does not answer are skipped
	$(BIN)/pytest $(ARGS)

soak: $(VENV)/.installed-dev ## run the long tests
	$(BIN)/pytest -m soak --timeout=1800 $(ARGS)

bench-check: $(VENV)/.installed-dev ## measure this engine against its asyncio variant; fail where it has become much slower
	$(BIN)/python -m wippy_queue.bench.check

lint: $(VENV)/.installed-dev ## check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(VENV)/.installed-dev ## put style and format right
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(VENV)/.installed-dev ## check the types
	$(BIN)/mypy

docs: $(VENV)/.installed-dev ## build the documentation; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

build: $(VENV)/.installed-dev ## build the source archive and the wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Two stamps: the demo needs the package alone, the rest needs the tools as well. Both are redone when setup.cfg changes.
$(VENV)/.installed: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[all,test,docs]'
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later was found; say where it is: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
