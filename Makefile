# Everything that `make demo` and `make test` need is put into a private environment, $(VENV).
# No other environment is touched, nothing is compiled, and a second call costs nothing.

# Settings, e.g. `make test JOBS=4`:
VENV ?= .venv#            where the private environment lies
PYTHON ?=#                interpreter that makes it; empty = the first that fits (3.11 or newer)
TORCH_INDEX_URL ?=#       where to find torch, e.g. https://download.pytorch.org/whl/cpu
JOBS ?= 2#                test processes; each computes with one thread
PYTEST_ARGS ?=#           e.g. -k sampler, or a test file
DEMO_ARGS ?=#             for tools/demo.py
BENCH_ARGS ?=#            for each script under tools/benchmark/
WEB_ARGS ?=#              for tools/web_demo.py, e.g. --port 8080
# What test-floors and test-forks replace: the versions to install and the oldest Python for them.
PINNED ?= requirements/pins.txt
PYTHON_MIN ?= 3.11
# For every pip call; quiet unless a terminal can show its progress. pip's own configuration and
# its variables (PIP_INDEX_URL for a mirror, PIP_PROXY, ...) apply too.
PIP_ARGS ?= $(shell [ -t 2 ] || echo -qq)

VENV := $(or $(strip $(VENV)),.venv)
ifneq ($(words $(VENV)),1)
$(error VENV must be one path without spaces, got '$(VENV)')
endif
PY := $(VENV)/bin/python
MARK := $(VENV)/.made-for-mmsnnet
BASE := $(VENV)/.base-ready
PINS := $(VENV)/.pins-installed
READY := $(VENV)/.ready
CANDIDATES := $(or $(strip $(PYTHON)),python3 python3.11 python3.12 python3.13)
TORCH_PINS = $(shell grep -E '^(torch|torchvision)==' $(PINNED))
# Without compiling all modules ahead: Python compiles the fraction that is imported.
PIP = $(PY) -m pip install --no-compile $(strip $(PIP_ARGS))
COMMA := ,
OLDEST = $(subst .,$(COMMA) ,$(PYTHON_MIN))
SAY = @printf '[setup] %s\n'

# What could lead pip or Python to another environment, or to another user's packages.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_ROOT
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PYTHONNOUSERSITE := 1
export MPLBACKEND := Agg
export PATH := $(if $(filter /%,$(VENV)),,$(CURDIR)/)$(VENV)/bin:$(PATH)
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.PHONY: help setup demo web test test-all test-core print-core test-floors test-forks test-gpu lint \
    bench bench-gpu clean clean-env FORCE

help:
	@echo 'make demo      set up, then train, stitch and test a small model on rendered rooms'
	@echo 'make web       show two budgets of the model of make demo side by side in a browser'
	@echo 'make test      set up, then run the tests, except slow ones'
	@echo 'make test-all  the same with slow ones'
	@echo 'make test-floors, test-forks  the tests that depend on versions, with the oldest ones and'
	@echo '               with the maintained forks of OpenMMLab; each in an environment of its own'
	@echo 'make test-gpu, bench-gpu  the tests and ratios that only a GPU can tell, on one card'
	@echo 'make lint      check the style of the code'
	@echo 'make bench     measure speed and memory'
	@echo 'make setup     only set up the private environment $(VENV)'
	@echo 'make clean     remove what was built and cached; clean-env: the environment too'
	@echo 'Settings (JOBS, PYTHON, VENV, TORCH_INDEX_URL, ...) stand at the top of the Makefile.'

setup: $(READY)
	@echo '[setup] $(VENV) is ready'

demo: $(READY)
	@$(PY) tools/demo.py $(strip $(DEMO_ARGS))

WEB := work_dirs/rooms/stitched
web: $(READY)
	@if [ ! -f $(WEB)/stitches/stitches.jsonl ]; then \
	    echo 'error: there is no model yet: run make demo first.' >&2; exit 1; fi
	@$(PY) tools/web_demo.py $(WEB)/upernet_snnetv2_rooms.py $(WEB)/iter_3000.pth \
	    --results $(WEB)/stitches --samples data/rooms/images/validation --measure --open \
	    $(strip $(WEB_ARGS))

# The processes share the work; worksteal keeps the tests of a file together as far as it goes.
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(strip $(JOBS)) --dist worksteal
test: $(READY)
	$(PYTEST) $(strip $(PYTEST_ARGS))

test-all: $(READY)
	$(PYTEST) --run-slow $(strip $(PYTEST_ARGS))

# One process: the tests share the card. All others run on the CPU wherever they are.
test-gpu: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m gpu tests/test_gpu $(strip $(PYTEST_ARGS))

# What depends most on the versions of other packages, in a quarter of the time of all tests: ours
# of compat, anchors as timm builds them, the backbone and its fit, training with its hooks, loops,
# resuming and two processes, a sweep, conversion, and one recipe of each task on photographs.
# The rest is for `make test`: a change of versions that breaks it alone is unlikely.
CORE = tests/test_compat/ tests/test_convert/ \
    $(addprefix tests/test_models/test_,$(addsuffix .py,anchors/test_anchor_vit \
        anchors/test_anchor_weights anchors/test_compiled_blocks \
        anchors/test_rotary_and_bias_anchors checkpoint_file fake_cuda stitch_fit stitched_vit \
        stitched_vit_checkpointing stitched_vit_in_mmseg stitched_vit_training)) \
    $(addprefix tests/test_engine/test_,$(addsuffix .py,detection distributed loops resume \
        rng_state stitch_init_hook stitch_sampling_hook)) \
    tests/test_evaluation/test_cost/test_flop_counter.py \
    tests/test_evaluation/test_sweep/test_sweep.py tests/test_photographs.py tests/test_registry.py
print-core:
	@echo $(CORE)

test-core: $(READY)
	$(PYTEST) $(CORE) $(strip $(PYTEST_ARGS))

# pyenv's python3.9 on the path refuses unless it was chosen, so its versions are looked for.
PYENV_39 = $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.9.*/bin/python3.9)
test-floors:
	@$(MAKE) VENV=.venv-floors PINNED=requirements/floors.txt PYTHON_MIN=3.9 \
	    PYTHON='$(or $(strip $(PYTHON)),$(PYENV_39) python3.9 python3.10 python3.11)' test-core

# OpenMIM too, whose tests are slow: the forks have one of their own.
test-forks:
	@$(MAKE) VENV=.venv-forks PINNED=requirements/forks.txt test-core
	@$(MAKE) VENV=.venv-forks PINNED=requirements/forks.txt PYTEST_ARGS= CORE=tests/test_mim.py \
	    PYTEST='OMP_NUM_THREADS=1 $$(PY) -m pytest -q --run-slow' test-core

lint: $(READY)
	$(PY) -m ruff check .

bench: $(READY)
	@for script in tools/benchmark/[!_]*.py; do \
	    echo "== $$script"; $(PY) "$$script" $(strip $(BENCH_ARGS)) || exit 1; done

bench-gpu: $(READY)
	@for name in training_step routes_per_step; do \
	    echo "== $$name"; $(PY) tools/benchmark/$$name.py --device cuda $(strip $(BENCH_ARGS)) \
	    || exit 1; done

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find mmsnnet tests tools configs -name __pycache__ -type d -prune -exec rm -rf {} +

clean-env: clean
	@$(CHECK_OWNER); \
	if [ -n "$$refused" ]; then echo "$(VENV) $$refused; left alone."; \
	else rm -rf $(VENV) mmsnnet/.mim; fi

# An environment moved together with the project holds the old paths: make it anew.
ifneq ($(shell cat $(BASE) 2>/dev/null),$(if $(wildcard $(BASE)),$(CURDIR)))
$(BASE): FORCE
endif

# Says in $$refused why an environment is left alone. Its mark holds the project that made it and
# the place where it was made; those of earlier versions hold nothing, but .base-ready names the
# project. An environment in this project's folder that was made elsewhere came along with a move
# or a copy of the project.
define CHECK_OWNER
refused=; \
if [ -e $(VENV) ] && [ ! -e $(MARK) ]; then refused='was not made by this Makefile'; \
elif [ -e $(VENV) ]; then \
    owner=$$(sed -n 1p $(MARK)); place=$$(sed -n 2p $(MARK)); \
    [ -n "$$owner" ] || owner=$$(cat $(BASE) 2>/dev/null); \
    case '$(abspath $(VENV))/' in '$(CURDIR)'/*) inside=yes;; *) inside=;; esac; \
    if [ "$$owner" != '$(CURDIR)' ] && \
            { [ -z "$$inside" ] || [ "$$place" = '$(abspath $(VENV))' ]; }; then \
        refused="was made by another checkout ($${owner:-unknown})"; fi; \
fi
endef

# The interpreter is looked for before anything is removed, and the mark comes before the
# environment, so that one that was begun is known as ours.
$(BASE):
	@$(CHECK_OWNER); \
	if [ -n "$$refused" ]; then \
	    echo "error: $(VENV) $$refused, and is left alone;" \
	        'choose another folder with VENV=...' >&2; exit 1; fi; \
	for python in $(CANDIDATES) ''; do \
	    if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < ($(OLDEST)))' \
	        2>/dev/null; then break; fi; done; \
	if [ -z "$$python" ]; then \
	    echo 'error: no Python of version $(PYTHON_MIN) or newer with venv among: $(CANDIDATES);' \
	        'name one with PYTHON=...' >&2; exit 1; fi; \
	printf '[setup] private environment %s, %s\n' $(VENV) "$$($$python --version)"; \
	rm -rf $(VENV) && mkdir -p $(VENV) && \
	    printf '%s\n' '$(CURDIR)' '$(abspath $(VENV))' > $(MARK) && $$python -m venv $(VENV)
	@printf '%s\n' '$(CURDIR)' > $@

$(PINS): $(BASE) $(PINNED)
	$(SAY) '$(TORCH_PINS) (the largest part: about 5 GB with CUDA)'
	@$(PIP) $(shell grep '^setuptools==' $(PINNED))
	@$(PIP) $(if $(strip $(TORCH_INDEX_URL)),--index-url $(strip $(TORCH_INDEX_URL))) $(TORCH_PINS)
	$(SAY) 'the other packages of $(PINNED)'
	@$(PIP) -r $(PINNED)
	@touch $@

$(READY): $(PINS) setup.py mmsnnet/version.py requirements/runtime.txt
	$(SAY) 'mmsnnet itself, editable'
	@$(PIP) --no-deps --no-build-isolation -e .
	$(SAY) 'operators of torchvision for mmcv-lite'
	@$(PY) -m mmsnnet.compat install-ops
	@touch $@
