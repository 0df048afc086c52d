# make demo    photographs in, enhanced and recovered ones out, with the figures: demo_out/
# make test    the tests in tests/, then every notebook
# Each target first makes .venv, once. PYTHON=... picks the interpreter (3.10 or later), PIP_OPTIONS=...
# is handed to pip, for example PIP_OPTIONS="--extra-index-url https://download.pytorch.org/whl/cpu".

VENV ?= .venv
JOBS ?= 2
THREADS ?= 2
BENCHES ?= startup guidance geometry networks generators edge training stream widgets
OUT ?= demo_out
PIP_OPTIONS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECENT := import sys; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c '$(RECENT)' >/dev/null 2>&1 && { echo $$p; break; }; done)

# ultralytics neither installs packages, nor calls home, nor writes to the home folder
export YOLO_AUTOINSTALL := false
export YOLO_OFFLINE := true
export YOLO_CONFIG_DIR := $(CURDIR)/$(VENV)/yolo
export YOLO_VERBOSE := false

.DEFAULT_GOAL := help
.PHONY: help demo test pytest notebooks lab labs docs bench sync lint hooks clean

help:
	@echo "make demo       the main job on sample photographs, into $(OUT)/"
	@echo "make test       the tests, then every notebook"
	@echo "make pytest     the tests only"
	@echo "make notebooks  the notebooks only (slow cells left out), $(JOBS) at a time"
	@echo "make lab        JupyterLab on the start page: the explorers live, and a map"
	@echo "make docs       the documentation site, without a network: _docs/html/index.html"
	@echo "make bench      speed as ratios within one run, into benchmarks/results/ ($(THREADS) threads)"
	@echo "make sync       modules and README from the notebooks, notebooks cleaned"
	@echo "make labs       the released labs from their sources, by nbgrader"
	@echo "make lint       ruff"
	@echo "make hooks      git drivers for notebooks and the pre-commit check, for this clone"
	@echo "make clean      remove caches, builds and $(OUT)/ (.venv stays)"

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "privnb needs Python 3.10 or later; none was found on the PATH." \
		"Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c '$(RECENT)' || { echo "privnb needs Python 3.10 or later; $(PYTHON) is older or" \
		"does not start. Name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || test -x $(BIN)/python || { \
		echo "$(PYTHON) comes without venv; on Debian: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_OPTIONS) -e '.[dev]'
	@$(BIN)/python -c 'import cv2' || { echo "OpenCV lacks a system library (see above);" \
		"on Debian: apt-get install libgl1 libglib2.0-0" >&2; exit 1; }
	@mkdir -p $(YOLO_CONFIG_DIR)
	@touch $@

demo: $(STAMP)
	$(BIN)/privnb demo --out $(OUT) --overwrite

test: pytest notebooks

# one thread a process; the tests of one file stay together
pytest: $(STAMP)
	MPLBACKEND=agg OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# one thread a notebook, $(JOBS) notebooks at a time
notebooks: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 \
		$(BIN)/nbdev-test --n-workers $(JOBS) --do-print --timing

lab: $(STAMP)
	$(BIN)/jupyter lab --notebook-dir=nbs --LabApp.default_url=/lab/tree/start.ipynb

docs: $(STAMP)
	$(BIN)/python tools/docs/make_docs.py --jobs $(JOBS)

labs: $(STAMP)
	$(BIN)/python tools/pack_labs.py

# one after the other, on a machine that does nothing else; each file tells the machine and its load
bench: $(STAMP)
	@mkdir -p benchmarks/results
	@for name in $(BENCHES); do echo "== $$name"; \
		case $$name in startup|geometry|stream) threads= ;; *) threads="--threads $(THREADS)" ;; esac; \
		OMP_NUM_THREADS=$(THREADS) $(BIN)/python benchmarks/$$name.py $$threads \
			--json benchmarks/results/$$name.json || exit 1; done
	@$(BIN)/python benchmarks/goals.py

sync: $(STAMP)
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean
	$(BIN)/python tools/make_readme.py
	$(BIN)/python tools/make_map.py

lint: $(STAMP)
	$(BIN)/ruff check .

hooks: $(STAMP)
	sh tools/install_hooks.sh $(VENV)

clean:
	rm -rf $(OUT) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache _docs
	find nbs privnb tests tools \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d \
		-prune -exec rm -rf {} +
