# On a fresh machine, `make demo` and `make test` need nothing before them. `make help` lists the rest.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready
# uv is quicker than pip; pip also knows the index that pip.conf names. Compiled, because a training
# writes no compiled files and would compile its libraries each time.
PACKAGES := --constraint constraints.txt --editable ".[all]" --group dev

# Modules of tests are compiled once, not by each worker, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# How many tests run at the same time: make unit WORKERS=4.
WORKERS ?=
AT_ONCE := auto
PYTEST := $(BIN)/python -m pytest
GROUPED := --maxprocesses 4 --dist loadgroup --no-loadscope-reorder
QUICK := -m "not slow and not fits"
PARALLEL = --numprocesses $(or $(WORKERS),$(AT_ONCE)) $(GROUPED)
# Libraries of macOS do not survive a fork.
FORKS = -p tests.harness.forks --forks $(or $(WORKERS),$(AT_ONCE))
SPREAD = $(if $(filter Linux,$(shell uname)),$(FORKS),$(PARALLEL))
# What the unit tests cover: make test COVERAGE=1 measures them where it runs them.
COVERAGE ?=
MEASURED := --cov --cov-report=

.PHONY: help demo down unit check test coverage lint docs workflows constraints clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" uv
	$(BIN)/python -m pip uninstall --quiet --quiet --yes mlship # its name until 0.1.0
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(PACKAGES) || $(BIN)/python -m pip install --quiet $(PACKAGES)
	touch $(READY)

demo: $(READY) ## carry two models from a commit to a champion, and leave it serving
	$(BIN)/python benchmarks/demo.py

down: $(READY) ## stop what the demo left running
	cd .demo && ../$(BIN)/mlship down

unit: $(READY) ## the unit tests that take no minute: what to run after each change
	$(PYTEST) $(SPREAD) $(QUICK) tests/unit

check: $(READY) ## lint, types, unit tests, architecture and docs: what to run before a commit
	$(PYTEST) $(SPREAD) $(QUICK) tests/unit tests/architecture tests/docs

# Six workers on two cores: tests wait for pods and servers more than half of the time.
test: AT_ONCE := 6
test: $(READY) ## everything, lint too, with whatever services this machine has
	$(PYTEST) $(SPREAD) $(if $(COVERAGE),$(MEASURED))

coverage: $(READY) ## the tests of make unit and trainings, measured: fails where they cover less than pyproject.toml says
	$(PYTEST) $(SPREAD) -m "not slow" $(MEASURED)term:skip-covered tests/unit

lint: $(READY) ## ruff and mypy, as tests/architecture runs them too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## write the reference pages anew
	$(BIN)/python -m mlship.cli.reference docs/reference

workflows: $(READY) ## write this repository's own workflows anew
	$(BIN)/mlship --set workflows.mlship=. init iris_example --yes

constraints: $(READY) ## pin what is installed now
	(head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable) > constraints.new
	mv constraints.new constraints.txt

clean: ## remove the environment and all caches
	rm -rf .venv .mlship .mypy_cache .ruff_cache .pytest_cache .coverage .coverage.*
