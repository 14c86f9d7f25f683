# Each target sets up .venv if needed. `make demo` and `make test` are all a fresh machine needs.
# `make test` takes minutes; `make test-all` adds the tests marked slow: trainings in several processes, full-size nets.
PYTHON ?= python3
BIN := .venv/bin
DEMO := --data data/demo --runs runs/demo

.PHONY: setup demo sample test test-all check clean
.DEFAULT_GOAL := demo

.venv/installed: pyproject.toml
	@echo "setting up .venv; the first time, packages are downloaded: some minutes" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]" >&2
	@touch $@

setup: .venv/installed

# The whole pipeline on generated images. Every net starts from random weights, so that all have as many steps as A.
# On a terminal a summary, in a pipe Tables 1-7; progress on stderr.
demo: .venv/installed
	@echo "demo: draws 6,000 images, trains 14 nets, evaluates and tests them: 6 to 9 minutes on 2 CPU cores." >&2
	@echo "Ctrl-C stops; the same command goes on." >&2
	@$(BIN)/vggrepro reproduce --preset demo --init dirac --jobs auto $(DEMO)

# docs/sample-report.html: the demo's report, with the training error beside the validation error.
sample: demo
	$(BIN)/vggrepro evaluate --center --split train $(DEMO) >&2
	$(BIN)/vggrepro evaluate --center $(DEMO) >&2
	$(BIN)/vggrepro report --format html $(DEMO) > docs/sample-report.html.new
	mv docs/sample-report.html.new docs/sample-report.html

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
