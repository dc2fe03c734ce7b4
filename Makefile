# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
#
# `make help` lists what there is. Everything that is made lies in .venv, .cache and dist, and `make clean` removes it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Another Python: PYTHON=python3.12 make setup. Without it, an environment that is there is kept, whatever its Python.
PYTHON ?=
python := $(or $(PYTHON),python3)
venv := .venv
bin := $(venv)/bin
# A link under which this repository is found as a collection.
collections := .cache/collections
link := $(collections)/ansible_collections/confidential/gpu
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/$(collections)

NODE ?= hgx-h100
SOCKETS ?= .cache/sockets
DATA ?=
LISTEN ?= 127.0.0.1:0
SUITES ?=
KEY ?=

.PHONY: help setup setup-dev python setup-plugin demo demo-device-plugin node bmm test test-vm test-cluster soak image image-plugin image-ccm docs recording execution-environment release lint format build bench bench-cluster api lock system-deps clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(link) python ## make .venv with what the modules and the demo need
	@$(python) tools/venv.py $(if $(PYTHON),,--any-python) $(venv) requirements/run.txt

setup-dev: $(link) python ## the same and the tools of the suites
	@$(python) tools/venv.py $(if $(PYTHON),,--any-python) $(venv) requirements/run.txt requirements/test.txt

python:
	@command -v $(python) > /dev/null || { echo "setup: there is no $(python): apt install python3 python3-venv" >&2; exit 1; }

$(link):
	@mkdir -p $(@D) && ln -sfn ../../../.. $@

demo: setup ## a node of emulated GPUs and the main job on it
	@$(bin)/python playbooks/demo.py

setup-plugin: $(link) python
	@$(python) tools/venv.py $(if $(PYTHON),,--any-python) $(venv) requirements/run.txt requirements/device-plugin.txt

demo-device-plugin: setup-plugin ## the device plugin beside a kubelet without a cluster: what it offers, a GPU that fails, recovery
	@$(bin)/python tests/demo_device_plugin.py

node: setup ## emulated devices alone: make node NODE=hgx-h100 SOCKETS=folder
	@PYTHONPATH=gpu-admin-tools $(bin)/python -m emulator $(NODE) --sockets $(SOCKETS)

bmm: setup ## the emulated API of the bare-metal manager alone: make bmm DATA=fleet.yml LISTEN=127.0.0.1:8080
	@PYTHONPATH=tests $(bin)/python -m bmm_emulator $(DATA) --listen $(LISTEN)

test: setup-dev ## every suite whose tools are there; some: make test SUITES="unit lint"; REQUIRE_ALL=1: none may be left out
	@$(bin)/python tests/run.py $(SUITES)

test-vm: setup-dev ## everything on a real kernel in a virtual machine, power cuts included (half an hour and more)
	@$(bin)/python -m pytest tests/vm -q

test-cluster: setup-dev ## a real Kubernetes with the CC manager on it (ten minutes more at the first time; see tests/cluster/README.md)
	@$(bin)/python -m pytest tests/chart tests/cluster -q

soak: setup-dev ## the CC manager for an hour in bad company: what grows, what must never be seen; SOAK_S=600 SOAK_SEED=1 make soak
	@$(bin)/python -m tests.soak

image: setup-dev ## the CC manager's image, dist/cc-manager.tar
	@$(bin)/python -m tools.image

image-plugin: setup-dev ## the device plugin's image, dist/device-plugin.tar
	@$(bin)/python -m tools.image device-plugin

image-ccm: setup ## the cloud controller manager's image, dist/cloud-controller.tar
	@$(bin)/python -m tools.image cloud-controller

execution-environment: setup-dev ## the context of an execution environment, for buildah, docker or podman to build
	@rm -rf dist/collection dist/execution-environment
	@$(bin)/python -m tools.artifact copy dist/collection
	@$(bin)/ansible-builder create --file execution-environment.yml --context dist/execution-environment > /dev/null

release: setup-dev ## all that a release has, signed with KEY=file (GPG), into dist/release; publishes nothing
	@$(bin)/python -m tools.release --key "$(KEY)"

docs: $(link) python ## the documentation as pages, dist/docs: built and checked; without network once it was built
	@$(python) -m tools.docs

recording: setup ## record `make demo` as docs/images/demo.svg, and its end in README.md
	@$(bin)/python -m tools.recording docs/images/demo.svg $(bin)/python playbooks/demo.py

lint: setup-dev ## the fast checks
	@$(bin)/python tests/run.py lint

format: setup-dev ## format the Python code
	@$(bin)/ruff format .
	@$(bin)/ruff check --fix .

build: setup ## build the collection into dist/
	@$(bin)/python -m tools.artifact build dist

bench: setup-dev ## measure: the module, many hosts at once, a run on a host that is ready, device plugin, cloud controller (half an hour)
	@status=0; for one in run fleet ready_host device_plugin ccm; do $(bin)/python -m tests.bench.$$one || status=1; done; exit $$status

bench-cluster: setup-dev ## measure the CC manager in a Kubernetes, and a thousand nodes
	@$(bin)/python -m tests.bench.cluster
	@$(bin)/python -m tests.bench.crowd

api: python ## make Python of the kubelet's messages, container/device_plugin/api
	@$(python) tools/api.py

lock: python ## resolve pyproject.toml anew into requirements/
	@$(python) tools/lock.py

system-deps: ## install the Debian packages that the suites need, those that are missing
	@tools/system-deps.sh

clean: ## remove all that was made
	rm -rf $(venv) $(venv).lock .cache .hypothesis dist tests/output
