# irisd. `make` lists the targets. Needed on the machine: Python 3.11+, pip, make, git.

SHELL := /bin/sh
VENV  ?= .venv
BIN   := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q
PIP   := $(BIN)/python -m pip --disable-pip-version-check -q
FILE  ?=
ARGS  ?=

.DEFAULT_GOAL := help
.PHONY: help demo test run fmt lint types arch unit sim integration netns interop fuzz accept chaos scale bench \
        compiled oldest proto docs check constraints clean

help: ## List the targets
	@echo "irisd: make TARGET"
	@echo
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do \
	    printf '  %-12s %s\n' "$$name" "$$what"; done

# ------------------------------------------------------------------ the two commands

demo: $(VENV)/.runtime ## A three-daemon mesh on this machine that shows what it can do (FILE= sends yours)
	@$(BIN)/irisd demo $(if $(FILE),--file "$(FILE)") $(ARGS)

test: $(VENV)/.dev ## Everything that must hold: lint, types, rooms, tests; under ten minutes
	@$(BIN)/python .ci/rings.py

# ------------------------------------------------------------------------ day to day

run: $(VENV)/.runtime ## A development daemon on loopback (ARGS= for more)
	@$(BIN)/irisd $(ARGS)

fmt: $(VENV)/.dev ## Format and fix what can be fixed by itself
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .

lint: $(VENV)/.dev ## Style and likely mistakes (ruff)
	@$(BIN)/ruff check -q .
	@$(BIN)/ruff format -q --check .

types: $(VENV)/.dev ## mypy --strict
	@$(BIN)/mypy $(ARGS)

arch: $(VENV)/.dev ## The import law, the pure rooms, file sizes, documents
	@$(PYTEST) tests/test_architecture.py tests/test_documents.py $(ARGS)

check: lint types arch ## The quick three, before a commit

# ------------------------------------------------------------------------- the rings

unit: $(VENV)/.dev ## One concept at a time, literal bytes
	@$(PYTEST) tests/unit $(ARGS)

sim: $(VENV)/.dev ## Whole meshes on a virtual clock
	@$(PYTEST) tests/sim $(ARGS)

integration: $(VENV)/.dev ## Real processes, real gRPC, loopback
	@$(PYTEST) tests/integration $(ARGS)

netns: $(VENV)/.dev ## Several hosts on one machine (network namespaces; usually needs root)
	@$(PYTEST) -rs -m "netns and not accept" tests $(ARGS)

interop: $(VENV)/.dev ## Other implementations: nng, nanomsg, a JavaScript client
	@$(PYTEST) -rs tests/interop $(ARGS)

fuzz: $(VENV)/.dev ## Every decoder against nonsense (PROFILE=short|long)
	@HYPOTHESIS_PROFILE=$(or $(PROFILE),long) $(PYTEST) --timeout=1200 tests/fuzz $(ARGS)

accept: $(VENV)/.dev ## The long scenarios that prove the promises; minutes
	@$(PYTEST) -rs -m accept --timeout=900 $(if $(filter tests/%,$(ARGS)),,tests) $(ARGS)

chaos: $(VENV)/.dev ## Break a real mesh for a while and check every promise (SEED= MINUTES=5)
	@$(BIN)/python -m tests.accept.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

scale: $(VENV)/.dev ## How a mesh of 10, 100 and 1,000 simulated nodes behaves (ARGS='--nodes 3000')
	@$(BIN)/python -m tests.sim.scale $(ARGS)

bench: $(VENV)/.dev ## irisd beside other systems here (PEERS=1 installs their clients; ARGS=--quick)
	@$(if $(PEERS),$(PIP) install -r bench/requirements.txt)
	@$(BIN)/python -m bench $(ARGS)

# mypyc writes beside the sources it compiles, so it is given a copy: the sources here stay what runs here.
COMPILED_TREE := build/compiled

compiled: $(VENV)/.dev ## Wheels with what every frame passes compiled (dist/compiled; a C compiler), tested
	@rm -rf $(COMPILED_TREE) dist/compiled && mkdir -p $(COMPILED_TREE) dist/compiled
	@tar -cf $(COMPILED_TREE).tar --exclude=./.git --exclude='./.venv*' --exclude='./.*_cache' \
	    --exclude=./.hypothesis --exclude=./build --exclude=./dist --exclude='*.so' --exclude=__pycache__ .
	@tar -xf $(COMPILED_TREE).tar -C $(COMPILED_TREE) && rm $(COMPILED_TREE).tar
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 PIP_CONSTRAINT=$(abspath constraints.txt) \
	    $(PIP) wheel --no-deps -w dist/compiled $(COMPILED_TREE)/client $(COMPILED_TREE)
	@"$$(cat $(VENV)/.python)" -m venv --clear $(VENV)-compiled
	@$(VENV)-compiled/bin/python -m pip --disable-pip-version-check -q install -c constraints.txt \
	    dist/compiled/iris_client-*.whl "$$(echo dist/compiled/irisd-*.whl)[test]"
	@cd $(COMPILED_TREE) && $(abspath $(VENV))-compiled/bin/python -m pytest -q \
	    tests/unit tests/sim tests/fuzz tests/integration $(ARGS)
	@echo "tested; in dist/compiled: $$(cd dist/compiled && echo *.whl)"

oldest: $(VENV)-oldest/.ready ## Unit and integration on the oldest dependencies allowed
	@$(VENV)-oldest/bin/python -m pytest -q -p no:cacheprovider tests/unit tests/integration $(ARGS)

docs: $(VENV)/.dev ## Links lead somewhere, examples compile
	@$(PYTEST) tests/test_documents.py $(ARGS)

# ------------------------------------------------------------------------- generated

# An older generator, on purpose: its stubs run on protobuf 5.29 and everything after.
GENERATE := $(VENV)-proto/bin/python -m grpc_tools.protoc
STUBS    := client/iris_proto

proto: $(VENV)-proto/.ready ## Regenerate the stubs in client/iris_proto from proto/
	@rm -rf .make/proto && mkdir -p .make/proto
	@$(GENERATE) -I proto --python_out=.make/proto --pyi_out=.make/proto --grpc_python_out=.make/proto \
	    proto/iris/v1/*.proto
	@mkdir -p $(STUBS)/v1
	@for stub in .make/proto/iris/v1/*; do case "$$stub" in */*_pb2_grpc.py) \
	    grep -q 'class .*Stub' "$$stub" || continue;; esac; \
	    sed -e 's/^from iris\.v1 import /from iris_proto.v1 import /' "$$stub" > "$(STUBS)/v1/$${stub##*/}"; done
	@sha256sum proto/iris/v1/*.proto > $(STUBS)/SOURCES.sha256
	@echo "stubs regenerated in $(STUBS)"

$(VENV)-proto/.ready: $(VENV)/.python
	@echo "setting up the stub generator in $(VENV)-proto ..."
	@"$$(cat $(VENV)/.python)" -m venv $(VENV)-proto
	@$(VENV)-proto/bin/python -m pip --disable-pip-version-check -q install 'grpcio-tools==1.71.*' 'setuptools<81'
	@touch $@

constraints: $(VENV)/.dev ## Renew constraints.txt with the newest versions that pass
	@$(PIP) install --upgrade --upgrade-strategy eager -e ./client -e '.[dev]'
	@{ echo "# Exact versions of everything the development environment installs; 'make constraints' renews it."; \
	   $(PIP) freeze --exclude-editable; } > .make-constraints && mv .make-constraints constraints.txt

$(VENV)-oldest/.ready: $(VENV)/.python pyproject.toml client/pyproject.toml constraints-oldest.txt
	@echo "setting up $(VENV)-oldest ..."
	@test -x $(VENV)-oldest/bin/python || "$$(cat $(VENV)/.python)" -m venv $(VENV)-oldest
	@$(VENV)-oldest/bin/python -m pip --disable-pip-version-check -q install -c constraints-oldest.txt -e ./client -e '.[test]'
	@touch $@

clean: ## Remove what make made (environments included)
	@rm -rf $(VENV) $(VENV)-proto $(VENV)-oldest $(VENV)-compiled .make .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist client/dist
	@find irisd client tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# ---------------------------------------------------------------------- environment

# Finds a Python 3.11+ that can make an environment, or says what is missing.
$(VENV)/.python:
	@found=; for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	    command -v "$$python" >/dev/null 2>&1 || continue; \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	    found="$$python"; break; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "irisd needs Python 3.11 or newer; found: $$(python3 --version 2>/dev/null || echo none)."; \
	    echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or say where: make PYTHON=/path/to/python3.11"; \
	    exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "$$found cannot make virtual environments: its venv module is missing."; \
	    echo "Install it (Debian, Ubuntu: apt install python3-venv)."; \
	    exit 1; \
	fi; \
	mkdir -p $(VENV) && command -v "$$found" > $@

$(VENV)/.runtime: $(VENV)/.python pyproject.toml client/pyproject.toml constraints.txt
	@echo "setting up $(VENV) with $$("$$(cat $(VENV)/.python)" --version) ..."
	@test -x $(BIN)/python || "$$(cat $(VENV)/.python)" -m venv $(VENV)
	@$(PIP) install -c constraints.txt -e ./client -e . || { \
	    echo "Could not install what pyproject.toml asks for. Is the package index reachable (pip config list)?"; exit 1; }
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "adding the development tools ..."
	@$(PIP) install -c constraints.txt -e ./client -e '.[dev]' || { \
	    echo "Could not install the development tools. Is the package index reachable (pip config list)?"; exit 1; }
	@touch $@
