# `make chat` opens the interactive client; `make test` runs all tests. Both install what they need into .venv folders here.
PYTHON ?= python3
VENV := .venv
BETA := .venv-beta
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help chat test campaign check bench format clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

chat: $(VENV)/.chat ## Talk to an agent whose conversations outlive the process
	@$(BIN)/everthread chat

test: $(VENV)/.dev $(BETA)/.beta ## Run all tests, on real servers
	$(BIN)/python -m pytest -n 4 --dist worksteal
	$(BETA)/bin/python -m pytest -n 4 --dist worksteal tests/beta

campaign: $(VENV)/.dev ## Run all tests, and the whole kit over every front of every engine (an hour or so)
	$(BIN)/python -m pytest -n 4 --dist worksteal --campaign

check: $(VENV)/.dev ## Lint, check formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## Measure append, read and whole turns against a bare driver in the same run
	$(BIN)/python -m bench $(BENCH_OPTIONS)

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what these commands installed
	rm -rf .venv .venv-beta

$(VENV)/.uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv
	@touch $@

$(VENV)/.chat: $(VENV)/.uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[all,testing]' --group dev
	@touch $@ $(VENV)/.chat

# The betas of Agent Framework cannot live beside its 1.x, and need an older mcp.
$(BETA)/.beta: $(VENV)/.uv pyproject.toml constraints-beta.txt
	$(PYTHON) -m venv $(BETA)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BETA)/bin/python -c constraints-beta.txt -e '.[redis,testing]' --group beta
	@touch $@
