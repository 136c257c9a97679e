# Two commands are all a new clone needs: `make demo` does the main job, `make test` passes the tests. Both set up first.
.PHONY: help setup demo test test-slow lint format lock bench-env bench clean
.DEFAULT_GOAL := help

DATA ?=
OUT ?= runs/demo
PYTHON := .venv/bin/python
TEST_WORKERS ?= 2
# TFX's Trainer and Beam's workers start `python` by name
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 3

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with Python 3.10 and the locked packages (skipped when nothing changed)
	@scripts/setup.sh

demo: setup ## pipeline, server, 16 synthetic photographs, report; DATA=folder:PATH for your own images, OUT=FOLDER
	.venv/bin/medsynth demo --out $(OUT) $(if $(DATA),--data $(DATA))

test: setup lint ## lint, types and all tests but the slow ones
	$(PYTHON) -m pytest -m "not slow" -n $(TEST_WORKERS) --dist worksteal

test-slow: setup ## the slow tests
	$(PYTHON) -m pytest -m slow

lint: setup ## ruff and mypy
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

format: setup ## let ruff format and mend what it can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

lock: ## resolve requirements.lock anew
	@scripts/lock.sh

bench-env: ## an environment of its own with PyTorch (Python 3.11), for benchmarks against it
	@scripts/bench_env.sh

bench: setup ## all speed benchmarks
	$(PYTHON) benchmarks/methods.py
	$(PYTHON) benchmarks/ingest.py
	$(PYTHON) benchmarks/serving.py

clean: ## remove environments and caches
	rm -rf .venv .tools .bench-venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
