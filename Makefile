PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/demo
BIN = $(VENV)/bin
WORKERS = -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test clean

demo: $(VENV)/.core
	$(BIN)/python -m ealign.launch --config=configs/demo.py --workdir=$(WORKDIR)

test: $(VENV)/.test
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" tests

$(VENV)/.core: setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV)
