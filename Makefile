# Everything lives in .venv of this checkout: `make serve` and `make test` set it up when it is missing or out of date.

PYTHON ?= python3
PORT ?= 8000
MODEL ?= qwen2.5-coder-0.5b-instruct
ENGINE ?= auto
# auto | gpu (vLLM) | cpu (vLLM for CPUs, pinned) | portable (Transformers); after another one, `make clean` first
DEVICE ?= auto

# Processes that the tests run in.
WORKERS ?= 2
WORKERS_OF_TESTS = --numprocesses $(WORKERS) --no-loadscope-reorder

export PYTHON
BIN := .venv/bin
# The fake engine needs no model.
SERVE = --engine $(ENGINE) --port $(PORT) $(if $(filter fake,$(ENGINE)),,--model $(MODEL))

.PHONY: install serve test test-wheel check docs bench clean

install: .venv/.installed

serve: .venv/.installed
	@exec $(BIN)/tts-server serve $(SERVE)

# One worker has the tests on real engines, the others have the rest.
test: .venv/.dev .venv/.clients
	@$(BIN)/python -m pytest $(WORKERS_OF_TESTS)

# The wheel alone in an empty environment, with the newest releases of what it needs.
test-wheel: .venv/.dev
	@$(BIN)/python -m pytest tests/wheel/check_wheel.py

check: .venv/.dev docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/hadolint docker/Dockerfile.*
	$(BIN)/python requirements/audit.py
	$(BIN)/python -m pytest -q tests/test_architecture.py

# The documentation site; it is read from its files, without a server and without a network.
docs: .venv/.docs
	@NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --quiet
	@echo "the documentation is at build/docs/index.html"

bench: .venv/.installed
	@$(BIN)/python -m bench.studies.overhead --tokens 128 --rounds 5 --out bench/results/overhead.md
	@$(BIN)/python -m bench.studies.load --requests 5000 --clients 200 --out bench/results/load.md
	@$(BIN)/python -m bench.studies.search --out bench/results/search.md
	@$(BIN)/python -m bench.studies.step_cost --out bench/results/step_cost.md
	@$(BIN)/python -m bench.studies.prm --model smollm2-135m-instruct --out bench/results/prm.md

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage

# The stamps are written last, so that an installation that broke off is taken up again.
.venv/.installed: pyproject.toml requirements/cpu.txt requirements/install.sh
	@requirements/install.sh $(DEVICE)
	@touch $@

.venv/.dev: .venv/.installed requirements/dev.txt
	@requirements/install.sh dev
	@touch $@

.venv/.clients: .venv/.installed requirements/clients.txt tests/acceptance/node/package-lock.json
	@requirements/install.sh clients
	@touch $@

.venv/.docs: .venv/.installed requirements/docs.txt
	@requirements/install.sh docs
	@touch $@
