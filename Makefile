# `make help` says what there is. Everything runs from .venv and collections/, which `make setup` makes.
SHELL := /bin/sh
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)

LAB := .venv/bin/python -m tests.lab
COLLECTION := collections/ansible_collections/community/docker/MANIFEST.json
SCENARIOS = $(filter-out shared,$(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml))))
RELEASES := debian-11 debian-12 debian-13 debian-12-as-ubuntu-22.04
# The droplet image a scenario runs on: one of RELEASES, or ubuntu-22.04 and ubuntu-24.04 where a registry can be reached.
IMAGE ?= debian-12

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- set-up

.PHONY: setup venv collections engine image
setup: venv collections ## Make .venv from the lock and install the collections
venv: .venv/complete
.venv/complete: requirements.lock scripts/bootstrap.sh
	@scripts/bootstrap.sh environment

collections: $(COLLECTION)
$(COLLECTION): .venv/complete requirements.yml scripts/install_collections.py scripts/collections.lock
	@scripts/bootstrap.sh collections
	@touch $@

engine: ## Start a Docker engine if none answers
	@scripts/bootstrap.sh engine

image: setup engine ## Build the droplet image IMAGE=debian-12
	@$(LAB) image $(IMAGE)

# ---- a droplet on this machine

.PHONY: up down
up: setup engine ## Bring the example apps into production on a droplet of this machine
	@$(LAB) up

down: ## Remove all that `up` and the tests have started; KEEP_IMAGES=1 keeps the images
	@test ! -x .venv/bin/python || $(LAB) down $(if $(KEEP_IMAGES),--keep-images)

# ---- tests

.PHONY: lint unit test-role test-roles test-site test test-all test-vm bench audit docs
lint: setup ## Check style, types and that the reference is up to date
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/ansible-lint --offline
	.venv/bin/python scripts/docs.py --check

unit: setup ## Run the tests that need no droplet
	.venv/bin/pytest --numprocesses=6

test-role: image ## Run one scenario: ROLE=nginx IMAGE=debian-12
	@test -n "$(ROLE)" || { echo "which one? make test-role ROLE=$(firstword $(SCENARIOS)); there are: $(SCENARIOS)" >&2; exit 2; }
	SHIPSHAPE_IMAGE=$(IMAGE) .venv/bin/molecule test --scenario-name $(ROLE)

test-roles: image ## Run every scenario on IMAGE
	@$(LAB) scenarios --image $(IMAGE) $(SCENARIOS)

test-site: image ## Bring a bare droplet to production, twice, and through a restart
	.venv/bin/pytest tests/site --verbose --durations=25 --numprocesses=3 --dist=loadscope

test: setup ## All of the above, one after another, and count
	@.venv/bin/python -m tests.run lint unit test-roles test-site

test-all: setup ## The same with the scenarios on every release, and all the kills of which `test` has a few
	@SHIPSHAPE_EVERYTHING=1 .venv/bin/python -m tests.run lint unit $(RELEASES:%=test-roles:%) test-site

test-vm: setup engine ## Bring a virtual machine to production, cut its power, audit it; slow; KEEP=1 as for audit
	$(if $(KEEP),SHIPSHAPE_KEEP_VM=1 ).venv/bin/pytest tests/vm --verbose --capture=no --durations=10

bench: image ## Measure all that is promised; ONLY=core,database,recovery,deploys,throughput,tls DRILLS=100
	.venv/bin/python -m tests.bench $(if $(ONLY),--only $(ONLY)) $(if $(DRILLS),--drills $(DRILLS))

audit: image ## Ask strangers' audit tools about a droplet after site.yml; KEEP=1 keeps it, and starts from it next time
	.venv/bin/python -m tests.audit --image $(IMAGE) $(if $(KEEP),--keep)

docs: setup ## Generate the reference from the argument specs
	.venv/bin/python scripts/docs.py
