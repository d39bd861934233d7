# Everything runs in .venv, made here from the hashed locks in requirements/. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCKS := api ui mlflow flows
ALONE := dev checkov pip-audit openapi-python-client tritonclient-grpc bench-bentoml bench-kserve bench-litserve bench-mlserver

# Imports are compiled once and kept: without bytecode each server starts some ten seconds later.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo up test test-programs test-k8s test-nodes drills lint cluster images sbom audit push down tool-cache bench crds dashboards schemas proto lock screenshots clean

help:  ## what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY)  ## the loop on this machine: train, promote, serve, see (ONCE=1: stop after the first prediction)
	@$(BIN)/mlops demo $(if $(ONCE),--once) $(ARGS)

# What `kubectl`, `helm` and the like are called by: those that `make cluster` made, where there are none on PATH.
TOOLS := PATH="$(CURDIR)/.tools/bin:$$PATH"

up:  ## a kind cluster with everything on it: ends with a prediction
	@$(CLUSTER) up --config $(KIND_CONFIG) --platform -- $(ARGS)

test: $(READY)  ## every test that needs no cluster (and helm, a registry and Prometheus, which it builds where there are none)
	@$(MAKE) -s -j2 lint test-programs
	@$(TOOLS) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-programs: # beside lint, which takes as long on one core
	@$(CLUSTER) tool helm
	@$(CLUSTER) tool registry
	@$(CLUSTER) tool promtool
	@$(CLUSTER) tool prometheus

test-k8s: $(READY)  ## the tests that need the cluster, but for the drills
	@$(TOOLS) $(BIN)/python -m pytest k8s-tests/live -m "not drill" -n 2 $(ARGS)

test-nodes: $(READY)  ## the tests of the cluster itself on three nodes: a cluster that is there is removed first (five minutes)
	@$(CLUSTER) down --config $(KIND_CONFIG)
	@$(CLUSTER) up --config kind-config-multinode.yaml
	@$(TOOLS) $(BIN)/python -m pytest k8s-tests/live/test_cluster.py -m "not drill" $(ARGS)
	@$(CLUSTER) down --config kind-config-multinode.yaml

drills: $(READY)  ## live tests that take minutes each: drift until it is resolved, an upgrade and back, PostgreSQL, two pods of MLflow and Prefect, 10 x 40 pods, MLflow away, all that can happen to a Job, backups by schedule, four models from a repository, beside a kube-prometheus-stack
	@$(TOOLS) $(BIN)/python -m pytest k8s-tests/live -m drill $(ARGS)

lint: $(READY)  ## ruff, mypy, and which room imports which
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && { rooms=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$rooms"; exit 1; }; } && $(BIN)/mypy && for made in dashboards schemas.py readme.py; do $(BIN)/mypy charts/platform/$$made || exit 1; done

# images/offline says what these do; no .venv is needed for them.
KIND_CONFIG ?= kind-config.yaml
CLUSTER := $(PYTHON) -B -m images.offline

cluster:  ## a kind cluster (OFFLINE=auto|0|1, TOOL_CACHE=DIR, KIND_CONFIG=kind-config-multinode.yaml)
	@$(CLUSTER) up --config $(KIND_CONFIG)

images:  ## the platform's images (IMAGES=ui: that one); where the kind cluster runs, what uses them restarts
	@$(TOOLS) $(PYTHON) -B -m images.build build --cluster $(IMAGES)

sbom:  ## sbom/<image>.cdx.json: what is in each image that is built here, with hashes and licences (CycloneDX)
	@$(PYTHON) -B -m images.sbom $(IMAGES)

audit: $(READY)  ## known vulnerabilities of the locks and of the Go programs; ends with 4 where their databases cannot be reached
	@$(BIN)/python -B -m images.audit $(ARGS)

push:  ## push the images: REGISTRY=registry.example.com/team (MIRROR=1: third-party ones, too; WITHOUT=grafana: but not that)
	@$(PYTHON) -B -m images.push $(REGISTRY) $(if $(MIRROR),--mirror) $(WITHOUT:%=--without=%)

down:  ## remove the cluster (ALL=1: images and programs too)
	@$(CLUSTER) down --config $(KIND_CONFIG) $(if $(ALL),--all)

tool-cache:  ## compress the programs of .tools/bin into DIR, for TOOL_CACHE on other machines
	@$(CLUSTER) pack $(DIR)

bench: $(READY)  ## the figures of the README, measured here
	@$(TOOLS) $(BIN)/python -m bench $(ARGS)

schemas: $(READY)  ## the chart's README.md, and what the charts' values.schema.json have in common (charts/platform/schemas.py)
	@$(BIN)/python -B charts/platform/schemas.py
	@$(BIN)/python -B charts/platform/readme.py

dashboards: $(READY)  ## Grafana's dashboards, from charts/platform/dashboards/dashboards.py
	@$(BIN)/python -B charts/platform/dashboards/dashboards.py

proto: $(READY)  ## the Python of the Open Inference Protocol's messages, from app/api/inference_proto/*.proto
	@$(BIN)/python -B -m app.api.inference_proto.generate

screenshots: $(READY)  ## docs/images/ from the pages of a running demo
	@$(BIN)/python -m bench.screenshots

# Of the operator's Go types, by the versions in go.mod; without descriptions they are a third as long.
CRDS := $(CURDIR)/charts/platform/charts/monitoring/charts/operator/crds
TYPES := github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring
crds:  ## the CRDs of the Prometheus Operator
	@cd images/offline/go/crds && go run sigs.k8s.io/controller-tools/cmd/controller-gen crd:maxDescLen=0 \
	  paths=$(TYPES)/v1 paths=$(TYPES)/v1alpha1 output:crd:dir=$(CRDS)

# --universal: one file for every platform and Python; the images' locks take their versions from dev's.
lock: $(READY)  ## compile requirements/ from pyproject.toml
	@for group in $(ALONE) $(LOCKS); do \
	  echo "requirements/$$group.txt"; \
	  $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	    $$([[ " $(ALONE) " = *" $$group "* ]] || echo -c requirements/dev.txt) --group $$group -o requirements/$$group.txt pyproject.toml || exit 1; \
	done
	@$(BIN)/python -B -m images.locks

clean:  ## remove .venv and the demo's data, not the cluster
	rm -rf $(VENV) .mlops

$(READY): requirements/uv.txt requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=python3.12")'
	@echo "Making $(VENV) from requirements/dev.txt (once, about a minute)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --require-hashes requirements/dev.txt requirements/uv.txt 2>&1 \
	  | grep -vE '^ [-+~] ' # not the list of 200 packages
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install -q --no-build-isolation --no-deps -e .
	@touch $@
