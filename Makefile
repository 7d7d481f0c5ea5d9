# `make demo` and `make test` do all the set-up on a machine that has Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One torch thread a process unless told otherwise: two oversubscribed OpenMP threads were measured 12-40x slower than
# one on tiny models, because they spin against every other process.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Compiled tests and modules are kept: without them each worker and each command that a test starts compiles anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo dev test test-slow fuzz nightly lint bench clean verify-real docs paper paper-reduced paper-full mini-study

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
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,tts]'
	$(BIN)/pytest -m nightly

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks

# On a machine that has the weights: MODEL=moonshotai/Kimi-Audio-7B-Instruct, a folder, …; VERIFY: options of
# `undersong verify`, such as VERIFY="--device cuda --dtype bfloat16 --prompt-set SafetyBench=spoken.jsonl".
VERIFY ?= --device cuda --dtype bfloat16
verify-real: $(VENV)/.installed
	@test -n "$(MODEL)" || { echo "Say which: make verify-real MODEL=ID"; exit 2; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[hf]'
	$(BIN)/undersong verify "$(MODEL)" $(VERIFY)

# The paper's claims on many trained bases, and docs/results/paper.md; resumable. It trains the bases first, with eSpeak's voices.
paper: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[tts]'
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
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[encoders]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps resemblyzer
	$(BIN)/python -m experiments.mini.corpora --work out/mini $(MINI)
	$(BIN)/python -m experiments.mini $(STUDY)

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[models]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

clean:
	rm -rf out site build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
