# make help lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow mutants check format clean
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up
# accelerate's own defaults, said aloud so that it does not warn of them.
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	--num_cpu_threads_per_process 1

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the package, deepspeed and the development tools, by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trl-hybrid needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[deepspeed,dev]'
	@touch $@

train: setup ## Train the embedded default with the hybrid reward: offline, on the CPU, in minutes
	$(LAUNCH) recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml

test: setup ## Run the fast tests
	$(BIN)/python -m pytest -q

test-slow: setup ## Run the tests that launch real training processes
	$(BIN)/python -m pytest -q -m slow

mutants: setup ## Break the core in small ways and see whether its tests notice
	OMP_NUM_THREADS=1 nice $(BIN)/python scripts/mutants.py

check: setup ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
