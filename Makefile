# Two commands: `make book` builds and executes the book, `make test` checks everything. The rest helps.
# Needs only python3 (3.10 to 3.13) with venv, and make. Only the first set-up uses the network.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
RUN := $(VENV)/bin/python
JUPYTER_BOOK := $(RUN) $(VENV)/bin/jupyter-book
READY := $(VENV)/.ready
# the tools of isolated builds (jieba has no wheel) are pinned too: pip below 25.3 reads the first, newer ones the second
PINNED := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
SITE := _build/html/index.html
BROWSER := book/live/node_modules/.package-lock.json
EXECUTED := _build/executed
# Made anew each time: what finds outputs looks at the text of the cells alone. A page that fails is not among them, so
# that a build executes it again, fails and says why.
EXECUTE = rm -rf $(EXECUTED) && $(EDITIONS) $(RUN) -m asymmbook execute $(EXECUTED)
PLACE_ZH := mkdir -p _build/html && rm -rf _build/html/zh && cp -R _build/zh_CN/_build/html _build/html/zh
# $(call EDITION,zh_CN): build from what locale/edition.py has written
EDITION = build . --all --path-output _build/$(1) --config _build/$(1)/_config.yml --toc _build/$(1)/_toc.yml

export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONPATH :=
# what is compiled is kept, also where an image says otherwise: pytest would rewrite a hundred modules in every process
export PYTHONDONTWRITEBYTECODE :=
# a test that hangs is named, with the stacks of its threads; a signal could not end what hangs below Python. Without what
# runs notebooks, which each process would load for more than a second
PYTEST := -m pytest -q -p no:nbmake --timeout=600 --timeout-method=thread
# two processes of one thread each do more than one of two threads; who is done takes tests over from the other
PAIR := $(PYTEST) -n 2 --dist worksteal
NBMAKE := -m pytest --nbmake --nbmake-timeout=900 notebooks/
# Figures are drawn for every edition in the one execution; other outputs are text, translated when an edition is built.
EDITIONS := ASYMMBOOK_EDITIONS=zh_CN
# The notebooks are stored by one run, which each of them names, and with runs of its own: none from before is loaded
STORED_RUNS := $(CURDIR)/_build/stored-runs
STORE = $(EDITIONS) ASYMMLIB_DATA=sample ASYMMLIB_RECIPE=quick ASYMMLIB_RUNS=$(STORED_RUNS) \
  ASYMMBOOK_RUN=$$(git describe --always --dirty --exclude='*')-$$(date -u +%Y%m%dT%H%M%SZ)
# no times and no versions of one run in stored notebooks
CLEAR := --ClearMetadataPreprocessor
BARE := $(CLEAR).enabled=True $(CLEAR).preserve_nb_metadata_mask=kernelspec \
  $(CLEAR).preserve_cell_metadata_mask=tags $(CLEAR).preserve_cell_metadata_mask=mystnb

.PHONY: bench book book-en book-zh fresh fresh-outputs catalogues figures test quick faults mutants owndata serve notebooks lint unit nbtest site \
  browser visualdl wheel aistudio clean setup executed english chinese pdf printed
.DEFAULT_GOAL := book

setup: $(READY) $(BROWSER)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Python 3.10 to 3.13 is needed; say which with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "venv is missing; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PINNED) $(RUN) -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[cpu,book,dev,ship,quantise,runtimes]'
	@touch $(READY)

# the runtime of the live page, in the versions and with the hashes of book/live/package-lock.json
$(BROWSER): book/live/package.json book/live/package-lock.json
	@command -v npm > /dev/null || { echo "npm is missing: the live page will say how to get its demo"; exit 0; } && \
	  npm ci --prefix book/live --ignore-scripts --no-audit --no-fund --loglevel=error && touch $@ || \
	  echo "npm could not fetch onnxruntime-web: the live page will say how to get its demo"

# Notebooks and pages are executed side by side; then both editions are built, the Chinese one with the stored outputs of
# the notebooks. A line tells of each page that is done.
book: $(READY) $(BROWSER) fresh-outputs
	$(MAKE) --jobs 2 fresh chinese
	$(PLACE_ZH)
	@echo "Open file://$(CURDIR)/$(SITE)"

# The English edition alone
book-en: $(READY) $(BROWSER) fresh-outputs
	$(MAKE) fresh
	@echo "Open file://$(CURDIR)/$(SITE)"

fresh-outputs: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	$(EXECUTE) notebooks/*.ipynb book/*.md

fresh: $(READY) $(BROWSER)
	$(RUN) locale/edition.py fresh
	$(JUPYTER_BOOK) build . --config _build/fresh/_config.yml -W -n --keep-going --all

test: lint unit nbtest site browser

# The inner loop: what takes less than a minute.
quick: lint
	OMP_NUM_THREADS=1 $(RUN) $(PAIR) --ignore=tests/browser -m "not slow and not serial"

lint: $(READY)
	$(RUN) -m ruff check .
	$(VENV)/bin/lint-imports --no-logo
	$(RUN) -m mypy

unit: $(READY) $(BROWSER)
	OMP_NUM_THREADS=1 $(RUN) $(PAIR) --ignore=tests/browser -m "not serial"
	$(RUN) $(PYTEST) --ignore=tests/browser -m serial

nbtest: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	OMP_NUM_THREADS=1 $(RUN) $(NBMAKE) -n 2

# The site from stored outputs of the notebooks, which `nbtest` has just executed; pages in book/ do execute, once for
# both languages.
site: executed
	$(MAKE) --jobs 2 english chinese
	$(PLACE_ZH)

# The Chinese edition, from stored outputs, into zh/ of the English one: a link leads from each page to its twin.
book-zh: executed
	$(MAKE) chinese
	$(PLACE_ZH)

# The outputs of the pages in book/, for the two builds that follow.
executed: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	$(EXECUTE) book/*.md

english: $(READY) $(BROWSER)
	$(RUN) locale/edition.py en
	$(JUPYTER_BOOK) build . --config _build/en/_config.yml -W -n --keep-going --all

chinese: $(READY) $(BROWSER)
	$(RUN) locale/edition.py zh_CN
	$(JUPYTER_BOOK) $(call EDITION,zh_CN) -W -n --keep-going

# The whole book as one PDF a language, in _build/pdf: Sphinx's page of everything, printed by Chromium.
pdf: executed
	$(MAKE) printed EDITION_TO_PRINT=en
	$(MAKE) printed EDITION_TO_PRINT=zh_CN

printed:
	$(RUN) locale/edition.py $(EDITION_TO_PRINT)
	$(JUPYTER_BOOK) $(call EDITION,$(EDITION_TO_PRINT)) --path-output _build/pdf/$(EDITION_TO_PRINT) --builder singlehtml
	$(RUN) -m asymmbook pdf $(EDITION_TO_PRINT)

# After a change of the English text: bring it into the catalogues of locale/, where its translation is then written.
catalogues: $(READY)
	$(RUN) locale/edition.py gettext
	SOURCE_DATE_EPOCH=0 $(JUPYTER_BOOK) $(call EDITION,gettext) --builder custom --custom-builder gettext
	rm -f _build/gettext/_build/gettext/sphinx.pot  # the theme's few words: sphinx.po has them, by hand
	$(RUN) $(VENV)/bin/sphinx-intl update -p _build/gettext/_build/gettext -d locale -l zh_CN -w 100 --no-obsolete
	@$(RUN) $(VENV)/bin/sphinx-intl stat -d locale -l zh_CN || true

# The built site in Chromium, with the network cut; skipped, with the reason, where there is no Chromium.
browser: $(READY)
	$(RUN) $(PAIR) -rs tests/browser

# What others install, in environments of their own; a Python that is not here is skipped, all without a package index.
wheel aistudio: $(READY)
	$(RUN) -m nox --no-error-on-missing-interpreters --sessions $@

# Execute the notebooks on the drawn pictures and store what they show: no other pictures go into the repository.
notebooks: $(READY)
	rm -rf $(STORED_RUNS)
	$(STORE) $(RUN) $(NBMAKE) --overwrite
	$(RUN) -m nbconvert --to notebook --inplace --log-level ERROR $(BARE) notebooks/*.ipynb

# Every fault and every damaged file that book/trust.md counts; `test` does a small part of them.
faults: $(READY)
	ASYMMLIB_FAULTS=full OMP_NUM_THREADS=1 $(RUN) -m pytest -q tests/faults

# The 200 small mistakes of tests/mutation/mutants.csv that have no verdict yet, tried on the tests; then the count. And
# the last statement of everything that a notebook writes out, taken out: the page's own comparison has to notice.
# Last, the photograph of VisualDL's page.
mutants: $(READY)
	OMP_NUM_THREADS=1 $(RUN) -W ignore tests/mutation/trials.py
	ASYMMLIB_MUTANTS=all $(RUN) -m pytest -q tests/book/test_written.py tests/book/test_visualdl.py -k 'gone or photographed'

# All notebooks on folders of pictures as readers have them; `test` runs the first two on some of these.
owndata: $(READY)
	ASYMMLIB_NOTEBOOKS=all $(RUN) -m pytest -q -rs tests/book/test_own_data.py

# Speed and memory of training in interleaved rounds -> results/bench*.csv, this processor's rows; a quarter of an hour on
# two cores, on a machine at rest. `benchmarks/bench.py --quick` only prints.
bench: $(READY)
	$(RUN) -m asymmlib prepare --data sample
	$(RUN) benchmarks/bench.py
	$(RUN) benchmarks/kernel_times.py

# The drawings of the pages, book/images/*.svg, after a change of asymmbook.figures
figures: $(READY)
	$(RUN) -m asymmbook draw

# VisualDL in Chromium, in both languages, with the runs of notebook 3, which must have been executed:
# book/images/visualdl*.png
visualdl: $(READY)
	$(if $(wildcard $(STORED_RUNS)),ASYMMLIB_RUNS=$(STORED_RUNS)) $(RUN) -m asymmbook visualdl

serve:
	$(RUN) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean:
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache notebooks/.ipynb_checkpoints
