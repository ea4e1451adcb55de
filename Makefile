# Everything here sets up what it needs; nothing has to be installed, exported or started before.
#   make demo    edit the pocket world's model with four methods and show where each breaks
#   make test    the tests, in two processes (WORKERS=)
#   make long    the tests that take half a minute or more each (5 minutes)
#   make check   format, lint, types, import contract
#   make bench   speed, as ratios, with the operations counted beside
#   make fuzz    thousands of damaged and hostile datasets, configurations and checkpoints
#   make faults  a small run under 200 faults (FAULTS=, SEED=): killed, torn, flipped, no space; nothing may be lost
#   make operation  scheduled runs as an operator has them: server, worker, PostgreSQL, a killed worker (6 minutes)
#   make engines vLLM on two ranks: swaps, wrong shards, families, a whole run (10 to 25 minutes)
#   make storage a run whose results are in an object store, killed and continued on another machine (minutes)
#   make ray     a run on two machines of Ray, emulated in a network namespace, as root: editors, engines and machines die
#   make million a million edits one after another: memory, speed and what is remembered (40 minutes)
#   make examples  rerun the documentation's queries against the demo's warehouse and paste the output
#   make docs    make docs/warehouse.md, the page of all tables and views, from the code
#   make lock    compile the locks of versions from pyproject.toml
#   make ui      the Prefect UI, with the runs made so far in this folder
SHELL := /bin/bash
LOCK := $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)
STAMP := .venv/.installed-$(LOCK)
PYTHON := .venv/bin/python

.PHONY: demo test long check examples docs fuzz faults operation engines storage ray million ui bench lock environment
.DEFAULT_GOAL := demo

environment: $(STAMP)
$(STAMP): deployments/locks/$(LOCK).txt pyproject.toml deployments/environment.sh
	@bash deployments/environment.sh $(LOCK)
	@touch $@

demo: $(STAMP)
	@.venv/bin/overedit demo

test: $(STAMP)
	@$(PYTHON) -m pytest -n $(or $(WORKERS),2) --dist loadfile $(ARGS)

long: $(STAMP)
	@OVEREDIT_LONG=1 $(PYTHON) -m pytest -n $(or $(WORKERS),2) --dist loadfile -m long $(ARGS)

check: $(STAMP)
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@MYPYPATH=.venv/mypy .venv/bin/mypy
	@$(PYTHON) -m pytest -q tests/test_house.py

examples: $(STAMP)
	@$(PYTHON) -m tests.docs.examples README.md docs/sql.md

docs: $(STAMP)
	@$(PYTHON) -m tests.docs.warehouse docs/warehouse.md

fuzz: $(STAMP)
	@OVEREDIT_FUZZ_INPUTS=$(or $(INPUTS),1500) $(PYTHON) -m pytest -q tests/fuzz $(ARGS)

faults: $(STAMP)
	@OMP_NUM_THREADS=1 $(PYTHON) -m tests.faults.campaign --faults $(or $(FAULTS),200) --seed $(or $(SEED),0) --servers 3 --engines 3 $(ARGS)

operation: $(STAMP)
	@OVEREDIT_OPERATION=1 OVEREDIT_LONG=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests/flows/operation tests/tasks/report/comparison/test_gate.py $(ARGS)

engines: $(STAMP)
	@OVEREDIT_ENGINES=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests/tasks/engine/test_tensor_parallel.py $(ARGS)

storage: $(STAMP)
	@OVEREDIT_STORAGE=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests/flows/test_run_in_object_store.py $(ARGS)

ray: $(STAMP)
	@OVEREDIT_RAY=1 OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q tests/flows/ray $(ARGS)

million: $(STAMP)
	@$(PYTHON) tests/benchmarks/million.py $(ARGS)

ui: $(STAMP)
	@.venv/bin/overedit ui --home .

bench: $(STAMP)
	@for script in tests/benchmarks/bench_*.py; do $(PYTHON) $$script || exit 1; done

lock:
	@bash deployments/environment.sh lock
