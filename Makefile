# Everything one does with nodecache; `make help` lists it.
#
# PYTHON=   interpreter to build .venv with (default: the first one that is new enough)
# PORT=     where `make run` listens on 127.0.0.1
# UPSTREAM= IP or IP:port that `make run` forwards to, instead of its demo upstream
# CONFIG=   Corefile for `make bench`: plain, or stock for the four blocks of the stock manifest
# SEED=     of the first history that `make simulate` lives through, HOURS= how long they are
# WORKERS=  processes that `make test` has; what measures stays in one of them
# ARGS=     further arguments for `make test` (pytest), `make bench` and `make simulate`

VENV := .venv
COMPILED := .build/compiled
BIN := $(VENV)/bin
PORT ?= 5353
UPSTREAM ?=
CONFIG ?= plain
SEED ?= 1
HOURS ?= 1
ARGS ?=
WORKERS ?= 2
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install

.DEFAULT_GOAL := help
.PHONY: help run test check format docs manifests compile bench simulate clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run-stamp ## run nodecache beside a demo upstream, or with UPSTREAM=10.96.0.10
	@exec $(BIN)/python -m nodecache.demo run --port '$(PORT)' --upstream '$(UPSTREAM)'

test: check ## check, then run all tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(ARGS)

check: $(VENV)/.dev-stamp ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev-stamp ## let ruff put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.run-stamp ## write docs/metrics.md and docs/settings.md from the tables in the code
	$(BIN)/python docs/generate.py

manifests: $(VENV)/.dev-stamp ## write the plain manifests and the chart's schema and version from their sources
	$(BIN)/python -m daemonset.generate

compile: $(COMPILED)/.stamp ## the same sources with their core translated to C: misses cost half

bench: $(COMPILED)/.stamp ## measure beside the DNS servers that are installed
	$(BIN)/python -m bench --config '$(CONFIG)' $(ARGS)

simulate: $(VENV)/.dev-stamp ## lives of a node among failing upstreams, in virtual time
	$(BIN)/python -m tests.simulator --seed '$(SEED)' --hours '$(HOURS)' $(ARGS)

clean: ## remove .venv and everything else that can be made again
	rm -rf $(VENV) .build .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make set-up happen once, and again when the dependencies change.
$(VENV)/.run-stamp: pyproject.toml
	@set -e; \
	python=; \
	for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c '$(IS_NEW_ENOUGH)' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "nodecache needs Python 3.11 or newer; found none of these: $(CANDIDATES)." >&2; \
	    echo "Install one, or name one: make run PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version); this happens once."; \
	if ! { $(BIN)/python -c '$(IS_NEW_ENOUGH)' && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
	    if ! message=$$("$$python" -m venv --clear $(VENV) 2>&1); then \
	        rm -rf $(VENV); \
	        echo "$$message" >&2; \
	        echo "$$python cannot make a virtual environment: its modules venv or ensurepip are missing." >&2; \
	        echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	        exit 1; \
	    fi; \
	fi; \
	if ! $(PIP) --editable '.[webhook]'; then \
	    echo "pip could not install the dependencies: it needs the network, or a package index in PIP_INDEX_URL." >&2; \
	    exit 1; \
	fi; \
	touch $@

$(VENV)/.dev-stamp: $(VENV)/.run-stamp
	@echo "Adding the development tools to $(VENV)."
	@$(PIP) --upgrade 'pip>=25.1' # the first one that knows --group
	@$(PIP) --group dev
	@touch $@

# From a copy, because the translated modules are left beside the sources and would hide changes.
$(COMPILED)/.stamp: $(VENV)/.dev-stamp $(shell find nodecache -name "*.py")
	@command -v cc >/dev/null || { \
	    echo "Translating needs a C compiler. On Debian and Ubuntu: apt-get install gcc libc6-dev" >&2; \
	    exit 1; \
	}
	@echo "Translating wire, cache, upstreams and resolve into $(COMPILED); this takes a minute or two."
	@rm -rf $(COMPILED) .build/source
	@mkdir -p .build/source
	@cp -r pyproject.toml README.md LICENSE nodecache .build/source/
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=true $(PIP) --no-deps --target $(COMPILED) ./.build/source
	@rm -rf .build/source
	@touch $@
