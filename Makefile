PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/demo
BIN = $(VENV)/bin
WORKERS = -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test docs docs-links clean

demo: $(VENV)/.core
	$(BIN)/python -m ealign.launch --config=configs/demo.py --workdir=$(WORKDIR)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" tests

docs: $(VENV)/.docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# Asks every address outside: on request, as it needs a network.
docs-links: $(VENV)/.docs
	JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/links

$(VENV)/.core: setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.docs: $(VENV)/.core
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV)
