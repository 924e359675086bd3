PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
STATE := $(abspath $(or $(LORELINE_HOME),.loreline))

.PHONY: setup demo test check bench study ui clean

setup: $(STAMP)

# Constraints make this one resolution; torch comes first and exactly, so that a CPU build at hand is taken.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or set PYTHON="; exit 2; }
	@echo "Installing into .venv: two to three minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/loreline demo

test: setup
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

bench: setup
	$(BIN)/python tests/benchmarks/bench_merge.py

study: setup
	$(BIN)/python tests/benchmarks/study_lore.py

ui: setup
	@echo "MLflow  http://127.0.0.1:5000    Prefect  http://127.0.0.1:4200    (Ctrl-C stops both)"
	@trap 'kill 0' INT TERM; \
	$(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri sqlite:///$(STATE)/mlflow.db & \
	$(BIN)/prefect server start --host 127.0.0.1 --port 4200 & wait

clean:
	rm -rf artifacts runs .loreline .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
