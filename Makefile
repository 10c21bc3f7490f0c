# `make` prints the targets. `make setup` is what the others start with; it does nothing, and
# needs neither privilege nor network, when everything is installed.
PYTHON ?= python3
# On Debian 12, take QEMU 10 from bookworm-backports (0: keep 7.2).
BACKPORTS ?= 1
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out
RUNS ?= 10
JOBS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check unit vm-test matrix mutations recipes bench schema docs wheel

help: ## Print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r t d; do printf '%-9s %s\n' "$$t" "$$d"; done

setup: ## Install what is missing: Debian packages (apt), Python packages (.venv)
	@BACKPORTS=$(BACKPORTS) sh host/setup.sh packages
	@PYTHON=$(PYTHON) sh host/setup.sh venv

demo: setup ## Build recipes/minimal-test.yml and boot it
	@$(BIN)/particle-os build recipes/minimal-test.yml --output $(OUT)

test: setup ## Run all tests, with virtual machines
	@sh host/setup.sh test-packages
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest -q -n 4 -m slow tests/unit tests/guest
	@$(MAKE) --no-print-directory vm-test

# Whoever turned this off would have each of hundreds of processes compile the same files anew.
export PYTHONDONTWRITEBYTECODE =

check: ## Format, lint, types, unit tests: the inner loop, under a minute
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/pytest -q -n 4 -m "not slow" tests/unit tests/guest

vm-test:
	@$(BIN)/pytest -v -n 3 --dist loadfile --no-loadscope-reorder --timeout 2400 --durations 20 tests/vm

matrix: setup ## Build and boot every combination of boot loader, table, file system, firmware
	@$(BIN)/python tests/matrix.py

recipes: setup ## Build and boot every recipe of recipes/
	@set -e; for recipe in recipes/*.yml; do $(BIN)/particle-os build $$recipe --output $(OUT); done

mutations: setup ## Break images in every way there is, and check each verdict (RUNS=10 JOBS=1)
	@$(BIN)/python tests/broken.py --runs $(RUNS) --jobs $(JOBS)

bench: setup ## Measure the speed of the parts on this machine
	@$(BIN)/python tests/bench/bench.py

schema: ## Write recipes/schema.json anew
	@$(BIN)/particle-os schema > recipes/schema.json.new
	@mv recipes/schema.json.new recipes/schema.json

docs: ## Write docs/stages.md and docs/checks.md anew from the docstrings
	@for page in stages checks; do \
	  $(BIN)/python -m particle_os.recipe.reference $$page > docs/$$page.md.new && \
	  mv docs/$$page.md.new docs/$$page.md || exit; \
	done
