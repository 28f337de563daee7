# make help lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow test-vllm canary mutants check docs format clean
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up
CANARY := .venv-canary/bin/python
VLLM := .venv-vllm/bin/python
DOCS := .venv-docs/bin/python
# Two processes share the tests out; one that is done takes over from the other.
TWICE := -n 2 --dist worksteal

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with the package, deepspeed and the development tools, by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trl-hybrid needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[deepspeed,dev]'
	@touch $@

train: setup ## Train the embedded default with the hybrid reward: offline, on the CPU, in minutes
	$(BIN)/python recipes/tinyllama_grpo.py --config recipes/configs/embedded.yaml

test: setup ## Run the fast tests
	$(BIN)/python -m pytest -q $(TWICE)

test-slow: setup ## Run the tests that launch real training processes
	$(BIN)/python -m pytest -q -m slow $(TWICE)

test-vllm: ## Run the tests against a real vLLM on the CPU, in .venv-vllm, which scripts/make_vllm_env.sh makes
	PYTHON=$(PYTHON) scripts/make_vllm_env.sh
	$(VLLM) -m pytest -q -m vllm $$(grep -rl --include='*.py' 'mark\.vllm' tests)

canary: ## Run the fast tests with the newest versions that pyproject.toml allows, torch excepted, in .venv-canary
	test -x $(CANARY) || $(PYTHON) -m venv .venv-canary
	$(CANARY) -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
		"$$(grep '^torch==' constraints.txt)" -e '.[deepspeed,trackers,gym,docs,dev]'
	@echo "Versions that differ, constraints.txt < and > here:"
	@diff <(grep -v '^#' constraints.txt | sort) <($(CANARY) -m pip freeze --exclude-editable | sed 's/+.*//' | sort) \
		| grep '^[<>]' || echo none
	$(CANARY) -m pytest -q $(TWICE) --tb=short

mutants: setup ## Break the core in small ways and see whether its tests notice
	OMP_NUM_THREADS=1 nice $(BIN)/python scripts/mutants.py

check: setup ## Lint, check the format and the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: ## Build the documentation's site strictly into site/, in .venv-docs: the names are read, not imported
	test -x $(DOCS) || $(PYTHON) -m venv .venv-docs
	$(DOCS) -m pip install --quiet --disable-pip-version-check -c constraints.txt $$($(DOCS) -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	NO_MKDOCS_2_WARNING=1 $(DOCS) -m mkdocs build --strict --site-dir site

format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf .venv .venv-canary .venv-docs .venv-vllm site .pytest_cache .ruff_cache .hypothesis
