# Two commands do everything on a fresh machine with python3.11, make and a C compiler:
#   make demo    the main job on built-in data        make test    every check
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DAGSTER_HOME ?= $(CURDIR)/.dagster_home
M5_DIR ?= $(CURDIR)/data/m5
CUTOFF ?= 2016-05-22
HORIZON ?= 28
OUT ?= out/m5_forecast.parquet
export DAGSTER_HOME
export DAGSTER_DISABLE_TELEMETRY = yes

.DEFAULT_GOAL := help
.PHONY: help install demo dashboard test e2e lint dev m5 bench clean

help: ## This list
	@grep -hE '^[a-z0-9_-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed $(DAGSTER_HOME)/dagster.yaml dbt_project/target/manifest.json ## Make the environment in .venv and the Dagster home

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'setuptools>=75' wheel
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]' | grep -vE '^(Requirement already|  (Downloading|Using cached))' || true
	touch $@

dbt_project/target/manifest.json: $(VENV)/.installed $(shell find dbt_project/models dbt_project/tests dbt_project/*.yml -type f)
	cd dbt_project && ../$(BIN)/dbt --quiet parse --profiles-dir .

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml $(VENV)/.installed
	mkdir -p $(DAGSTER_HOME)
	cp dagster.yaml $@
	$(BIN)/dagster instance migrate > /dev/null

demo: install ## Forecast generated data end to end, priced (3 stores, 600 series, 2 years)
	$(BIN)/forecast demo

dashboard: install ## What was forecast, what it cost, what comes next: http://localhost:8501
	$(BIN)/python -m dashboard

test: install lint ## Lint, types and the test suite
	$(BIN)/python -m pytest -q -n 2 --dist loadfile \
		-o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true # a hang says where

e2e: install ## The dashboard and the Dagster UI in a real browser; screenshots in out/screenshots
	$(BIN)/python -m pytest -q -m browser tests/e2e

lint: install ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dev: install ## Dagster webserver and daemon on http://localhost:3000
	$(BIN)/dagster dev

m5: install ## The whole of M5: M5_DIR=... CUTOFF=2016-04-24 HORIZON=28 OUT=forecast.parquet
	$(BIN)/forecast m5 --m5-dir '$(M5_DIR)' --cutoff '$(CUTOFF)' --horizon '$(HORIZON)' --out '$(OUT)'

bench: install ## Every benchmark, one after the other (long; `python -m benchmarks` lists them)
	$(BIN)/python -m benchmarks all

clean: ## Remove data, Dagster home and caches; keeps the environment
	rm -rf .forecast .dagster_home out .pytest_cache .mypy_cache .ruff_cache .hypothesis dbt_project/target dbt_project/logs
