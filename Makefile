# `make demo` and `make test` set up all they need in this folder; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TESTS ?=
WORKERS ?= 2
# Parts of the suite that have a command of their own, because they install or build something first.
SLOW := tests/clients tests/docker/live tests/helm/live tests/azure/live
COMPOSE_VERSION := v2.32.4
HELM_VERSION := v3.18.6
KUBECONFORM_VERSION := v0.6.7
TOFU_VERSION := v1.9.1
# The fork of a library that OpenTofu is built with; `go install` of a program does not follow that.
TOFU_HCL := github.com/hashicorp/hcl/v2@v2.20.1=github.com/opentofu/hcl/v2@v2.0.0-20240814143621-8048794c5c52
# One package at a time: building these takes memory and, on two cores, minutes.
GO_BUILD := GOBIN=$(CURDIR)/.tools GOFLAGS=-p=1 nice go install -ldflags='-s -w'

.DEFAULT_GOAL := help
.PHONY: help demo test test-clients test-docker test-helm test-azure docker-engine chaos faults bench bench-growth bench-overload bench-mirror wrk browser lint types audit format clean

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
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(or $(TESTS),$(SLOW:%=--ignore=%))

test-clients: $(VENV)/.dev ## Run one program with mlflow 2.9, 2.16, 2.22 and 3.17 against one server
	$(BIN)/python -m pytest -n $(WORKERS) tests/clients

test-docker: $(VENV)/.dev docker-engine .tools/docker-compose ## Build the image and run docker-compose.yml in an engine of its own (root, Debian; 5 minutes)
	$(BIN)/python -m pytest tests/docker/live

test-helm: $(VENV)/.dev .tools/helm .tools/kubeconform ## Render the chart over many values and judge it by Kubernetes' schemas (builds Helm first: needs Go)
	$(BIN)/python -m pytest tests/helm

test-azure: $(VENV)/.dev .tools/tofu ## Hold Bicep against Azure's SDK, Terraform against its provider's schema (builds OpenTofu first: needs Go, npm)
	$(BIN)/python -m pytest tests/azure

docker-engine:
	@command -v dockerd > /dev/null && command -v debootstrap > /dev/null \
		|| (apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends docker.io debootstrap) \
		|| (echo "this needs a Docker engine: apt-get install docker.io debootstrap" >&2; exit 1)

.tools/docker-compose:
	$(GO_BUILD) github.com/docker/compose/v2/cmd@$(COMPOSE_VERSION)
	mv .tools/cmd $@

.tools/helm:
	$(GO_BUILD) helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

.tools/tofu:
	mkdir -p .tools/build-tofu
	cd .tools/build-tofu && test -f go.mod || go mod init build
	cd .tools/build-tofu && go mod edit -replace=$(TOFU_HCL) -require=github.com/opentofu/opentofu@$(TOFU_VERSION)
	cd .tools/build-tofu && GOFLAGS=-p=1 nice go build -mod=mod -ldflags='-s -w' -o ../tofu github.com/opentofu/opentofu/cmd/tofu

.tools/kubeconform:
	$(GO_BUILD) github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM_VERSION)

chaos: $(VENV)/.dev ## Seeded faults, then source and workspace compared: make chaos SEEDS=200 [FIRST=n] [SEED=n] [LANES=2]
	$(BIN)/python -W ignore -m tests.chaos --seeds $(or $(SEEDS),20) $(if $(FIRST),--first $(FIRST)) $(if $(SEED),--seed $(SEED)) --lanes $(or $(LANES),2)

faults: $(VENV)/.dev ## Faults under load, into docs/faults.md (10 minutes; as root, with Debian's faketime): make faults [FAULT=name]
	$(BIN)/python -W ignore -m tests.faults $(if $(FAULT),--fault $(FAULT),--keep)

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
	rm -rf $(VENV) .venv-azureml .venv-azure-sdk .venv-clients .venv-bench-mlflow .venv-bench-fasttrackml .azurite .tools
