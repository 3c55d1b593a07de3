# Needs python3 (3.11 or newer, or PYTHON=…) with its venv module, and make. Nothing is installed outside this folder.

# Tests take a fifth less of the processor with a Python that was compiled with optimizations. One that pyenv has compiled
# was not: the system's own, of 3.11 or newer, is taken before it. PYTHON=python3 takes what the path has.
OPTIMIZED := import ensurepip, sys, sysconfig as config; options = config.get_config_var("CONFIG_ARGS") or ""; \
	sys.exit(sys.version_info < (3, 11) or sys.base_prefix != "/usr" and "--enable-optimizations" not in options)
PYTHON ?= $(shell for python in python3 /usr/bin/python3; do \
	$$python -c '$(OPTIMIZED)' 2>/dev/null && echo $$python && exit; done; echo python3)
BIN := .venv/bin
EMULATORS := tests/emulators/node_modules/.installed
# Every process that a test starts would compile the app anew, where the environment says to keep nothing compiled.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n 2 --dist worksteal
NPM := $(shell command -v npm 2>/dev/null)
# For every Python from 3.11 on and every system; no index of this machine gets into the files.
LOCK := $(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" $(ARGS) --python-version
LOCKED := requirements.txt requirements/tests.txt requirements/worker.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test again check coverage mutants torture bench lint lock picture vendor without-npm

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

setup: .venv/.installed $(if $(NPM),$(EMULATORS),without-npm) ## Install everything into .venv; quick when nothing changed

demo: setup ## Sync two embedded databases four times and show what each run did
	@$(BIN)/python -m backup demo

serve: setup ## Serve the HTTP endpoints and the timer on 127.0.0.1:7071
	@$(BIN)/python -m backup serve

test: lint ## Lint, then run every test
	$(PYTEST)

again: setup ## Run only the tests that failed the last time
	$(PYTEST) --last-failed --last-failed-no-failures none

check: lint ## Lint, then run what needs no server: unit tests, and the contract on SQLite
	$(PYTEST) tests/unit tests/contract -m "not server" -k "not cosmos and not postgres and not mssql and not azurite"

coverage: setup ## Run every test and print which lines of backup/ none runs; twice the time of `make test`
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n 2 --dist worksteal
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

mutants: setup ## Break the app in small ways and print what no test notices; half an hour; ARGS="--number 10"
	@$(BIN)/python -m tests.mutants $(ARGS)

torture: setup ## Run the reliability tests at length, and others with their full sizes; hours
	TORTURE=1 $(PYTEST) -o faulthandler_timeout=7200 tests/reliability tests/scenarios/test_memory.py tests/unit

bench: setup .venv-bench/.installed ## Measure syncs beside other ways to do the same; ARGS="--engine postgresql"
	@$(BIN)/python -m benchmarks $(ARGS)
	$(if $(ARGS),,@$(BIN)/python -m benchmarks.job_api)

lint: setup .venv-policies/.checked ## Check style, format, types, and what must not be in infra/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.infra.lint

picture: setup ## Draw docs/demo.svg and docs/dashboard.png anew: what `make demo` prints, and the page
	@$(BIN)/python docs/make_picture.py
	@$(BIN)/python docs/make_dashboard_picture.py

# The lines `-r requirements/…` that a deployment added stay. Pins stay too, unless ARGS="--upgrade" or the ranges move them.
lock: setup ## Pin what pyproject.toml asks for in requirements.txt and requirements/; ARGS="--upgrade"
	@$(BIN)/pip install -qq --require-hashes -r requirements/lock.txt
	@added=$$(grep '^-r ' requirements.txt); set -e; \
	$(LOCK) 3.11 pyproject.toml -o requirements.txt; \
	$(LOCK) 3.11 --group brokers -c requirements.txt -o requirements/brokers.txt; \
	$(LOCK) 3.11 --group people -c requirements.txt -o requirements/people.txt; \
	$(LOCK) 3.11 --group postgresql -c requirements.txt -o requirements/postgresql.txt; \
	$(LOCK) 3.11 --group telemetry -c requirements.txt -o requirements/telemetry.txt; \
	$(LOCK) 3.11 --group tests -c requirements.txt -o requirements/tests.txt; \
	$(LOCK) 3.11 --group policies -o requirements/policies.txt; \
	$(LOCK) 3.11 --group lock -o requirements/lock.txt; \
	$(LOCK) 3.13 --group worker --no-deps -o requirements/worker.txt; \
	if [ -n "$$added" ]; then echo "$$added" >>requirements.txt; fi

vendor: setup ## Renew the libraries of the page from npm, as they are locked; ARGS="--upgrade"
	@$(BIN)/python -m backup.dev.vendor $(ARGS)

# The stamp is touched last, so an interrupted installation is taken up again.
.venv/.installed: $(LOCKED) Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed. Is there another one? make PYTHON=python3.12 setup"; exit 1; }
	@echo "Installing Python packages into .venv with $(PYTHON) (about a minute the first time) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --require-hashes -r requirements.txt -r requirements/tests.txt
# The Functions worker says it wants Python 3.13, and brings an azure-functions of its own; pyproject.toml says more.
	@$(BIN)/pip install -qq --require-hashes --ignore-requires-python --no-deps -r requirements/worker.txt
	@touch $@

# The tools that the benchmark compares with, apart from the app because of all that they bring. It runs without them too.
.venv-bench/.installed: benchmarks/requirements.txt Makefile
	@echo "Installing dlt and sling into .venv-bench (some minutes, once) …"
	@$(PYTHON) -m venv .venv-bench
	@if .venv-bench/bin/pip install -qq -r benchmarks/requirements.txt; then touch $@; \
	else rm -rf .venv-bench; echo "They cannot be installed: the tables will say so."; fi

# checkov's policies over infra/, where infra/ has changed since they held. checkov lives apart from the tests' packages,
# because it pins old releases of what they use too.
# A laptop that cannot get it goes on without; CI must have it.
.venv-policies/.checked: .venv-policies/.installed $(shell find infra -type f)
	@if [ -e $< ]; then PYTHONDONTWRITEBYTECODE= .venv-policies/bin/python infra/policies.py && touch $@; fi

.venv-policies/.installed: requirements/policies.txt requirements/lock.txt Makefile | .venv/.installed
	@echo "Installing checkov into .venv-policies (seconds, once) …"
	@if $(BIN)/pip install -qq --retries 1 --require-hashes -r requirements/lock.txt && rm -rf .venv-policies \
		&& $(BIN)/uv venv -q --no-project --python $(BIN)/python .venv-policies \
		&& $(BIN)/uv pip sync -q --no-cache --require-hashes --python .venv-policies requirements/policies.txt; then touch $@; \
	elif [ "$$CI" = true ]; then echo "checkov cannot be installed, and with CI=true it must be."; exit 1; \
	else rm -rf .venv-policies; echo "SKIPPED: checkov cannot be installed, so nothing holds infra/ to its policies."; fi

# Azurite and a Cosmos server, for tests only. A laptop without them skips those tests; CI must have them.
$(EMULATORS): tests/emulators/package.json tests/emulators/package-lock.json Makefile
	@echo "Installing the emulators for tests from npm …"
	@if (cd tests/emulators && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --fetch-retries=1 --loglevel=error >/dev/null); \
	then touch $@; \
	elif [ "$$CI" = true ]; then echo "npm ci failed in tests/emulators, and with CI=true it must not."; exit 1; \
	else echo "npm ci failed in tests/emulators: the tests that need Azurite or Cosmos will be skipped."; fi

without-npm:
	@if [ "$$CI" = true ]; then echo "npm is missing, and with CI=true it must not be."; exit 1; fi
