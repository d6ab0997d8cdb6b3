# make demo [DATA=/path/to/images] [OUT=folder]   the main job, start to end, on real images
# make test                                       every test; slow ones last, while they fit into BUDGET seconds
# make lint | make clean
# make bench [DATA=/path/to/jpegs]                what was measured in docs/; DATA adds the loader
#
# Each makes .venv and installs into it, once for each version of pyproject.toml.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
BUDGET ?= 1200
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
DATA ?=
OUT ?= demo

.PHONY: demo test lint bench clean

demo: $(STAMP)
	$(RUN) -m raymask demo "$(DATA)" "$(OUT)"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(RUN) -m pytest --budget=$(BUDGET)

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy pipelines raymask

bench: $(STAMP)
	for name in step mask_speed masked_teacher convvit; do echo "== $$name"; $(RUN) -m tests.benchmarks.$$name || exit 1; done
	[ -z "$(DATA)" ] || $(RUN) -m tests.benchmarks.loader "$(DATA)"

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "raymask needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	[ -x $(RUN) ] && $(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
	    { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q $(notdir $(PYTHON))-venv && $(PYTHON) -m venv --clear $(VENV); }
	$(RUN) -m pip install --disable-pip-version-check -q -e '.[dev]'
	touch $(STAMP)
