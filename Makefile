# Every target makes the part of .venv that it needs; `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The first Python of the right version; `make PYTHON=…` chooses another.
RIGHT := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(RIGHT)' >/dev/null 2>&1 && { echo $$p; break; }; done)

# The CPU build of torch is a tenth of the size, where an index offers it.
TORCH_CPU := torch==2.13.0+cpu

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-rdma test-parity proto

help:
	@echo "make demo         one worker becomes four while it serves, in this terminal"
	@echo "make test         ruff, mypy, import-linter and pytest"
	@echo "make test-rdma    RDMA in a virtual machine, or on \$$JSCALE_RDMA_DEVICES"
	@echo "make test-parity  compares the model live with torch and transformers"
	@echo "make setup        .venv with every extra that CPU users need"
	@echo "make proto        regenerates jscale/proto/v1 from its .proto"

setup: $(VENV)/.test $(VENV)/.bench

demo: $(VENV)/.base
	@$(BIN)/python -m jscale.launch.demo $(DEMO_FLAGS)

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not parity" $(PYTEST_FLAGS)

test-rdma: $(VENV)/.test
	tests/rdma/run $(VENV) $(PYTEST_FLAGS)

test-parity: $(VENV)/.parity
	$(BIN)/python -m pytest tests/parity $(PYTEST_FLAGS)

proto: $(VENV)/.python
	PYTHON=$(BIN)/python jscale/proto/regenerate.sh

# A stamp for each part of the environment, older than what it was made from.

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "jscale needs Python 3.11, 3.12 or 3.13, and found\
	 $$(python3 --version 2>/dev/null || echo none); install one, then: make\
	 PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c '$(RIGHT)' || { echo "$(PYTHON) is $$($(PYTHON) --version): jscale\
	 needs Python 3.11, 3.12 or 3.13; try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	 exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.base: $(VENV)/.python pyproject.toml
	@echo "installing jscale: a minute or two"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	@echo "installing what tests need"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	@echo "installing what benches need"
	@$(PIP) --editable '.[bench]'
	@touch $@

$(VENV)/.parity: $(VENV)/.test
	@echo "installing torch and transformers: some minutes"
	@$(PIP) '$(TORCH_CPU)' transformers 2>/dev/null || $(PIP) torch transformers
	@touch $@
