PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test soak lint types check clean

# Written last, so an interrupted installation is taken up again.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

## Run the real agent on "host A", resume it on "host B"; LIVE=1 uses the real API.
demo: $(VENV)/.ready
	$(BIN)/python -m demo $(if $(LIVE),--live)

## Run all tests against MongoDB servers they start themselves.
test: $(VENV)/.ready
	$(BIN)/python -m pytest $(ARGS)

## The promises that need more data than the default run has time for.
soak: $(VENV)/.ready
	$(BIN)/python -m pytest -m soak $(ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/pyright

check: test soak lint types

clean:
	rm -rf $(VENV) build dist *.egg-info
