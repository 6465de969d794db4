# Everything a person types. Each target says in one line what it does; `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OPTIINFRA_HOME ?= .optiinfra
HOME_DIR := $(abspath $(OPTIINFRA_HOME))
SANDBOX_HOME := $(HOME_DIR)/sandbox
RUN := OPTIINFRA_HOME=$(HOME_DIR) DAGSTER_HOME=$(HOME_DIR)/dagster
RUN_SANDBOX := OPTIINFRA_HOME=$(SANDBOX_HOME) DAGSTER_HOME=$(SANDBOX_HOME)/dagster

.DEFAULT_GOAL := help
.PHONY: help setup demo materialize test faults bench lint up clickhouse clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | column -t -s '|'

setup: $(BIN)/.installed dbt_project/target/manifest.json ## install into .venv what the project needs

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

dbt_project/target/manifest.json: $(BIN)/.installed $(shell find dbt_project -name target -prune -o -name logs -prune -o -type f -print)
	$(BIN)/dbt --quiet parse --project-dir dbt_project --profiles-dir dbt_project
	touch $@

$(HOME_DIR)/dagster/dagster.yaml $(SANDBOX_HOME)/dagster/dagster.yaml: optiinfra_pipelines/instance/dagster.yaml
	mkdir -p $(@D) && cp $< $@

demo: setup $(SANDBOX_HOME)/dagster/dagster.yaml ## sandbox clouds, everything materialised, the UI on 127.0.0.1:3000
	$(RUN_SANDBOX) $(BIN)/python -m optiinfra_pipelines.sandbox.run --then '$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000'

ifdef CUSTOMERS
materialize: setup $(HOME_DIR)/dagster/dagster.yaml ## the same without the UI; CUSTOMERS=file.yaml: that file's bills instead of the sandbox's
	$(RUN) OPTIINFRA_CUSTOMERS=$(CUSTOMERS) $(BIN)/python -m optiinfra_pipelines.defs.materialize
else
materialize: setup $(SANDBOX_HOME)/dagster/dagster.yaml
	$(RUN_SANDBOX) $(BIN)/python -m optiinfra_pipelines.sandbox.run
endif

test: setup ## the whole suite, both engines
	$(BIN)/pytest -n 2 --dist loadgroup

faults: setup ## the table of faults x providers
	$(BIN)/python -m optiinfra_pipelines.sandbox.fault_matrix

bench: setup ## every benchmark, or ONLY=<prefix>
	$(BIN)/python -m optiinfra_pipelines_tests.benchmarks $(if $(ONLY),--only $(ONLY))

lint: setup ## ruff, mypy, dbt parse
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/dbt --quiet --warn-error parse --no-partial-parse --project-dir dbt_project --profiles-dir dbt_project

up: setup $(HOME_DIR)/dagster/dagster.yaml ## your own customers.yaml in the UI on 127.0.0.1:3000
	$(RUN) $(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

clickhouse: setup ## the sandbox's ClickHouse server on 127.0.0.1:8123, until Ctrl-C
	$(BIN)/python -m optiinfra_pipelines.sandbox.clickhouse_server --port 8123 --path $(SANDBOX_HOME)/clickhouse

clean: ## remove what the commands made; your customers.yaml and .env stay
	rm -rf $(HOME_DIR) dbt_project/target dbt_project/logs
