# make demo runs a whole study on real images with real weights; make test runs the tests. Both install what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Processes of the quick tests; those of one file stay together, because they share databases and trained networks. The slow
# ones start workers of their own and wait for moments in their work: one process.
PROCESSES ?= 2

.PHONY: demo test test-slow check docs audit clean

demo: $(VENV)/demo.stamp
	$(BIN)/tlopt run studies/digits.toml

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "not slow"

test-slow: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -m slow

check: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# The site, in build/site, with the generated parts of the pages updated. Fails on a broken link.
docs: $(VENV)/dev.stamp
	$(BIN)/python -m docs.generate
	$(BIN)/zensical build --clean --strict

# Known vulnerabilities in the image's packages. Not part of check, because it queries an advisory service and fails without.
audit: $(VENV)/dev.stamp
	$(BIN)/pip-audit --strict --no-deps --disable-pip --requirement docker/constraints.txt

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tlopt needs Python 3.11 or newer; try: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	@echo "installing tlopt, torch and torchvision into $(VENV): several GB, minutes"
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

$(VENV)/dev.stamp: pyproject.toml | $(BIN)/python
	@echo "installing tlopt, torch and torchvision into $(VENV): several GB, minutes"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/demo.stamp

clean:
	rm -rf $(VENV) build runs exports tlopt.db tlopt.db-* tlopt.db.lock
