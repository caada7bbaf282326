# Everything sets itself up in .venv on a machine that has Python 3.11 or newer, pip and make.
#
#   make demo        pull nano and answer three questions
#   make test        what CI runs: format, lint, types, tests (needs no GPU; fetches packages on first use)
#   make test-slow   full-size checks: 20 GiB of memory and disk, half an hour
#   make format      rewrite the sources in the project's style

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow format clean

demo: .venv/runtime-installed
	$(BIN)/python examples/demo.py

test: .venv/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow"

test-slow: .venv/dev-installed
	$(BIN)/pytest -m slow

format: .venv/dev-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "phi4 needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime-installed: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/dev-installed: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,nano]'
	@touch $@ .venv/runtime-installed
