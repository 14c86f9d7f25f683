# Each target sets up .venv if needed. `make demo` and `make test` are all a fresh machine needs.
# `make test` takes minutes; `make test-all` adds the tests marked slow: trainings in several processes, full-size nets.
PYTHON ?= python3
BIN := .venv/bin
DEMO := --data data/demo --runs runs/demo

.PHONY: demo test test-all check clean
.DEFAULT_GOAL := demo

.venv/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

# The whole pipeline on generated images: Tables 1-7 on stdout, progress on stderr.
demo: .venv/installed
	@$(BIN)/vggrepro reproduce --preset demo $(DEMO)

test: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/installed
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf data/demo runs/demo tables/demo
