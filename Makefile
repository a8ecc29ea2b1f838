# Every target sets up what it needs from a bare Python >= 3.11 (uv when present, venv + pip when not).
PYTHON ?= python3
NAME := $(notdir $(PYTHON))
VENV := .venv$(if $(filter-out python3,$(NAME)),-$(NAME))# each Python that is named has its own
BIN := $(VENV)/bin
FAULTS := tests/topologies tests/faults tests/testing tests/upgrade tests/following/test_chaos.py \
  tests/workers/test_registry_away.py tests/workers/test_remote.py tests/agent/test_example.py
TOPOLOGIES ?= sentinel cluster
PYTHONS ?= python3.11 python3.12 python3.13
STAMP := $(VENV)/.ready-$(shell cat pyproject.toml requirements/dev.txt Makefile | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-load test-pythons test-topologies test-faults test-dbgpt chaos soak explore mutants lint format bench lock clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(STAMP)  ## The development environment in .venv, or .venv-python3.12 with PYTHON=python3.12

$(STAMP): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "redis_registry needs Python >= 3.11; say which: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV) (once) ..." >&2
	@rm -f $(VENV)/.ready-*
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv -q --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install -q --python $(BIN)/python -r requirements/dev.txt && \
	  uv pip install -q --python $(BIN)/python --no-deps -e .; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements/dev.txt && \
	  $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .; \
	fi
	@touch $@

demo: $(STAMP)  ## Two controllers, six workers, one real server: watch it tell the truth (KEEP=1 leaves it running)
	@$(BIN)/python -m examples.demo $(if $(KEEP),--keep)

test: $(STAMP)  ## All tests but those of test-faults (under 6 minutes on 2 cores; three workers, for much of it is waiting)
	@$(BIN)/python -m pytest -q -n 3 $(addprefix --ignore ,$(FAULTS)) $(ARGS)

test-load: $(STAMP)  ## The long acceptance runs: skewed clocks, mass death, 5,000 workers, ten minutes of heartbeats, releases that mix (about 30 minutes; LOAD_SHARE=0.1 to try)
	@$(BIN)/python -m pytest -q tests/load --run-load $(ARGS)

test-pythons:  ## All tests, also those of test-faults, on each CPython that is installed of 3.11, 3.12, 3.13; it says which are not (PYTHONS='python3.12 ...'; about 10 minutes each)
	@for python in $(PYTHONS); do \
	  if $$python --version >/dev/null 2>&1; then \
	    echo "== $$($$python --version)"; $(MAKE) --no-print-directory test FAULTS= PYTHON=$$python || exit 1; \
	  else echo "== $$python: not installed here"; fi; \
	done

test-topologies: $(STAMP)  ## The suite behind Sentinel, then on a Cluster of three partitions, on both servers (about 13 minutes)
	@for topology in $(TOPOLOGIES); do \
	  $(BIN)/python -m pytest -q -n 3 --topology $$topology $(ARGS) || exit 1; \
	done

test-faults: $(STAMP)  ## Faults: small worlds explored, Sentinel and Cluster, single faults, the servers that redis_registry.testing starts, workers and agents whose registry or controller is away, releases that mix, the P0 rows of the fault matrix played and judged, broken versions convicted (about 10 minutes)
	@$(BIN)/python -m tests.explore --states 4000
	@$(BIN)/python -m pytest -q -n 2 $(FAULTS) $(ARGS)
	@$(BIN)/python -m tests.chaos --priority P0 --played
	@$(BIN)/python -m tests.chaos --mutants

chaos: $(STAMP)  ## Any scenario of the fault matrix, or faults by chance: SCENARIO=name, SEED=7, ARGS='--random 20' (--help, --list)
	@$(BIN)/python -m tests.chaos $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: $(STAMP)  ## A million register/expire/forget cycles under faults, half an hour: memory, descriptors, tasks, keys return to their start
	@$(BIN)/python -m tests.soak $(ARGS)

explore: $(STAMP)  ## The same for a quarter of an hour: more than 100,000 states; then scripts broken on purpose, each noticed
	@$(BIN)/python -m tests.explore --states 40000 $(ARGS) && $(BIN)/python -m tests.explore --mutants

mutants: $(STAMP)  ## Break the code line by line: each break must turn the promise's test red (about 3 minutes)
	@$(BIN)/python -m tests.mutants $(ARGS)

test-dbgpt: $(STAMP)  ## DB-GPT's own registry tests and its real worker against ours, in a venv of their own
	@tests/dbgpt/run.sh

lint: $(STAMP)  ## Format, style, floors, types, spelling
	@$(BIN)/ruff format --check -q . && $(BIN)/ruff check -q . && $(BIN)/lint-imports && $(BIN)/pyright && $(BIN)/codespell

format: $(STAMP)  ## Let ruff rewrite the tree
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: $(STAMP)  ## Every figure of the README, side by side in one run
	@$(BIN)/python -m benchmarks $(ARGS)

lock: $(STAMP)  ## Compile the pinned requirements (names and versions only)
	@$(BIN)/python -m pip install -q uv && $(BIN)/uv pip compile -q --python-version 3.11 --universal --no-emit-index-url --no-annotate --no-header --extra all --group dev pyproject.toml -o requirements/dev.txt

clean:  ## Remove environments and caches
	rm -rf .venv .venv-* .cache .pytest_cache .ruff_cache .hypothesis
