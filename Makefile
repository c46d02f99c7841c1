PYTHON ?= python3
PYTHON2 ?= python2.7
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: help demo test test-without-ray test-with-ray test-system test-long test-autobahn chaos check bench bench-queues clean
help:
	@echo "make demo         a fleet of ten simulated robots, watched in this terminal (Ctrl-C ends it)"
	@echo "make test         the tests (real Ray, real uvicorn, real clients)"
	@echo "make test-system  tests that need root or Debian packages: chromium, iproute2, postgresql"
	@echo "make test-long    tests that take minutes"
	@echo "make test-autobahn PYTHON2=python2.7    RFC 6455 by Autobahn's fuzzing client"
	@echo "make chaos        five minutes of killed and frozen actors, vanished robots, lost calls; half an hour:"
	@echo "                  make chaos CHAOS='--seconds 1800 --every 20'"
	@echo "make check        ruff, mypy --strict, import rules"
	@echo "make bench        benchmarks, most of an hour on a quiet machine: fan-out and jobs beside others (wants postgresql)"
	@echo "make bench-queues the simulator of queues beside others: a quarter of an hour on a quiet machine"

# Installs again only when what is to be installed has changed.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "fleetcast needs Python 3.11 or newer: make PYTHON=..."'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python examples/demo.py

# Side by side: those who start Ray wait for processes most of the time. One Ray, and each line is told when it is done.
RAY_TESTS := $(addprefix tests/,actors chaos checkers crash end_to_end lossy network)
QUICK := "not system and not long and not autobahn"
test: $(STAMP)
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-without-ray test-with-ray

test-without-ray: $(STAMP)
	$(BIN)/python -m pytest tests $(addprefix --ignore=,$(RAY_TESTS)) -m $(QUICK)

test-with-ray: $(STAMP)
	$(BIN)/python -m pytest $(RAY_TESTS) -m $(QUICK)

test-system: $(STAMP)
	$(BIN)/python -m pytest tests -m "system"

test-long: $(STAMP)
	$(BIN)/python -m pytest tests -m "long" --timeout 900

.autobahn/installed: tests/autobahn/constraints.txt
	$(PYTHON2) -m pip install --quiet --disable-pip-version-check --target .autobahn -c $< autobahntestsuite
	touch $@

test-autobahn: $(STAMP) .autobahn/installed
	PYTHON2=$(PYTHON2) AUTOBAHN=$(CURDIR)/.autobahn $(BIN)/python -m pytest tests -m autobahn -s

chaos: $(STAMP)
	PYTHONPATH=tests:benchmarks $(BIN)/python -m chaos $(CHAOS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy fleetcast.py
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/fanout.py
	$(BIN)/python benchmarks/heartbeats.py
	$(BIN)/python benchmarks/slow_watchers.py
	$(BIN)/python benchmarks/crowds.py
	$(BIN)/python benchmarks/jobs.py
	$(BIN)/python benchmarks/recovery.py
	$(BIN)/python benchmarks/generator.py

# LINE wants websockets 12, and fleetcast 17: hence an environment of its own.
.ldes/installed: benchmarks/ldes_constraints.txt
	$(PYTHON) -m venv .ldes
	.ldes/bin/python -m pip install --quiet --disable-pip-version-check -c $< line-solver
	touch $@

bench-queues: $(STAMP) .ldes/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/queues.py

clean:
	rm -rf .venv .autobahn .ldes build *.egg-info
