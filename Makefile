# `make` alone lists the targets. PYTHON chooses the interpreter: make test PYTHON=python3.12
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# pip's long talk, cut down to the large files that it fetches and to what is done.
define install
	@echo "Installing $(1) into $(VENV): several hundred MB, a few minutes the first time"
	@$(BIN)/python -m pip install --disable-pip-version-check --no-input --progress-bar off \
	    -c constraints.txt -e "$(1)" \
	  | awk '/^ *(Downloading|Using cached)/ && /[MG]B\)$$/ {print "  " $$2, $$3, $$4; fflush()} \
	         /^Installing collected/ {print "  unpacking", NF - 3, "packages"; fflush()}'
	@touch $@
endef

comma := ,

# Tests and tools on a small machine: two threads, idle ones asleep, no window, no hub.
QUIET_ENV := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} OMP_WAIT_POLICY=PASSIVE MPLBACKEND=Agg HF_HUB_OFFLINE=1

.PHONY: help demo test check format docs bench env clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.runtime ## compress sample scenes (or IMAGES=folder), print the table, write demo/
	@$(BIN)/gosvae demo --out demo $(if $(IMAGES),--images "$(IMAGES)")

test: $(VENV)/.dev ## run the tests (ARGS="-k word" chooses)
	@$(QUIET_ENV) $(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## lint, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## repair lint and formatting where it can be done by machine
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(VENV)/.docs ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

bench: $(VENV)/.dev ## measure speed and memory (ARGS are handed on)
	@$(BIN)/python benchmarks/run.py $(ARGS)

env: $(VENV)/.dev $(VENV)/.docs ## make the whole environment

clean: ## remove what was built; runs/ and the environment stay
	@rm -rf build dist site demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find $(wildcard src tests docs benchmarks) -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.runtime: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("gosvae needs Python 3.11 or later, and \
	$(PYTHON) is %d.%d: name a newer one, for example make $(or $(MAKECMDGOALS),demo) PYTHON=python3.11" % v[:2])'
	@test -x $(BIN)/python || echo "Making the environment $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	$(call install,.[jpegxl$(comma)plot])

$(VENV)/.dev: $(VENV)/.runtime
	$(call install,.[dev])

$(VENV)/.docs: $(VENV)/.runtime
	$(call install,.[docs])
