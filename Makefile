# SPDX-License-Identifier: GPL-2.0-or-later
# Needs make and any Python from 3.11 on; everything else goes into .venv.

VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml mmtrace.py $(shell find tracer replay reports -name '*.py' -o -name '*.html' \
	-o -name '*.css' -o -name '*.js')
CAPTURE := fixtures/linux-7.3/pageout-64k.perf.data.zst
STORE   := demo/pageout-64k.mmtrace

.PHONY: lab lab-verify help demo picture test fuzz bench lint format browser clean
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Ingest, replay and report a shipped capture into demo/
	@mkdir -p demo
	$(BIN)/mmtrace ingest $(CAPTURE) -o $(STORE) --force
	$(BIN)/mmtrace compare $(STORE) --policy unbatched --policy batched
	$(BIN)/mmtrace verify $(STORE) --truth fixtures/linux-7.3/truth.json --failures
	$(BIN)/mmtrace report $(STORE) --truth fixtures/linux-7.3/truth.json -o demo/report.html --force
	@echo "The report is demo/report.html; the store is $(STORE)."

picture: demo $(VENV)/.dev browser ## Draw docs/report.png from the report of make demo
	$(BIN)/python docs/picture.py demo/report.html docs/report.png

LAB := small

lab: $(VENV)/.dev ## Boot arm64 kernels, record, count and compare (docs/lab.md)
	$(BIN)/python -m fixtures.lab run --matrix $(LAB)

lab-verify: $(VENV)/.dev ## Compare every capture of the lab with its counts again
	$(BIN)/python -m fixtures.lab verify
	$(BIN)/python -m fixtures.lab verify --out fixtures/lab-captures

test: $(VENV)/.dev browser lint ## Run every check and every test
	$(BIN)/python -m pytest -q

fuzz: $(VENV)/.dev ## Damage captures at random for an hour
	$(BIN)/python -m tests.fuzz.run --minutes 60

bench: $(VENV)/.dev ## Time reading captures beside perf and trace-cmd
	$(BIN)/python benchmarks/ingest.py

lint: $(VENV)/.dev ## Run ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the sources
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The tests that look at a report skip, and say so, when there is no Chromium.
browser:
	@if command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		echo "Installing Debian's Chromium for the report tests."; \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
			--no-install-recommends chromium-headless-shell >/dev/null; } 2>&1 | tail -n 3; \
		command -v chromium-headless-shell >/dev/null || echo "No Chromium: browser tests skip."; \
	else echo "No Chromium, and no right to install it: browser tests skip."; fi

# The first Python from 3.11 on that runs; a pyenv shim may exist and still not run.
$(BIN)/python:
	@for p in python3 python3.14 python3.13 python3.12 python3.11 python \
		$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.*/bin/python3 2>/dev/null); do \
		if "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$p; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then echo "make: no Python from 3.11 on found." >&2; exit 1; fi; \
	echo "Making $(VENV) with $$python ($$($$python -V))."; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
			apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null \
			&& "$$python" -m venv $(VENV); \
		else echo "make: install python3-venv, or another Python." >&2; exit 1; fi; }

# demo runs what users install; tests run the sources. Each install replaces the other.
$(VENV)/.installed: $(BIN)/python $(SOURCES)
	$(PIP) install .
	@rm -f $(VENV)/.dev
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(PIP) install -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean: ## Remove .venv, demo/ and caches
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
