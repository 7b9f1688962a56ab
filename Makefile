# Targets document themselves: `make help`. Each installs what it needs into .venv and keeps it there.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
UV := .cache/uv-$(UV_VERSION)/bin/uv
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1
export UV_LINK_MODE ?= hardlink

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "selftaught needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(abspath $(dir $@)..) || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(dir $@)python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): requirements/dev.txt pyproject.toml | $(UV)
	test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@echo "installing into $(VENV) (the first time 7 GB: a few minutes)"
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

.PHONY: install
install: $(STAMP) ## Install everything for this machine (CPU) into .venv

.PHONY: demo
demo: $(STAMP) ## Train a judge from its own judgments on this machine, from one manifest (about 8 minutes)
	$(BIN)/selftaught microworld .selftaught/quickstart/volumes/selftaught/microworld
	$(BIN)/selftaught run manifests/examples/quickstart.yaml --workdir .selftaught/quickstart

.PHONY: smollm2
smollm2: SELFTAUGHT_DATA ?= ../shared/data
smollm2: $(STAMP) ## Train SmolLM2-135M-Instruct on real instructions (an hour; SELFTAUGHT_DATA names the data's folder)
	@test -d $(SELFTAUGHT_DATA)/gsm8k || \
		{ echo "no folder $(SELFTAUGHT_DATA)/gsm8k; set SELFTAUGHT_DATA to a folder with gsm8k, arena_hard and llmbar" >&2; exit 1; }
	$(BIN)/selftaught smollm2 .selftaught/smollm2/volumes/models/smollm2
	ln -sfn $(abspath $(SELFTAUGHT_DATA)) .selftaught/smollm2/volumes/data
	$(BIN)/selftaught run manifests/examples/smollm2.yaml --workdir .selftaught/smollm2

.PHONY: check
check: $(STAMP) ## Lint, types, architecture, unit tests (under 2 minutes)
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit

.PHONY: test
test: check verify ## Everything: check, verify, the tests on real vLLM and real TRL, and those on a real Kubernetes
	$(BIN)/pytest -q tests/engine
	$(BIN)/pytest -q tests/cluster

.PHONY: cluster
cluster: $(STAMP) ## Start a real Kubernetes on this machine, for tests (needs root and Go; the first time it builds: 10 minutes)
	@$(BIN)/python -m hack.cluster up

.PHONY: cluster-kueue
cluster-kueue: $(STAMP) ## Install Kueue on the test cluster (the first time it builds: 3 minutes)
	@$(BIN)/python -m hack.cluster kueue

.PHONY: cluster-down
cluster-down: ## End the test cluster and delete its state
	@test ! -x $(BIN)/python || $(BIN)/python -m hack.cluster down

.PHONY: deploy
deploy: $(STAMP) ## Install the operator on the cluster of KUBECONFIG (or the test cluster, with the quick start's world)
	@hack/deploy.sh

.PHONY: test-cluster
test-cluster: $(STAMP) ## The tests on a real Kubernetes (KUBECONFIG's, or else the test cluster, which stays up)
	$(BIN)/pytest -q tests/cluster

.PHONY: bench
bench: $(STAMP) ## Measure the figures of docs/benchmarks.md
	$(BIN)/python hack/bench_sampling.py
	$(BIN)/python hack/bench_training.py

.PHONY: generate
generate: $(STAMP) ## Rewrite the generated files (CRD, API reference)
	$(BIN)/python hack/generate.py

.PHONY: verify
verify: $(STAMP) ## Fail if a generated file is not what `make generate` writes
	$(BIN)/python hack/generate.py --check

.PHONY: format
format: $(STAMP) ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: requirements
requirements: $(STAMP) ## Resolve the pinned, hashed requirements anew
	UV=$(UV) hack/requirements.sh

.PHONY: clean
clean: ## Delete .venv and caches (runs under .selftaught stay)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
