# `make demo` and `make test` start from a fresh clone and nothing else.
# Packages come from wherever pip is configured to look. On Linux PyPI's torch brings the CUDA libraries along; to do
# without them, point pip at a CPU build first (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS). `CONSTRAINTS=constraints.txt`
# installs the versions that were tried together instead of the newest. tools/install.py says how far it is.

SHELL := /bin/sh
PYTHON ?= python3
PORT ?= 8501
WORKERS ?= 3
FAST := tests/test_architecture.py tests/test_config.py tests/test_pairwise.py tests/store tests/viz tests/engine tests/jobs
ARGS ?=
CONSTRAINTS ?=

VENV := .venv
BIN := $(VENV)/bin
SCHEMA := $(BIN)/check-jsonschema --builtin-schema
INSTALL := CONSTRAINTS=$(CONSTRAINTS) $(BIN)/python tools/install.py

.DEFAULT_GOAL := test
.PHONY: help demo test test-fast journeys check lint format types supply docs wheel reproducible bench bench-quick gpu torture browser clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/' | expand -t 16

demo: $(VENV)/.installed  ## start a real dynamic fine-tune and serve the dashboard on 127.0.0.1:$(PORT)
	$(BIN)/dynlora demo --port $(PORT)

test: $(VENV)/.installed-test browser  ## run the tests, browser included; `make journeys` runs the longest
	$(BIN)/python -m pytest -n $(WORKERS) -m "not torture and not journey" $(ARGS)

test-fast: $(VENV)/.installed-test  ## the part of the tests that answers within a minute, for the loop at the desk
	$(BIN)/python -m pytest -n 2 -m "not torture and not journey and not browser and not slow" $(FAST) $(ARGS)

journeys: $(VENV)/.installed-test browser  ## whole ways through the product, real processes that are killed; what fails is run again, alone
	$(BIN)/python -m pytest -n $(WORKERS) -m "journey and not torture" $(ARGS) || \
		$(BIN)/python -m pytest -n 0 -m "journey and not torture" --last-failed --last-failed-no-failures none

check: lint types supply docs test journeys  ## everything that must pass before a commit lands

lint: $(VENV)/.installed-dev  ## ruff, without changing anything, phrases that users do not know, schemas of .github
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.words
	$(SCHEMA) vendor.github-workflows .github/workflows/*.yml
	$(SCHEMA) vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(SCHEMA) vendor.github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA) vendor.dependabot .github/dependabot.yml
	$(SCHEMA) vendor.citation-file-format CITATION.cff

format: $(VENV)/.installed-dev  ## ruff, changing files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev  ## pyright
	$(BIN)/pyright

supply: $(VENV)/.installed-dev  ## licences and known vulnerabilities of what gets installed
	$(BIN)/python -m tools.supply check

bench: $(VENV)/.installed-bench  ## every benchmark; takes hours: ARGS="--glue FOLDER" for those on GLUE
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: $(VENV)/.installed-bench  ## the benchmarks that take minutes
	$(BIN)/python -m benchmarks --quick $(ARGS)

gpu: $(VENV)/.installed-test  ## tests and benchmarks on a GPU: step time, memory, waits; says "not measured" without one
	$(BIN)/python -m benchmarks.gpu $(ARGS)

torture: $(VENV)/.installed-test  ## the full products of what `make test` samples; runs killed at many points
	$(BIN)/python -m pytest -m torture $(ARGS)

browser: $(VENV)/.installed-test
	@$(BIN)/python -m tests.browser.chromium

docs: $(VENV)/.installed-docs  ## build the documentation into site/, strict; `dynlora docs` serves it
	$(BIN)/python -m tools.docs.tables --check
	$(BIN)/python -m tools.docs

# What is built says when the commit was made, not when it was built: the same commit gives the same bytes.
wheel reproducible: export SOURCE_DATE_EPOCH := $(or $(shell git log -1 --format=%ct 2>/dev/null),1577836800)

wheel: $(VENV)/.installed-dev docs  ## build wheel and sdist, with the documentation in them
	$(BIN)/python -m build --sdist --wheel

reproducible: wheel  ## build both again, of a clone in another folder, and compare the bytes
	rm -rf build/again
	git clone --quiet . build/again
	cd build/again && $(CURDIR)/$(BIN)/python -m tools.docs
	$(BIN)/python -m build --sdist --wheel --outdir build/again/dist build/again
	cd build/again/dist && for file in *; do cmp "$$file" "$(CURDIR)/dist/$$file" || exit 1; echo "same bytes: $$file"; done

clean:  ## remove the environment and every cache; runs are kept
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "dynlora needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; } # half a one would be taken for a whole one the next time

# A stamp per set of packages: made again when pyproject.toml changes, free of charge otherwise.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(INSTALL)
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(INSTALL) test
	@touch $@ $(VENV)/.installed $(VENV)/.installed-docs

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(INSTALL) dev
	@touch $@ $(VENV)/.installed $(VENV)/.installed-docs $(VENV)/.installed-test

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(INSTALL) docs
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(INSTALL) bench
	@touch $@ $(VENV)/.installed
