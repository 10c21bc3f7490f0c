# `make` prints the targets. Each target first installs the packages that it needs: `check` and
# `generate` install Python packages in .venv; the others also install Debian packages (`make setup`).
PYTHON ?= python3
# On Debian 12, install QEMU 10 from bookworm-backports (0: keep QEMU 7.2).
BACKPORTS ?= 1
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out
# The architecture of the images of `make matrix`.
ARCHITECTURE ?= amd64
RUNS ?= 10
JOBS ?= 1
TESTS ?= tests/unit tests/guest
# More workers than processors cost more than they gain: each one imports everything.
WORKERS ?= $(shell nproc)
SEED ?= 1
FIRST ?=
N ?= 20
SECONDS ?= 60
TARGETS ?=

.DEFAULT_GOAL := help
.PHONY: help setup venv demo test check lint unit-test vm-test weekly matrix mutations good broken-updates faults farm-faults mutants recipes bench bench-ci fuzz \
	generate debian-facts deb image wheel

help: ## Print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r t d; do printf '%-12s %s\n' "$$t" "$$d"; done

setup: ## Install missing Debian packages (apt) and Python packages (.venv)
	@BACKPORTS=$(BACKPORTS) sh host/setup.sh packages
	@$(MAKE) --no-print-directory venv

# Targets that need no Debian package depend on this one; an up-to-date .venv costs nothing.
venv:
	@PYTHON=$(PYTHON) sh host/setup.sh venv

# A machine of arm64 runs images of arm64.
demo: DEMO = $(if $(filter aarch64,$(shell uname -m)),arm64,minimal-test)
demo: RUN = $(if $(filter arm64,$(DEMO)),run --architecture arm64,run)
demo: setup ## Build recipes/minimal-test.yml (on arm64: recipes/arm64.yml) and boot it
	@$(BIN)/particle-os build recipes/$(DEMO).yml --output $(OUT)
	@echo 'Boot it here with: $(BIN)/particle-os $(RUN) $(OUT)/$(DEMO).qcow2'
	@echo 'To call the program as particle-os: export PATH="$$PWD/$(BIN):$$PATH"'

test: setup ## Run all tests, with virtual machines
	@sh host/setup.sh test-packages
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest -q -n 4 -m "(slow or costly) and not weekly" tests/unit tests/guest
	@$(MAKE) --no-print-directory vm-test

# Keep bytecode caching on: otherwise each of hundreds of test processes recompiles every module.
export PYTHONDONTWRITEBYTECODE =

# Two cores have enough for the tests and, at the same time, for what uses one of them.
check: venv ## Format, lint, spelling, generated files, types, unit tests: the inner loop (TESTS=...)
	@$(MAKE) --no-print-directory -j 2 unit-test lint

lint:
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/codespell
	@$(BIN)/python tests/generate.py --check
	@$(BIN)/mypy

unit-test:
	@sh host/setup.sh programs
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not costly and not weekly" $(TESTS)

vm-test:
	@$(BIN)/pytest -v -n 3 -m "not weekly" --dist loadfile --no-loadscope-reorder --timeout 5000 --durations 20 tests/vm

weekly: setup ## Run the tests that take long or compare with the Debian of today
	@sh host/setup.sh test-packages
	@$(BIN)/pytest -v -m weekly --timeout 5000 tests/unit tests/vm

matrix: setup ## Build and boot every combination of boot loader, table, file system, firmware
	@sh host/setup.sh test-packages
	@$(BIN)/python tests/matrix.py --architecture $(ARCHITECTURE)

recipes: setup ## Build and boot every recipe of recipes/
	@sh host/setup.sh test-packages
	@set -e; for recipe in recipes/*.yml; do $(BIN)/particle-os build $$recipe --output $(OUT); done

mutations: setup ## Break images in every known way and check each verdict (RUNS=10 JOBS=1 ONLY=)
	@sh host/setup.sh test-packages
	@$(BIN)/python tests/broken.py --runs $(RUNS) --jobs $(JOBS) --only "$(ONLY)"

costly: setup ## List the tests that take most of the time; `make check` leaves them to `make test`
	@$(BIN)/pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not weekly" --junitxml $(OUT)/costly.xml tests/unit tests/guest
	@$(BIN)/python -m tests.costly $(OUT)/costly.xml

good: setup ## Boot good images of any tool repeatedly (IMAGES="A.raw B.qcow2" RUNS=10)
	@$(BIN)/python tests/good.py --runs $(RUNS) $(IMAGES)

broken-updates: setup ## Break updates of OSTree and check each verdict (RUNS=10 ONLY= POWER=0)
	@sh host/setup.sh test-packages
	@$(BIN)/python -m tests.updates --runs $(RUNS) --only "$(ONLY)" --power $(or $(POWER),0)

faults: setup ## Disturb real builds at random moments and check what is left (SEED=1 N=20 JOBS=1)
	@sh host/setup.sh test-packages
	@$(BIN)/python -m tests.campaign --seed $(SEED) --number $(N) --jobs $(JOBS) --out $(OUT) \
		$(if $(FIRST),--first $(FIRST))

farm-faults: venv ## Disturb builds on a farm of processes at random moments (SEED=1 N=20)
	@$(BIN)/python -m tests.farm_faults --seed $(SEED) --number $(N) --out $(OUT) \
		$(if $(FIRST),--first $(FIRST))

mutants: N := 500
mutants: venv ## Count the faults in the code that the tests notice (SEED=1 FIRST=1 N=500 JOBS=1 AGAIN=)
	@sh host/setup.sh programs
	@$(BIN)/python -m tests.mutants --seed $(SEED) --first $(or $(FIRST),1) --number $(N) --jobs $(JOBS) \
		--out $(OUT)/mutants $(if $(AGAIN),--again)

bench: setup ## Measure the speed of the parts on this machine (GROUPS="commit boot-test")
	@$(BIN)/python -m tests.bench.bench $(GROUPS)
	@$(if $(GROUPS),,$(BIN)/python -m tests.bench.farm)

bench-ci: setup ## Measure a job of CI from a bare Debian 13 to a booted image (as root)
	@$(BIN)/python -m tests.bench.ci_jobs

fuzz: venv ## Feed mutated inputs to each parser of foreign bytes (SECONDS=60 JOBS=1 TARGETS=...)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,fuzz]'
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --jobs $(JOBS) --out $(OUT)/fuzz $(TARGETS)

debian-facts: venv ## Write the assumptions about Debian's packages from today's packages
	@PYTHONPATH=. $(BIN)/python -m tests.debian_facts
	@$(BIN)/ruff format --quiet guest-agent/particle_agent

# The copy has no file that git would not have, and no work of the build stays in the tree.
deb: ## Build the Debian package into out/deb (on Debian 13, with what debian/control names)
	@rm -rf $(OUT)/deb && mkdir -p $(OUT)/deb/source
	@tar -cf - --exclude-vcs --exclude='.*_cache' --exclude=.hypothesis --exclude=.venv \
		--exclude=__pycache__ --exclude=./dist --exclude=./$(OUT) . | tar -xf - -C $(OUT)/deb/source
	@cd $(OUT)/deb/source && dpkg-buildpackage --build=binary --unsigned-changes
	@rm -rf $(OUT)/deb/source
	@lintian --fail-on warning $(OUT)/deb/*.changes
	@cd $(OUT)/deb && sha256sum *.deb >SHA256SUMS

# buildah's chroot isolation needs no privilege beyond that of a user who may run podman.
image: ## Build a container image with particle-os (BASE=debian:trixie ARCHITECTURES="amd64 arm64")
	@program=$$(command -v $(or $(PROGRAM),podman) || command -v buildah) || { echo 'image: install podman or buildah' >&2; exit 2; }; \
		$$program build $(if $(BASE),--build-arg BASE=$(BASE)) \
		$(if $(ARCHITECTURES),--build-arg ARCHITECTURES="$(ARCHITECTURES)") --tag particle-os --file Containerfile .

# The wheel is built from the sdist, so the sdist is complete.
wheel: venv ## Build the wheel and the sdist into out/dist
	@rm -rf $(OUT)/dist
	@$(BIN)/python -m build --outdir $(OUT)/dist . >/dev/null
	@cd $(OUT)/dist && sha256sum *.whl *.tar.gz >SHA256SUMS

generate: venv ## Write the generated files: registry of stages, schema, references
	@$(BIN)/python tests/generate.py
