# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo down test lint docs workflows constraints clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip uninstall --quiet --quiet --yes mlship # its name until 0.1.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
	touch $(READY)

demo: $(READY)
	$(BIN)/python benchmarks/demo.py

down: $(READY)
	cd .demo && ../$(BIN)/mlship down

test: $(READY) lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m mlship.cli.reference docs/reference

workflows: $(READY)
	$(BIN)/mlship --set workflows.mlship=. init iris_example --yes

constraints: $(READY)
	(head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable) > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf .venv .mlship .mypy_cache .ruff_cache .pytest_cache
