# make demo [DATA=/path/to/images] [OUT=folder]   the main job, start to end, on real images
# make test                                       every test, two at a time; then those that start real clusters for
#                                                 long, two files at a time, while they fit into BUDGET seconds
# make ffcv                                       FFCV itself, which raymask's .beton files do not need (Debian, Ubuntu)
# make lint | make clean
# make bench [DATA=/path/to/jpegs]                what was measured in docs/; DATA adds the loader
#
# Each makes .venv and installs into it, once for each version of pyproject.toml.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
FFCV := $(VENV)/.ffcv
BUDGET ?= 1200
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# What FFCV is compiled with: two parts of OpenCV instead of all of it, 10 MB of packages instead of 150.
HEADERS := g++ pkg-config libopencv-core-dev libopencv-imgproc-dev libturbojpeg0-dev
DATA ?=
OUT ?= demo

.PHONY: demo test lint bench ffcv clean

demo: $(STAMP)
	$(RUN) -m raymask demo "$(DATA)" "$(OUT)"

test: $(STAMP)
	@[ -e $(FFCV) ] || $(MAKE) -s ffcv SUDO="$(SUDO:sudo=sudo -n)" || \
	    { echo "FFCV cannot be installed here: its tests are skipped, or fail where CI is set"; [ -z "$$CI" ]; }
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 -m "not (slow and ray)"; others=$$?; \
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "slow and ray" --budget=$(BUDGET) && exit $$others

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy pipelines raymask

bench: $(STAMP)
	for name in step mask_speed masked_teacher convvit order; do echo "== $$name"; $(RUN) -m tests.benchmarks.$$name || exit 1; done
	[ -z "$(DATA)" ] || for name in loader ingest scaling; do echo "== $$name"; $(RUN) -m tests.benchmarks.$$name "$(DATA)" || exit 1; done

ffcv: $(FFCV)

clean:
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .mypy_cache

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "raymask needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	[ -x $(RUN) ] && $(RUN) -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || \
	    { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q $(notdir $(PYTHON))-venv && $(PYTHON) -m venv --clear $(VENV); }
	$(RUN) -m pip install --disable-pip-version-check -q -e '.[dev]'
	touch $(STAMP)

# OpenCV's own opencv4.pc comes with all of it only; where it is missing, a stand-in names the two parts. FFCV's list of
# dependencies is left out: it does not import them, and one of them needs a display's libraries.
$(FFCV): $(STAMP)
	pkg-config --exists libturbojpeg 2> /dev/null && [ -e /usr/include/opencv4/opencv2/imgproc.hpp ] || \
	    { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends $(HEADERS); }
	[ -e $$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h ] || \
	    $(SUDO) apt-get install -y -q --no-install-recommends $(notdir $(PYTHON))-dev
	mkdir -p $(VENV)/opencv/opencv2
	printf '#include <opencv2/core.hpp>\n#include <opencv2/imgproc.hpp>\n' > $(VENV)/opencv/opencv2/opencv.hpp
	printf '%s\n' 'Name: OpenCV' 'Description: core and imgproc' 'Version: 4' 'Libs: -lopencv_core -lopencv_imgproc' \
	    'Cflags: -I$(abspath $(VENV))/opencv -I/usr/include/opencv4' > $(VENV)/opencv/opencv4.pc
	pkg-config --exists opencv4 || export PKG_CONFIG_PATH=$(abspath $(VENV))/opencv; \
	    $(RUN) -m pip install --disable-pip-version-check -q --no-deps $$($(RUN) -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ffcv"])')
	$(RUN) -c 'import ffcv'
	touch $(FFCV)
