# make run   sets everything up and opens the dashboard on the offline demo
# make test  sets everything up and runs the tests, the browser's included, but for the long and rare ones
# make test-all  runs the long and rare ones, which make test leaves out: kill sweeps, all experiments, the full demo,
#                and property tests with all their examples
# make test-kernels  repeats the numeric tests with the arithmetic of older and of newer processors
# make bench  prints speed and memory beside the usual ways, in under 20 minutes (docs/performance.md)
# make test-lowest  runs the fast tests, without the browser's, with the lowest versions that requirements.txt allows
# make lock  renews requirements.lock: the newest versions allowed, with hashes; make LOCKED=1 run installs these
# make learn2learn  installs learn2learn 0.2.0, which TaskLens does not need, beside it
PYTHON ?= python3
BIN := .venv/bin
QUIET := --quiet --disable-pip-version-check
# Bytecode is kept, as the tests start many processes that would each compile the package anew.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests -n 2 --dist worksteal

.PHONY: run test test-all test-kernels test-lowest tests-need lint lock demo bench learn2learn clean

run: .venv/.run
	$(BIN)/tasklens dashboard

test: tests-need
	$(PYTEST) -m "not slow"

test-all: tests-need
	TASKLENS_TEST_THOROUGHLY=1 $(PYTEST) -m "slow or hypothesis"

# Libraries choose their kernels by the processor, and kernels round differently. These choose them by hand: SSE for
# every library, then AVX2. The retraining of linear models, the longest of them by far, stays out: it allows for the
# error of a finite difference, which is far above rounding.
NUMERIC := OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/influence tests/maml tests/editing tests/evidence \
	--ignore tests/influence/test_linear_retraining.py -n 2 --dist worksteal -m "not slow"

test-kernels: .venv/.test
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Nehalem $(NUMERIC)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=AVX2 OPENBLAS_CORETYPE=Haswell $(NUMERIC)

tests-need: .venv/.test
	$(BIN)/python -m tests.e2e.browser
	$(BIN)/python -m tests.learn2learn.install || test -z "$$CI"
	$(BIN)/python -m tests.e2e.nginx || test -z "$$CI"

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.audit

# Only the lower bounds of what we import are tested; what these need in turn is as new as it can be. Left out is what
# needs the baselines, and what old versions import, which takes time but breaks nothing. Without CI, tests that need
# learn2learn are left out as well.
LOWEST := .venv-lowest/bin
test-lowest: .venv-lowest/.made
	CI= OMP_NUM_THREADS=1 $(LOWEST)/python -m pytest tests -n 2 --dist worksteal -m "not slow" \
		--ignore tests/e2e --ignore tests/baselines --ignore tests/decisions/test_cleanlab.py \
		--ignore tests/test_dependencies.py \
		--deselect tests/test_rules.py::test_what_is_slow_to_import_is_imported_where_it_is_used
	OMP_NUM_THREADS=1 $(LOWEST)/python -m pytest tests/e2e/test_login_provider.py -m "not slow"

.venv-lowest/.made: requirements.txt requirements-login.txt requirements-dev.txt .venv/.test
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip compile --quiet --resolution lowest-direct --python $(LOWEST)/python --no-header \
		--output-file .venv-lowest/requirements.txt requirements-login.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST)/python -r .venv-lowest/requirements.txt \
		easyfsl hypothesis ipykernel nbclient oidc-provider-mock playwright pytest-timeout pytest-xdist
	touch $@

# Of every platform, so that one lock serves all; without the address of the package index that it was made with.
lock: .venv/.test
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
		--no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock requirements-login.txt

demo: .venv/.run
	$(BIN)/tasklens demo

bench: .venv/.test
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.distributed
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.whatif
	$(BIN)/python -m tests.e2e.browser
	$(BIN)/python -m benchmarks.ui

learn2learn: .venv/.run
	$(BIN)/python -m tests.learn2learn.install

.venv/.run: requirements.txt pyproject.toml $(if $(LOCKED),.venv/.locked)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "TaskLens needs Python 3.11 or newer; name one with make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIET) --editable .
	touch $@

.venv/.locked: requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIET) --require-hashes -r requirements.lock
	touch $@

.venv/.test: requirements-dev.txt requirements-baselines.txt requirements-login.txt .venv/.run
	$(BIN)/pip install $(QUIET) -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv .venv-lowest .pytest_cache .mypy_cache .ruff_cache .hypothesis
