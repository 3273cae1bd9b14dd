# Two commands: `make book` builds and executes the book, `make test` checks everything. The rest helps.
# Needs only python3 (3.10 to 3.13) with venv, and make. Only the first set-up uses the network.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
SITE := _build/html/index.html

export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONPATH :=
NBMAKE := -m pytest --nbmake --nbmake-timeout=900 notebooks/
# no times and no versions of one run in stored notebooks
CLEAR := --ClearMetadataPreprocessor
BARE := $(CLEAR).enabled=True $(CLEAR).preserve_nb_metadata_mask=kernelspec \
  $(CLEAR).preserve_cell_metadata_mask=tags $(CLEAR).preserve_cell_metadata_mask=mystnb

.PHONY: book bench test serve notebooks lint unit nbtest site clean setup
.DEFAULT_GOAL := book

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.10 to 3.13 is needed; say which with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "venv is missing; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[cpu,book,dev]'
	@touch $(READY)

book: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	$(RUN) -m jupyter_book build . -W -n --keep-going --all
	@echo "Open file://$(CURDIR)/$(SITE)"

test: lint unit nbtest site

lint: $(READY)
	$(RUN) -m ruff check .

unit: $(READY)
	$(RUN) -m pytest -q

nbtest: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	$(RUN) $(NBMAKE) -n 2

# The site from stored outputs of the notebooks, which `nbtest` has just executed; pages in book/ do execute.
site: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	mkdir -p _build
	sed 's/execute_notebooks: force/execute_notebooks: auto/' _config.yml > _build/stored.yml
	$(RUN) -m jupyter_book build . --config _build/stored.yml -W -n --keep-going --all

# Execute the notebooks on the drawn pictures and store what they show: no other pictures go into the repository.
notebooks: $(READY)
	ASYMMLIB_DATA=sample ASYMMLIB_RECIPE=quick $(RUN) $(NBMAKE) --overwrite
	$(RUN) -m nbconvert --to notebook --inplace --log-level ERROR $(BARE) notebooks/*.ipynb

# Speed and memory of everything in one interleaved run -> results/bench.csv; `benchmarks/bench.py --quick` only prints.
bench: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	$(RUN) benchmarks/bench.py

serve:
	$(RUN) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean:
	rm -rf _build .pytest_cache .ruff_cache notebooks/.ipynb_checkpoints
