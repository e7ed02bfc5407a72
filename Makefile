# Two commands set everything up on a machine with Python >= 3.11, git and make:  make demo  and  make test
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do command -v $$p >/dev/null 2>&1 && \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
UV := uv==0.13.8
INSTALL = $(BIN)/uv pip install --python $(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test agreement soak faults bench bench-quick bench-million bench-lock setup lock export lint clean

demo: .venv/ready        ## the whole story in three minutes, offline
	@$(BIN)/trading demo

test: .venv/ready        ## everything that must hold
	@echo '== the package is what the notebooks say'; $(BIN)/python tests/export_in_sync.py
	@echo '== ruff'; $(BIN)/ruff check --quiet .
	@echo '== the chapters, executed'; $(BIN)/nbdev-test --n-workers 2
	@echo '== pytest'; $(BIN)/python -m pytest -n 2 --dist loadfile

agreement: .venv/ready   ## thousands of generated markets through every engine, about twenty minutes
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/test_agreement.py

soak: .venv/ready        ## five hundred bots, each killed again and again on a failing network: docs/crashes.md, some hours
	$(BIN)/python tests/crash.py --runs 500 --controls 20 --out docs/crashes.md

faults: .venv/ready      ## every fault of the list injected: docs/faults.md
	$(BIN)/python tests/faults_page.py -n 2 --dist loadfile

bench: .venv/ready       ## side by side with the peers: docs/benchmarks.md, a quarter of an hour
	$(BIN)/python tests/bench

bench-quick: .venv/ready ## the same, smaller, on the screen only
	$(BIN)/python tests/bench --quick

bench-million: .venv/ready   ## a million sets of parameters
	$(BIN)/python tests/bench --only million

bench-lock:              ## resolve the peers anew
	printf '%s\n' backtesting backtrader | $(BIN)/uv pip compile --quiet --universal --generate-hashes -c requirements.lock - -o requirements-bench.lock --custom-compile-command 'make bench-lock'
	printf '%s\n' nautilus_trader | $(BIN)/uv pip compile --quiet --universal --generate-hashes - -o requirements-bench-nautilus.lock --custom-compile-command 'make bench-lock'

setup: .venv/ready       ## .venv with everything in it

.venv/ready: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.11 to 3.13 with venv was found; install one (Debian: apt-get install python3 python3-venv)' >&2; exit 2; }
	@echo "== setting up .venv with $$($(PYTHON) --version), about a minute (2 GB on disk)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo '== fetching uv'; $(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	@echo '== installing the locked packages, hashes checked'; \
	$(INSTALL) --require-hashes -r requirements.lock || { echo '== again, with the certificates of the system'; $(INSTALL) --system-certs --require-hashes -r requirements.lock; }
	@echo '== installing this project'; $(INSTALL) --quiet --no-build-isolation --no-deps -e .
	@touch $@

lock:                    ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --extra dev --extra postgres --extra dask pyproject.toml -o requirements.lock --custom-compile-command 'make lock'

export: .venv/ready      ## nbs/ -> trading_lib/
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean

lint: .venv/ready
	$(BIN)/ruff check .

clean:                   ## what runs produced, and caches; the environment stays
	rm -rf data runs promotions var models .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
