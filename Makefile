# make demo | test | lint | bench | clean: each makes .venv first where it is missing; a second call starts at once.
# PYTHON chooses the interpreter, PIP_ARGS adds to pip's arguments (see CONTRIBUTING.md).

PYTHON ?= python3
PIP_ARGS ?=
# What is left of a PYTHONPATH or an activated environment must not leak into ours.
unexport PYTHONPATH PYTHONHOME

VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
INSTALLED_BENCH := $(VENV)/.installed-bench
# One thread a test process: two processes on two cores are faster than one with two threads.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
TEST_JOBS ?= 2
DEMO := runs/demo
BENCH := runs/bench
# The second run of the tests: shapes and types of every call are held against the annotations.
TYPED := core,apps,beartype.beartype
TYPED_TESTS := $(addprefix tests/core/,attention convolution feedforward kernels layout norm optim position rewrite test_sequence.py) \
  $(addprefix tests/apps/tabular/prediction/test_,mixing.py model.py task.py weights.py) \
  $(addprefix tests/apps/asr/test_,augment.py decoding.py features.py inference.py initialisation.py model.py) \
  $(addprefix tests/apps/asr/test_,reduction.py subsampling.py task.py windows.py) \
  $(addprefix tests/apps/asr/data/test_,audio.py dataset.py) \
  $(addprefix tests/apps/vision/segmentation/,data/test_augment.py data/test_batches.py data/test_geometry.py) \
  $(addprefix tests/apps/vision/segmentation/,data/test_rare.py data/test_streets.py test_metrics.py test_model.py) \
  $(addprefix tests/apps/vision/segmentation/,data/test_style.py test_adaptation.py test_settled.py test_share.py) \
  $(addprefix tests/apps/vision/segmentation/,test_task.py test_watch.py test_weights.py)

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    train, evaluate and predict on bundled real tables, synthetic speech and streets; leaves $(DEMO)"
	@echo "make test    the default tests"
	@echo "make lint    ruff, mypy, import laws"
	@echo "make bench   leak and step time; with DATA=DIR also quality, its table and time to best (hours). Installs the peers"
	@echo "make clean   remove caches and $(DEMO)"

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than Python 3.11; say make PYTHON=python3.11" >&2; exit 2; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[dev]"
	@touch $@

$(INSTALLED_BENCH): $(INSTALLED)
	$(RUN) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[bench]"
	@touch $@

demo: $(INSTALLED)
	@for table in breast_cancer diabetes; do set -e; \
	  $(RUN) -m apps.tabular.prediction.train --data bundled:$$table --out $(DEMO)/$$table; \
	  $(RUN) -m apps.tabular.prediction.evaluate $(DEMO)/$$table --report $(DEMO)/$$table/report; \
	  $(RUN) -c "import sys; from sklearn import datasets as d; f = getattr(d, 'load_$$table')(as_frame=True).data; f.head(10).to_csv(sys.argv[1], index=False)" $(DEMO)/$$table/rows.csv; \
	  $(RUN) -m apps.tabular.prediction.predict $(DEMO)/$$table $(DEMO)/$$table/rows.csv --out $(DEMO)/$$table/predictions.csv; \
	done
	$(RUN) -m apps.asr.train --out $(DEMO)/speech --fit.max-epochs 14 --max-minutes 2
	$(RUN) -m apps.asr.evaluate $(DEMO)/speech --report $(DEMO)/speech/report
	$(RUN) -c "from apps.asr.data.sources import load_corpus; print(*(u.path for u in load_corpus().splits['test'][:3]), sep='\n')" \
	  | xargs $(RUN) -m apps.asr.predict $(DEMO)/speech
	@for kind in none adapt; do set -e; \
	  $(RUN) -m apps.vision.segmentation.train --preset tiny --adaptation.kind $$kind --fit.max-epochs 24 --out $(DEMO)/streets-$$kind; \
	done
	$(RUN) -m apps.vision.segmentation.evaluate $(DEMO)/streets-adapt --beside $(DEMO)/streets-none --report $(DEMO)/streets-adapt/report
	$(RUN) -c "import sys; from pathlib import Path; from PIL import Image; from apps.vision.segmentation.data.streets import street_domain as world; out = Path(sys.argv[1]); out.mkdir(exist_ok=True); [Image.fromarray(item.image.read()).save(out / f'{number}.png') for number, item in enumerate(world('dusk').splits['test'][:3])]" $(DEMO)/streets-frames
	$(RUN) -m apps.vision.segmentation.predict $(DEMO)/streets-adapt $(DEMO)/streets-frames --out $(DEMO)/streets-labels --overwrite

test: $(INSTALLED)
	@export $(TEST_ENV); status=0; \
	  $(RUN) -m pytest -n $(TEST_JOBS) || status=$$?; \
	  $(RUN) -m pytest -n $(TEST_JOBS) --jaxtyping-packages=$(TYPED) $(TYPED_TESTS) || status=$$?; \
	  exit $$status

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: $(INSTALLED_BENCH)
	$(RUN) -m benchmarks.tabular.leak --out $(BENCH)/leak.json
	$(RUN) -m benchmarks.tabular.steptime --out $(BENCH)/steptime.json --threads 2
ifdef DATA
	$(RUN) -m benchmarks.tabular.quality --data "$(DATA)" --out $(BENCH)/quality
	$(RUN) -m benchmarks.tabular.table --data "$(DATA)" --runs $(BENCH)/quality/runs --out $(BENCH)/quality.json
	$(RUN) -m benchmarks.tabular.time_to_best --data "$(DATA)" --out $(BENCH)/time_to_best.json
endif

clean:
	rm -rf $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find core apps tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
