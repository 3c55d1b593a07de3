# Needs python3 (3.11 or newer, or PYTHON=…) with its venv module, and make. Nothing is installed outside this folder.

PYTHON ?= python3
BIN := .venv/bin
EMULATORS := tests/emulators/node_modules/.installed
# Every process that a test starts would compile the app anew, where the environment says to keep nothing compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal
NPM := $(shell command -v npm 2>/dev/null)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test torture bench lint without-npm

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: .venv/.installed $(if $(NPM),$(EMULATORS),without-npm) ## Install everything into .venv; quick when nothing changed

demo: setup ## Sync two embedded databases four times and show what each run did
	@$(BIN)/python -m backup demo

serve: setup ## Serve the HTTP endpoints and the timer on 127.0.0.1:7071
	@$(BIN)/python -m backup serve

test: lint ## Lint, then run every test
	$(PYTEST)

torture: setup ## Run the reliability tests at length; hours
	TORTURE=1 $(PYTEST) tests/reliability

bench: setup .venv-bench/.installed ## Measure syncs beside other ways to do the same; ARGS="--engine postgresql"
	@$(BIN)/python -m benchmarks $(ARGS)

lint: setup ## Check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The stamp is touched last, so an interrupted installation is taken up again.
.venv/.installed: requirements.txt tests/requirements.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed. Is there another one? make PYTHON=python3.12 setup"; exit 1; }
	@echo "Installing Python packages into .venv (about a minute the first time) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq -r requirements.txt -r tests/requirements.txt
# The Functions worker that tests drive. It says it wants Python 3.13; it works on 3.11 and 3.12 too, with the
# azure-functions of that Python, so its own requirements are left out.
	@$(BIN)/pip install -qq --ignore-requires-python --no-deps 'azure-functions-runtime~=1.3' 'azurefunctions-extensions-base~=1.2'
	@touch $@

# The tools that the benchmark compares with, apart from the app because of all that they bring. It runs without them too.
.venv-bench/.installed: benchmarks/requirements.txt Makefile
	@echo "Installing dlt and sling into .venv-bench (some minutes, once) …"
	@$(PYTHON) -m venv .venv-bench
	@if .venv-bench/bin/pip install -qq -r benchmarks/requirements.txt; then touch $@; \
	else rm -rf .venv-bench; echo "They cannot be installed: the tables will say so."; fi

# Azurite and a Cosmos server, for tests only. A laptop without them skips those tests; CI must have them.
$(EMULATORS): tests/emulators/package.json tests/emulators/package-lock.json Makefile
	@echo "Installing the emulators for tests from npm …"
	@if (cd tests/emulators && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --fetch-retries=1 --loglevel=error >/dev/null); \
	then touch $@; \
	elif [ "$$CI" = true ]; then echo "npm ci failed in tests/emulators, and with CI=true it must not."; exit 1; \
	else echo "npm ci failed in tests/emulators: the tests that need Azurite or Cosmos will be skipped."; fi

without-npm:
	@if [ "$$CI" = true ]; then echo "npm is missing, and with CI=true it must not be."; exit 1; fi
