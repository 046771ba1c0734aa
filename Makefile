# Set-up is a by-product: each target builds .venv under constraints.txt where it is missing or out of date.
# Wanted on the machine: Python 3.11 or newer with pip, and make. pip's own settings are honoured.

# the interpreter that builds .venv
PYTHON ?= python3
# SMOKE=1 runs the demo or a study at its smallest size
SMOKE ?=
# the study to run
NAME ?= core
# test processes, one thread each; WORKERS=0 tests in this process
WORKERS ?= 2
# how many random and hostile inputs the fuzzer tries, and from which seed
CASES ?= 1000000
SEED ?= 0
# further arguments, e.g. make test ARGS="-k laws -x"
ARGS ?=

# A thread that waits sleeps: on a machine with other work, spinning threads take its cores from what they wait for.
export OMP_WAIT_POLICY ?= passive

BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq -c constraints.txt
WANTED := gradatim wants Python 3.11 or newer; say where it is: make PYTHON=/path/to/python3.12

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz lint docs study clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Build .venv (every other target does so by itself)
	@:

demo: $(STAMP) ## Learn a real table in one pass beside other learners, draw the curve (SMOKE=1: seconds)
	$(BIN)/gradatim demo $(if $(SMOKE),--smoke) $(ARGS)

test: $(STAMP) ## Run the tests (WORKERS=0: in one process; ARGS="-k laws")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(filter-out 0,$(WORKERS)),-n $(WORKERS)) $(ARGS)

fuzz: $(STAMP) ## Try random and hostile inputs (CASES=1000000, SEED=0; a quarter of an hour on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --cases $(CASES) --seed $(SEED) --workers $(if $(filter-out 0,$(WORKERS)),$(WORKERS),1) $(ARGS)

lint: $(STAMP) ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(STAMP) ## Build the documentation into docs/_build/html (an undocumented public name fails)
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "wrote docs/_build/html/index.html"

study: $(STAMP) ## Run a study, or go on with it (NAME=core, SMOKE=1)
	$(BIN)/python -m studies $(NAME) $(if $(SMOKE),--smoke) $(ARGS)

clean: ## Remove what was built, but not .venv and runs/
	rm -rf build dist docs/_build .pytest_cache .ruff_cache .hypothesis
	find src tests studies docs tutorials -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# torch first and alone: the build the constraints name is in place before anything else asks for one.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found. $(WANTED)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) --version 2>&1). $(WANTED)" >&2; exit 1; }
	@echo "building .venv (once; a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(PIP) torch
	@$(PIP) -e '.[dev]'
	@touch $@
