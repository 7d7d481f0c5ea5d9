# `make demo` and `make test` do all the set-up on a machine that has Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# All that these commands install: exact versions with hashes, for Python 3.11 to 3.13 on Linux and macOS. `make lock` renews it.
LOCK := requirements.lock
# PyTorch in its CPU build, which is on an index of its own. On a machine with a GPU, `make dev TORCH_INDEX=` takes PyPI's build.
TORCH_VERSION := 2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Installs this clone with extras; uv checks the hash of each package that it fetches against the lock.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint $(LOCK) --build-constraint $(LOCK) --editable
# One torch thread a process unless told otherwise: two oversubscribed OpenMP threads were measured 12-40x slower than
# one on tiny models, because they spin against every other process.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Compiled tests and modules are kept: without them each worker and each command that a test starts compiles anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo dev test test-newest test-oldest test-slow fuzz nightly lint lock bench clean verify-real docs paper paper-reduced paper-full mini-study

demo: $(VENV)/.installed
	$(BIN)/undersong demo --out out/demo

dev: $(VENV)/.installed-dev

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A worker takes whole files, so that what a file's tests share is made once, in the order of tests/conftest.py.
PYTEST_WORKERS ?= 2
test: lint
	$(BIN)/pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

# The site, whole and offline, in site/; a link that leads nowhere is an error.
docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict --clean

# The same tests with the newest and with the oldest versions that pyproject.toml allows, each in an environment of its own.
# UV_TORCH_BACKEND=cpu takes PyTorch's CPU build where its index can be reached.
RESOLUTION_newest := highest
RESOLUTION_oldest := lowest-direct
test-newest test-oldest: test-%: $(VENV)/.installer
	test -x .venv-$*/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv-$*
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python --upgrade --resolution $(RESOLUTION_$*) --editable '.[dev]'
	$(BIN)/uv pip list --quiet --python .venv-$*/bin/python
	.venv-$*/bin/pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.installed-dev $(VENV)/.installed-docs
	$(BIN)/python tests/slow.py

# Damaged inputs through the real commands, about five minutes.  make fuzz SEED=2 CASES=400; one target: ONLY=studies; one case:
# ONLY=studies CASE=17.
SEED ?= 1
CASES ?= 40
ONLY ?=
CASE ?=
fuzz: $(VENV)/.installed-dev
	FUZZ_SEED=$(SEED) FUZZ_CASES=$(CASES) FUZZ_CASE=$(CASE) $(BIN)/pytest -m slow tests/fuzz -k "$(ONLY)"

# Mini's card on 60 prompts.  Needs models/mini, flite, UNDERSONG_DATA (a folder of public text sets), and base weights in
# the hub's cache or at UNDERSONG_WHISPER and UNDERSONG_SMOLLM.  Where something is missing it skips and says what.
nightly: $(VENV)/.installed-dev
	$(INSTALL) '.[dev,tts]'
	$(BIN)/pytest -m nightly

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

# On a machine that has the weights: MODEL=moonshotai/Kimi-Audio-7B-Instruct, a folder, …; VERIFY: options of
# `undersong verify`, such as VERIFY="--device cuda --dtype bfloat16 --prompt-set SafetyBench=spoken.jsonl".
VERIFY ?= --device cuda --dtype bfloat16
verify-real: $(VENV)/.installed
	@test -n "$(MODEL)" || { echo "Say which: make verify-real MODEL=ID"; exit 2; }
	$(INSTALL) '.[hf]'
	$(BIN)/undersong verify "$(MODEL)" $(VERIFY)

# The paper's claims on many trained bases, and docs/results/paper.md; resumable. It trains the bases first, with eSpeak's voices.
paper: $(VENV)/.installed
	$(INSTALL) '.[tts]'
	$(BIN)/python -W ignore -m recipes.organisms.bases
	$(BIN)/python -m experiments.paper bases

# The published studies, with ablations, on three packaged bases, and docs/results/paper_reduced.md.
paper-reduced: $(VENV)/.installed
	$(BIN)/python -m experiments.paper reduced --to docs/results/paper_reduced.md

PAGE ?= out/paper/paper.md

paper-full: $(VENV)/.installed
	$(BIN)/python -m experiments.paper full --to $(PAGE)

# Mini's own study (docs/results/mini.md), once recipes/mini has made and `undersong models get mini` assembled it; resumable.
# MINI: options of experiments.mini.corpora, such as MINI="--smollm FOLDER --whisper FOLDER"; STUDY: of experiments.mini,
# such as STUDY="--workers 2 --set axes.semantic=text:FOLDER".
# glibc otherwise gives every large tensor back to the system at once, which cost a fifth of the CPU time.
mini-study: export MALLOC_MMAP_THRESHOLD_ = 8589934592
mini-study: export MALLOC_TRIM_THRESHOLD_ = 4294967296
mini-study: $(VENV)/.installed
	$(INSTALL) '.[encoders]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps resemblyzer
	$(BIN)/python -m experiments.mini.corpora --work out/mini $(MINI)
	$(BIN)/python -m experiments.mini $(STUDY)

# Without network for PyTorch's index, PyPI's build is taken with the next target, as the lock has it.
$(VENV)/.installer: $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	awk '/^[^ ]/ { uv = /^uv==/ } uv' $(LOCK) | $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement /dev/stdin
	test -z "$(TORCH_INDEX)" || $(BIN)/pip install --quiet --disable-pip-version-check --retries 1 --no-deps --index-url "$(TORCH_INDEX)" torch==$(TORCH_VERSION) \
	  || echo "$(TORCH_INDEX) has no PyTorch $(TORCH_VERSION) for this machine, or was not reached; taking the build on PyPI"
	touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.installer
	$(INSTALL) '.[models]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(INSTALL) '.[dev]'
	touch $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed
	$(INSTALL) '.[docs]'
	touch $@

# The newest versions that pyproject.toml allows, for every extra; UPGRADE= keeps the versions of today where they still fit.
# Then: every platform must have a wheel of each.
UPGRADE ?= --upgrade
lock: $(VENV)/.installer
	printf 'uv\nhatchling\neditables\ntorch==$(TORCH_VERSION)\n' | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 $(UPGRADE) \
	  --generate-hashes --all-extras --custom-compile-command "make lock" --output-file $(LOCK) pyproject.toml -
	set -e; for python in 3.11 3.12 3.13; do for platform in x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin; do \
	  MACOSX_DEPLOYMENT_TARGET=14.0 $(BIN)/uv pip compile --quiet --only-binary :all: --python-version $$python --python-platform $$platform \
	    --all-extras --constraint $(LOCK) --output-file /dev/null pyproject.toml && echo "wheels for $$python on $$platform"; done; done

clean:
	rm -rf out site build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
