# `make demo` and `make test` set up all they need in this folder; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TESTS ?=
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo test test-clients chaos bench bench-growth bench-overload bench-mirror wrk browser lint types audit format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || (echo "runmirror needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1)
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing runmirror and the demo's packages into $(VENV) (a minute or two) ..."
	$(PIP) install --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.created pyproject.toml client/pyproject.toml constraints.txt
	@echo "installing runmirror and the test packages into $(VENV) (a minute or two) ..."
	$(PIP) install --constraint constraints.txt --editable '.[dev]' --editable ./client
	@touch $@

demo: $(VENV)/.demo ## Train a model against runmirror and compare it with its copy in an (emulated) workspace
	$(BIN)/runmirror demo $(DEMO)

test: $(VENV)/.dev ## Run the tests; a part of them: make test TESTS=tests/runs
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(or $(TESTS),--ignore=tests/clients)

test-clients: $(VENV)/.dev ## Run one program with mlflow 2.9, 2.16, 2.22 and 3.17 against one server
	$(BIN)/python -m pytest -n $(WORKERS) tests/clients

chaos: $(VENV)/.dev ## Seeded faults, then source and workspace compared: make chaos SEEDS=200 [FIRST=n] [SEED=n] [LANES=2]
	$(BIN)/python -W ignore -m tests.chaos --seeds $(or $(SEEDS),20) $(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED)) --lanes $(or $(LANES),2)

bench-mirror: $(VENV)/.dev ## Measure how fast the mirror is and what it costs clients (20 minutes; BENCH=--help)
	$(BIN)/python -m tests.bench.mirror $(BENCH)

bench-growth: $(VENV)/.dev wrk ## Measure each row as data grows: make bench-growth BENCH="--runs 1e3,1e4 --points 1e6"
	$(BIN)/python -m tests.bench.growth $(BENCH)

bench-overload: $(VENV)/.dev wrk ## Measure 500 clients that ask for twice what can be done (2 minutes)
	$(BIN)/python -m tests.bench.overload $(BENCH)

bench: $(VENV)/.dev wrk .venv-bench-mlflow/.made .venv-bench-fasttrackml/.made ## Measure against mlflow server and FastTrackML: make bench BENCH="--row log-metric --rounds 3 --without mlflow"
	$(BIN)/python -m tests.bench $(BENCH)

wrk:
	@command -v wrk > /dev/null || (apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends wrk) \
		|| (echo "this needs wrk: apt-get install wrk" >&2; exit 1)

.venv-bench-mlflow/.made: constraints.txt
	$(PYTHON) -m venv .venv-bench-mlflow
	.venv-bench-mlflow/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt mlflow==3.17.2 psycopg2-binary
	@touch $@

.venv-bench-fasttrackml/.made:
	$(PYTHON) -m venv .venv-bench-fasttrackml
	.venv-bench-fasttrackml/bin/python -m pip --disable-pip-version-check --quiet install --no-deps fasttrackml==0.6.0
	@touch $@

browser: ## Install the Chromium that the browser tests drive (Debian, as root)
	apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium

lint: $(VENV)/.dev ## Check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## Check types
	$(BIN)/mypy

audit: $(VENV)/.dev ## Security rules over the package, and known holes of what it uses (asks PyPI)
	$(BIN)/ruff check --select S server
	$(PIP) install bandit pip-audit
	$(BIN)/bandit --quiet --recursive server --severity-level high
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

format: $(VENV)/.dev ## Put the code into the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environments and downloads
	rm -rf $(VENV) .venv-azureml .venv-clients .venv-bench-mlflow .venv-bench-fasttrackml .azurite
