# `make` lists the targets. Everything runs in .venv, which each target makes when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(if $(COVERAGE),$(BIN)/coverage run,$(BIN)/python)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SH_FILES := build.sh add-node.sh install.sh.j2 orchestrator/nodes/job.sh orchestrator/nodes/vm/debian/init \
	$(wildcard orchestrator/nodes/vm/debian/*.sh orchestrator/nodes/vm/debian/root/etc/orchestrator/*.sh)

.PHONY: help venv service demo test check lint types imports shell format coverage test-thorough test-faults test-installer test-truncation test-corruption test-chroots test-real test-vm test-service bench bench-service test-bucket covered lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; say which one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/runtime.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.service: requirements/service.txt $(VENV)/.runtime
	@$(PIP) install --require-hashes -r requirements/service.txt
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.runtime
	@$(PIP) install --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.test
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

venv: $(VENV)/.runtime ## make .venv with bin/orchestrator in it

service: $(VENV)/.service ## the same with what the service needs: webhooks, queue, pages

demo: $(VENV)/.runtime ## release the example twice and install it, in seconds
	@$(BIN)/python examples/demo.py

# More workers than cores: these tests wait for other processes as much as they compute. With
# COVERAGE=1 it is counted what they reach, for `make covered`.
test: $(VENV)/.test ## the default tests, in a minute or two
	@$(RUN) -m pytest -n 4 --timeout 300

test-thorough: $(VENV)/.test ## what takes longer: crashes, races, seven more shells; SAMPLE=50 for half, SEED=... to repeat
	@SAMPLE=$(SAMPLE) SEED=$(SEED) $(RUN) -m pytest -n 4 --timeout 600 -m thorough

test-faults: $(VENV)/.test ## faults on purpose: kill, cut, fill, lie; FAULTS=60 for a sample, SEED=... to repeat
	@$(BIN)/python -m tests.faults $(if $(FAULTS),--faults $(FAULTS)) $(if $(SEED),--seed $(SEED)) $(FAULT_OPTIONS)

test-installer: $(VENV)/.test ## the installer: shells x hosts x tools x states of the world; CASES=600 for a sample
	@$(BIN)/python -m tests.matrix $(if $(CASES),--cases $(CASES)) $(if $(SEED),--seed $(SEED))

test-truncation: $(VENV)/.test ## the installer cut off after every byte, in every shell; PREFIXES=300 for a sample of each
	@$(BIN)/python -m tests.life truncation $(if $(SHELLS),--shells "$(SHELLS)") $(if $(PREFIXES),--prefixes $(PREFIXES)) $(if $(THROUGH),--through $(THROUGH)) $(if $(SEED),--seed $(SEED))

test-corruption: $(VENV)/.test ## what the installer gets damaged at random: CASES=1000, SEED=... to repeat
	@$(BIN)/python -m tests.life corruption $(if $(CASES),--cases $(CASES)) $(if $(SEED),--seed $(SEED))

# The first time it makes the systems, in the cache folder of who runs it.
test-chroots: $(VENV)/.test ## the installer on real Debian and BusyBox systems; needs root and mmdebstrap
	@$(BIN)/python -m pytest -m chroots -p no:cacheprovider --no-header tests/chroots

test-real: $(VENV)/.test ## release the real crate on two nodes; minutes
	@$(BIN)/python -m pytest -m real --no-header tests/real

# The first time it makes the image, in the cache folder of who runs it.
test-vm: $(VENV)/.test ## a Debian guest made from packages, booted without KVM and released on; minutes
	@$(BIN)/python -m pytest -m vm -p no:cacheprovider --no-header tests/vm

test-service: $(VENV)/.test ## the service killed again and again while it releases: KILLS=200, SEED=... to repeat
	@KILLS=$(or $(KILLS),200) SEED=$(or $(SEED),1) $(BIN)/python -m pytest -m thorough --no-header tests/service/test_kills.py

bench: $(VENV)/.test ## measure everything and write docs/performance.md, in an hour or two; ONLY="fan-out logs" for some
	@$(BIN)/python -m benchmarks $(ONLY) $(if $(RUNS),--runs $(RUNS))

bench-service: $(VENV)/.test ## deliveries in a second while a release runs and pages follow it
	@$(BIN)/python -m benchmarks.webhooks

test-bucket: $(VENV)/.test ## the store and the conformance list against a real bucket: BUCKET=gs://NAME/PREFIX
	@case "$(BUCKET)" in gs://*) ;; *) echo "error: say which: make test-bucket BUCKET=gs://NAME/PREFIX" >&2; exit 2;; esac
	@SCRATCH_BUCKET=$(BUCKET) $(BIN)/python -m pytest -m bucket tests/stores tests/gcs

check: lint test ## everything that a change must pass

lint: format types imports shell ## the checkers: format, types, imports, shell

format: $(VENV)/.dev
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .

types: $(VENV)/.dev
	@$(BIN)/mypy

imports: $(VENV)/.dev
	@$(BIN)/lint-imports --no-logo

shell: $(VENV)/.dev
	@$(BIN)/shellcheck -s sh -x $(SH_FILES)
	@$(BIN)/shellcheck -s bash .ci/run
	@$(BIN)/shfmt -i 4 -d $(SH_FILES) .ci/run

coverage: $(VENV)/.test ## statement and branch coverage: 95 % of everything, 100 % of the core
	@$(BIN)/coverage erase
	@$(MAKE) --no-print-directory COVERAGE=1 test test-thorough covered

covered: ## what the tests have reached that ran with COVERAGE=1
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --fail-under=95
	@$(BIN)/coverage report --skip-covered --include='orchestrator/core/*' --fail-under=100

lock: $(VENV)/.dev ## pin and hash the dependencies again
	@for set in runtime service test dev; do \
		case $$set in runtime) options="--group build";; service) options="--group build --extra service";; \
			*) options="--group $$set --extra service";; esac; \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			--no-emit-index-url --no-emit-find-links --no-annotate $$options pyproject.toml -o requirements/$$set.txt; \
	done

clean: ## remove what was made here
	rm -rf $(VENV) dist .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
