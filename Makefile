# make demo   a dataset prepared, kept, lost, restored and trained on; about a minute the first time
# make test   every test that needs no longer budget
# Both make .venv and install this checkout in it; remove the folder to begin again.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check --no-input
NEEDS := pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)

.PHONY: demo test
demo: .venv/.demo-ready
	@$(BIN)/python examples/demo.py

test: .venv/.test-ready
	$(BIN)/python -m pytest -n 3

.venv/.demo-ready: $(NEEDS)
	@echo "Making .venv and installing what the demo needs…"
	@$(PYTHON) -m venv .venv
	@$(PIP) install -c constraints.txt -e '.[prep]'
	@touch $@

.venv/.test-ready: .venv/.demo-ready
	@echo "Installing what the tests need…"
	@$(PIP) install -c constraints.txt 'pip>=25.1'
	@$(PIP) install -c constraints.txt -e '.[prep,download,images,fast,tokenizers,s3,hf,slurm,caches]' --group test \
		-e plugins/tieredstore-example -e plugins/tieredstore-sftp \
		-e plugins/datasets-prep-example
	-@$(PIP) install --no-deps --only-binary :all: -c constraints.txt megatron-core # one test's reader
	@touch $@
