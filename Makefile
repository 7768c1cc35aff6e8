# make benchmark   both evaluations, WFLW and WFLW-V, on the shipped weights, sample faces and sample clips
# make test        lint, types and tests
# make fuzz        thousands of damaged files, options and folders; CASES and SEED choose the number and the cases
# All first create the environment in .venv if it is missing or older than the requirements.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: benchmark test fuzz clean

benchmark: .venv/.installed
	$(BIN)/python test_LDEQ_WFLW.py
	$(BIN)/python test_LDEQ_WFLW_V.py

test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

CASES ?= 3000
SEED ?= 0

fuzz: .venv/.installed-dev
	$(BIN)/python tests/fuzz/campaign.py --cases $(CASES) --seed $(SEED)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; choose one: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

.venv/.installed-dev: requirements-dev.txt .venv/.installed
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
