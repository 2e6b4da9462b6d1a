PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MOTOR := .venv-motor
SECANTUS := .venv-secantus
DOCS := .venv-docs
# Most tests wait for servers and clocks, so a few at once finish sooner.
WORKERS ?= 3
# Each begins with a part of the files, in the order that tests/conftest.py gives them, and who has
# done with its own takes over from others: one that waits long would hold up all that is behind it.
PARALLEL = -n $(WORKERS) --dist worksteal
INSTALL := -m pip install --quiet --disable-pip-version-check

# Where it is set, each process compiles the package and all tests anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: captures cluster demo docs docs-serve look screenshots test motor matrix secantus bench faults soak-faults soak lint workflows types release-check check clean

# Written last, so an interrupted installation is taken up again.
$(VENV)/.ready: pyproject.toml constraints/shared.txt constraints/beanie2.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -c constraints/beanie2.txt -e '.[dev]'
	touch $@

$(MOTOR)/.ready: pyproject.toml constraints/shared.txt constraints/motor.txt
	$(PYTHON) -m venv $(MOTOR)
	$(MOTOR)/bin/python $(INSTALL) -c constraints/motor.txt -e '.[dev,motor]'
	touch $@

$(SECANTUS)/.ready: pyproject.toml constraints/shared.txt constraints/secantus.txt
	$(PYTHON) -m venv $(SECANTUS)
	$(SECANTUS)/bin/python $(INSTALL) -c constraints/secantus.txt -e '.[dev]' SecantusDB
	touch $@

# The site is made from the sources, so neither the package nor what it needs is installed.
$(DOCS)/.ready: constraints/docs.txt
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python $(INSTALL) -r constraints/docs.txt
	touch $@

## Run the real agent on "host A", resume it on "host B"; LIVE=1 uses the real API.
demo: $(VENV)/.ready
	$(BIN)/python -m demo $(if $(LIVE),--live)

## Sessions to look at in a browser, recorded and real, at the address that it prints.
look: $(VENV)/.ready
	$(BIN)/python -m demo.look

## Make the pictures of docs/web.md anew, with Debian's chromium.
screenshots: $(VENV)/.ready
	$(BIN)/python -m demo.screenshots

## Run what docs/cli.md shows, and write down what it prints.
captures: $(VENV)/.ready
	$(BIN)/python -m demo.captures

## Build the documentation as a site in .site/html, strictly; what leads nowhere fails.
docs: $(DOCS)/.ready
	$(DOCS)/bin/python -m documentation build

## The same at the address that it prints, anew with every change.
docs-serve: $(DOCS)/.ready
	$(DOCS)/bin/python -m documentation serve

## Run all tests against MongoDB servers they start themselves.
test: $(VENV)/.ready
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

## The same on Beanie 1 and Motor, their types, the demo, and a move of sessions from each driver to the other.
motor: $(VENV)/.ready $(MOTOR)/.ready
	$(MOTOR)/bin/python tests/typed/check.py
	SESSION_STORE_OTHER_PYTHON=$(abspath $(BIN))/python $(MOTOR)/bin/python -m pytest $(PARALLEL) $(ARGS)
	$(MOTOR)/bin/python -m demo

## All of that for every supported Python that is installed, pyenv's included; names what it skips.
matrix: $(VENV)/.ready
	PATH="$$PATH:$$(printf '%s:' $${PYENV_ROOT:-$$HOME/.pyenv}/versions/*/bin)" $(BIN)/tox run -- $(PARALLEL) $(ARGS)

## Eight writers on three servers while servers, networks and writers fail; three minutes.
faults: $(VENV)/.ready
	$(BIN)/python -m pytest -m faults --timeout 900 $(ARGS)

## The attack for as long as asked: make soak-faults SECONDS=2000 SEED=8
soak-faults: $(VENV)/.ready
	cd tests && ../$(BIN)/python -m faults.run --seconds $(or $(SECONDS),1800) --seed $(or $(SEED),1)

## The promises that need more data than the default run has time for.
soak: $(VENV)/.ready
	$(BIN)/python -m pytest -m soak -n 2 --dist worksteal --timeout 900 $(ARGS)

## The suite on a second engine that speaks MongoDB's protocol; docs/second-engine.md has what differs.
secantus: $(SECANTUS)/.ready
	$(SECANTUS)/bin/python -m pytest -p tests.secantus.plugin --timeout 600 $(ARGS)

## The suite on a deployment of yours, and a report of what held: make cluster URL=mongodb://...
cluster: $(VENV)/.ready
	@$(BIN)/python tests/cluster/run.py "$(URL)" -- $(ARGS)

## Measure the store beside its peers; ARGS="--quick" for a smoke run.
bench: $(VENV)/.ready
	$(BIN)/python -m bench $(ARGS)

lint: $(VENV)/.ready workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

## What could be abused in .github, looked for without the network.
workflows: $(VENV)/.ready
	$(BIN)/zizmor --offline --no-progress --quiet --persona=pedantic .github

## Build what a release would publish, install it, and run the demo on lowest and newest versions.
release-check:
	PYTHON=$(PYTHON) bash .ci/check-release

## Pyright and mypy, both strict, over the package, its uses and the code in the documents.
types: $(VENV)/.ready
	$(BIN)/python tests/typed/check.py

check: test motor soak lint types

clean:
	rm -rf $(VENV) $(MOTOR) $(SECANTUS) $(DOCS) .site .tox .types build dist *.egg-info
