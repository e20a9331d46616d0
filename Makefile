# Each target does all of its own set-up; `make help` lists them.

BROKER ?= auto
FUZZ_S ?= 300
FUZZ ?= open hybrid bundle keyring
BIN := .venv/bin
INSTALLED := .venv/.installed
PYTEST := $(BIN)/python -m pytest
# What takes whatever broker it is given: conformance, end to end, attacks with a client of their own.
ON_ANY_BROKER := tests/transports tests/e2e tests/security/attacks/test_over_rabbitmq.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-broker-4 test-fast chaos chaos-report soak attacks fuzz check coverage bench bench-curves bench-soak bench-guard flame clean setup peers broker broker-if-possible postgres

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: ## see services exchange sealed messages, end to end (BROKER=embedded needs nothing but Python)
	@$(MAKE) --no-print-directory -j2 setup $(if $(filter embedded,$(BROKER)),,broker-if-possible)
	@$(BIN)/python -m services.demo --broker $(BROKER)

test: ## run all tests, on a real RabbitMQ and PostgreSQL, with coverage
	@$(MAKE) --no-print-directory -j3 setup broker postgres
	@$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=json:build/coverage.json
	@$(BIN)/python scripts/check_coverage.py build/coverage.json

test-broker-4: setup broker ## run what needs a broker on a RabbitMQ 4.x too (MESSAGING_TEST_BROKER_4=amqp://…: its address)
	@$(BIN)/python scripts/check_generation.py "$(MESSAGING_TEST_BROKER_4)" 4
	@MESSAGING_TEST_BROKER="$(MESSAGING_TEST_BROKER_4)" $(PYTEST) $(ON_ANY_BROKER)

test-fast: setup ## run the tests that need no broker and no database server
	@$(PYTEST) -m "not broker and not postgres"

chaos: ## kill workers, brokers, links and databases under load and judge what is left (SMOKE=1: a short selection)
	@$(MAKE) --no-print-directory -j3 setup broker postgres
	@CHAOS_SMOKE=$(SMOKE) $(PYTEST) -v --tb=short tests/chaos -m "$(if $(SMOKE),smoke,not soak)"

chaos-report: setup ## add what `make chaos` found to docs/chaos-report.md (FINDINGS=build/chaos/findings.jsonl: files)
	@$(BIN)/python -m tests.chaos.report $(FINDINGS)

soak: ## half an hour of steady work, to see whether anything grows (SOAK_S=1800: seconds)
	@$(MAKE) --no-print-directory -j3 setup broker postgres
	@SOAK_S=$(SOAK_S) $(PYTEST) -v --tb=short tests/chaos/test_soak.py

attacks: ## try every attack of the catalogue, on a real RabbitMQ and PostgreSQL too, and write docs/attacks.md
	@$(MAKE) --no-print-directory -j3 setup broker postgres
	@ATTACKS_FULL=1 $(PYTEST) -q tests/security/attacks tests/security/test_vectors.py tests/fuzz --attack-report docs/attacks.md

fuzz: setup ## feed mutated bytes to the parsers, guided by coverage (FUZZ_S=300: seconds for each of FUZZ="open hybrid bundle keyring")
	@test -x build/fuzz-venv/bin/python || $(BIN)/python -m venv build/fuzz-venv
	@build/fuzz-venv/bin/python -m pip install --quiet 'atheris>=3,<4'
	@for target in $(FUZZ); do \
		mkdir -p build/fuzz/$$target; \
		PYTHONPATH=.:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
			build/fuzz-venv/bin/python -m tests.fuzz.fuzz_$$target -max_total_time=$(FUZZ_S) -max_len=8192 -print_final_stats=1 \
			-artifact_prefix=build/fuzz/$$target- build/fuzz/$$target tests/fuzz/corpus/$$target || exit 1; \
	done

check: setup ## format, lint, layers, types, rules of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(PYTEST) -q tests/test_house.py
	@scripts/check-compose.sh

coverage: test ## as test, and write the lines that no test runs to htmlcov/
	@$(BIN)/coverage html --quiet --directory htmlcov
	@echo "See htmlcov/index.html"

bench: ## compare with other frameworks in one run, into benchmarks/results (BENCH="--quick", "--only faststream celery", …)
	@$(MAKE) --no-print-directory -j2 peers broker
	@$(BIN)/python -m benchmarks.compare $(BENCH)

bench-curves: ## how costs grow, into benchmarks/results (CURVES="--quick", "--full", "--only body workers", …)
	@$(MAKE) --no-print-directory -j2 setup broker
	@scripts/ensure-peers.sh --extra-only
	@$(BIN)/python -m benchmarks.curves $(CURVES)

bench-guard: setup ## does a message still cost what it did; not a test (GUARD="--broker", "--record", "--slow publish=60")
	@$(BIN)/python -m benchmarks.guard $(GUARD)

bench-soak: ## a million messages in one go: does anything grow (SOAK="--count 100000 --on tls", …)
	@$(MAKE) --no-print-directory -j2 setup broker
	@scripts/ensure-peers.sh --extra-only
	@$(BIN)/python -m benchmarks.soak $(SOAK)

flame: ## where the time of a message goes: flame graphs into benchmarks/results (FLAME="--seconds 20", …)
	@$(MAKE) --no-print-directory -j2 setup broker
	@scripts/ensure-peers.sh --extra-only
	@$(BIN)/python -m benchmarks.flame $(FLAME)

clean: ## stop the development broker and remove everything that was made
	@if [ -x $(BIN)/messaging ]; then $(BIN)/messaging broker down; fi
	rm -rf .venv .bench .broker .demo build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(INSTALLED)
	@:

$(INSTALLED): pyproject.toml constraints.txt scripts/ensure-venv.sh
	@scripts/ensure-venv.sh
	@touch $@

peers: setup
	@scripts/ensure-peers.sh

broker:
	@scripts/ensure-broker.sh

broker-if-possible:
	@scripts/ensure-broker.sh --optional

postgres:
	@scripts/ensure-postgres.sh
