# Everything a developer runs. `make` alone lists the targets; the machine needs Python 3.11 or newer and make.

.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin
ORDERS ?=
# Byte code is made when a module is first used, which shortens the installation. So it has to be kept: without, the
# application takes 2 s to start instead of 0.7.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
UV ?= uv
# Of any target that runs something: with COMPILED=1 it runs what `make compiled` has made, and says so.
ifdef COMPILED
export PYTHONPATH := $(CURDIR)/build/compiled:$(CURDIR)
export PYTHONSAFEPATH := 1
endif
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

.PHONY: help venv venv-dev compiled demo worker kafka kafka-stop up down dashboards screenshots asyncapi test test-kafka test-flows test-quick check fmt lock bench bench-kafka bench-peers bench-bridge bench-recovery bench-takeover bench-reads chaos chaos-kafka chaos-views chaos-faust chaos-bridge clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- environment ---------------------------------------------------------------------------------------

.venv/pyvenv.cfg:
	@for python in python3.11 python3.12 python3.13 python3; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			$$python -m venv .venv && exit 0; \
			rm -rf .venv; \
			echo "$$python cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; \
		fi; \
	done; \
	echo "Python 3.11 or newer is needed, and neither python3.11 nor python3 is one" >&2; exit 1

# The application is installed by a link to this folder: changes to the code need no new install.
.venv/.runtime: .venv/pyvenv.cfg requirements.lock pyproject.toml
	@echo "installing into .venv ..."
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --no-index -e .
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "installing the developers' tools into .venv ..."
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements-dev.lock
	@touch $@

# A tree of its own: what is edited is never shadowed by what was compiled of it before.
SOURCES := $(shell find app agents tables bridge -type f ! -name '*.pyc') pyproject.toml README.md
build/compiled/.done: .venv/.dev $(SOURCES)
	@command -v cc >/dev/null || { \
		echo "a C compiler is needed, and Python's headers (on Debian: apt-get install gcc python3-dev); without, all runs as it is, but slower" >&2; exit 1; }
	@echo "compiling into build/compiled ..."
	@rm -rf build/compiled && mkdir -p build/compiled
	@cp -R app agents tables bridge pyproject.toml README.md build/compiled/
	@cd build/compiled && HATCH_BUILD_HOOK_ENABLE_MYPYC=1 ../../$(BIN)/python -m pip wheel --quiet \
		--disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir dist .
	@touch $@

venv: .venv/.runtime $(if $(COMPILED),build/compiled/.done) ## make .venv with what the application needs, from the lock
compiled: build/compiled/.done ## a wheel with the hot modules as machine code (needs a C compiler); COMPILED=1 makes other targets run it
venv-dev: .venv/.dev $(if $(COMPILED),build/compiled/.done) ## the same, with the developers' tools

# ---- run -----------------------------------------------------------------------------------------------

demo: venv ## a whole marketplace on this machine; ORDERS=200 ends by itself with a verdict
	@$(BIN)/a4co demo $(if $(ORDERS),--orders $(ORDERS))

worker: venv ## the application alone: bridge, agents and web in one process
	@$(BIN)/a4co worker

kafka: ## one Kafka broker on loopback, for developers (needs Java 17 and Maven); KAFKA_PORT=9092
	@python3 deploy/kafka/broker.py start --port $(or $(KAFKA_PORT),9092)

kafka-stop: ## end that broker
	@python3 deploy/kafka/broker.py stop

COMPOSE := docker compose -f deploy/compose.yaml

up: ## the whole marketplace's infrastructure in containers, with Grafana, Prometheus and Jaeger (needs Docker)
	@docker compose version >/dev/null 2>&1 || { \
		echo "Docker with its compose plugin is needed; without Docker, 'make demo' and 'make kafka' run on this machine" >&2; exit 1; }
	@docker info >/dev/null 2>&1 || { echo "Docker is there, but its daemon does not answer: is it started, and may you use it?" >&2; exit 1; }
	@$(COMPOSE) up --build --detach --wait
	@echo "application http://127.0.0.1:6066/docs   Grafana http://127.0.0.1:3000 (admin, admin123)"
	@echo "Prometheus  http://127.0.0.1:9090        Jaeger  http://127.0.0.1:16686"
	@echo "NATS        nats://127.0.0.1:4222        its monitoring http://127.0.0.1:8222"

down: ## end what `make up` started; what is on its volumes stays
	@docker compose version >/dev/null 2>&1 || { echo "Docker with its compose plugin is needed" >&2; exit 1; }
	@$(COMPOSE) down

# ---- prove ---------------------------------------------------------------------------------------------

test: venv-dev ## every test on the embedded log
	@$(BIN)/python -m pytest --ignore-glob='*/test_kafka_*'

test-kafka: venv-dev ## the tests of Kafka, and the core of the flows on it (needs Java 17 and Maven)
	@$(BIN)/python -m pytest tests/live/test_kafka_*.py
	@$(BIN)/python -m pytest tests/flows -m core --log=kafka

test-flows: venv-dev ## every flow test on the log that you choose: LOG=embedded or LOG=kafka
	@$(BIN)/python -m pytest tests/flows --log=$(or $(LOG),embedded)

# Where there is room for it, their files are in memory: a disk that others use, too, made 33 s into 43 to 56.
IN_MEMORY = $$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 2000000 { print "PYTEST_DEBUG_TEMPROOT=/dev/shm" }')
# All tests of that file are slow, and each of pytest's workers would make their cases.
QUICK := -m "not slow" -p no:schemathesis --ignore=tests/flows/test_web_schema.py -o tmp_path_retention_policy=failed

test-quick: venv-dev ## rules, engine and embedded flows: 35 s on two cores
	@env $(IN_MEMORY) $(BIN)/python -m pytest -n 4 --dist worksteal $(QUICK) tests/domain tests/engine tests/flows

check: venv-dev ## every check of the code: ruff, format, types, layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: venv-dev ## format the code and repair what can be repaired
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

bench: venv-dev ## measure speed, latency and memory
	@$(BIN)/python -m bench

bench-kafka: venv-dev ## full sagas on a Kafka broker of its own (Java 17, Maven); ORDERS=40000 WORKERS=1 ENGINES=ours,faust ROUNDS=1
	@$(BIN)/python -m bench.saga_kafka $(if $(ORDERS),--orders $(ORDERS)) $(if $(WORKERS),--workers $(WORKERS)) \
		$(if $(ENGINES),--engines $(ENGINES)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-peers: venv-dev ## our engine beside Kafka Streams, Quix and Faust; RECORDS=600000 ROUNDS=3 SEED=n PROGRAMS=ours,loop
	@$(BIN)/python -m bench.peers $(if $(RECORDS),--records $(RECORDS)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(PROGRAMS),--programs $(PROGRAMS))

bench-bridge: venv-dev ## our bridge beside nats-kafka (Go) and a bare loop; LOG=kafka MESSAGES=200000 ROUNDS=3 SEED=n PROGRAMS=ours,loop
	@$(BIN)/python -m bench.bridge $(if $(LOG),--log $(LOG)) $(if $(MESSAGES),--messages $(MESSAGES)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) $(if $(PROGRAMS),--programs $(PROGRAMS))

bench-recovery: venv-dev ## measure how long a million rows take to be back, on both logs (Java 17, Maven); KEYS=1000000 LOG=both
	@$(BIN)/python -m bench.recovery --keys $(or $(KEYS),1000000) --log $(or $(LOG),both)

bench-takeover: venv-dev ## kill the process that runs the bridge, and time the next one (Java 17, Maven); KILLS=10 SEED=n
	@$(BIN)/python -m bench.takeover --kills $(or $(KILLS),10) $(if $(SEED),--seed $(SEED))

bench-reads: venv-dev ## 1,000 reads/s of products and orders over HTTP while 500 orders/s come over NATS; RATE=1000 ORDERS=500 SECONDS=25
	@$(BIN)/python -m bench.point_reads $(if $(RATE),--rate $(RATE)) $(if $(ORDERS),--orders $(ORDERS)) \
		$(if $(SECONDS),--seconds $(SECONDS))

chaos: venv-dev ## kill the worker again and again and compare with a model; KILLS=30 SEED=n ORDERS=n
	@$(BIN)/python -m bench.chaos --kills $(or $(KILLS),30) $(if $(SEED),--seed $(SEED)) $(if $(ORDERS),--orders $(ORDERS))

chaos-kafka: venv-dev ## the same with workers that share a Kafka log; KILLS=50 LEAVES=20 STOPS=2 WORKERS=3 SEED=n
	@$(BIN)/python -m bench.chaos_kafka --kills $(or $(KILLS),50) --leaves $(or $(LEAVES),20) --stops $(or $(STOPS),2) \
		--workers $(or $(WORKERS),3) $(if $(SEED),--seed $(SEED)) $(if $(ORDERS),--orders $(ORDERS))

chaos-faust: venv-dev ## kill, freeze and stop two workers of a stock Faust app on Kafka; ACTS=30 SEED=n
	@$(BIN)/python -m bench.chaos_faust --acts $(or $(ACTS),30) $(if $(SEED),--seed $(SEED))

chaos-views: venv-dev ## read from three workers while two are killed, ended and held: nothing old; EVENTS=30 SEED=n
	@$(BIN)/python -m bench.chaos_views --events $(or $(EVENTS),30) $(if $(SEED),--seed $(SEED))

chaos-bridge: venv-dev ## kill the bridge, nats-server and Kafka under load, both ways; KILLS=30 NATS_KILLS=15 KAFKA_KILLS=15 SEED=n RATE=1000 LOG=kafka
	@$(BIN)/python -m bench.chaos_bridge --log $(or $(LOG),kafka) --kills $(or $(KILLS),30) \
		--nats-kills $(or $(NATS_KILLS),15) --kafka-kills $(or $(KAFKA_KILLS),15) --rate $(or $(RATE),1000) \
		$(if $(SEED),--seed $(SEED))

# ---- keep ----------------------------------------------------------------------------------------------

dashboards: ## write Grafana's dashboards anew, from deploy/grafana/dashboards.py
	@python3 deploy/grafana/dashboards.py

screenshots: venv-dev ## take docs/dashboard's pictures anew, of a demo that trades for 10 minutes (needs Chromium); SECONDS=600
	@SECONDS=$(or $(SECONDS),600) $(BIN)/python -m tests.live.page_screenshots

asyncapi: venv ## write docs/asyncapi.json anew: the events, from their types and routes
	@env -i PATH="$$PATH" $(BIN)/a4co asyncapi > docs/asyncapi.json

lock: ## resolve the dependencies anew (needs uv); UPGRADE=1 takes newer versions
	@$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --group pyproject.toml:build -o requirements.lock
	@$(LOCK) $(if $(UPGRADE),--upgrade) -c requirements.lock -o requirements-dev.lock \
		pyproject.toml --group pyproject.toml:build --group pyproject.toml:dev
	@$(LOCK) $(if $(UPGRADE),--upgrade) bench/peers/quix.in -o bench/peers/quix.txt
	@! grep -nE '://|--(index|extra-index|find-links)' requirements.lock requirements-dev.lock bench/peers/quix.txt

clean: ## remove .venv, what was compiled and every cache; data/ stays
	@rm -rf .venv build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
