# make demo   the whole study on drawn stand-in faces, with a report
# make test   tests, lint and types
# make coverage   the tests again, with the lines that none of them runs

# Code is compiled once for the many processes of the tests, also where the environment says not to.
export PYTHONDONTWRITEBYTECODE =

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint types tests coverage clean

demo: .venv/installed
	$(BIN)/crossfer demo --out demo

test: .venv/installed
	$(MAKE) --jobs 3 lint types tests

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python --output-format min-text --summary=none

tests: .venv/installed
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

coverage: .venv/installed
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder --cov --cov-report term-missing:skip-covered

.venv/installed: pyproject.toml constraints.txt
	@echo "Installing crossfer and what its tests need into .venv, which takes some minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv demo
