# The commands of this repository. `make` alone lists them; what is longer than a line is a script in scripts/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

.PHONY: help run test fault-suite backup-rounds scaled rolling-update five-kinds guide-walk docs-walk chart-check monitoring-check image lint format bench clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

run: ## Build, serve the starter agents, let one of them work, keep serving (ONCE=1: end then; PROFILE=release; AGENT=, TASK=)
	@ONCE='$(ONCE)' PROFILE='$(PROFILE)' scripts/run

test: ## Install what the tests need; check format and lints; run all tests
	@scripts/test

fault-suite: ## Kill servers and processes under load, and audit (RUNS=3, FAULT_SEED=)
	@scripts/fault-suite

scaled: ## Three processes of each part; kill some of each kind under load, and audit (FAULT_SEED=)
	@scripts/scaled

rolling-update: ## To the next version and back under load, with two programs, and audit (OLD=revision)
	@OLD='$(OLD)' scripts/rolling-update

backup-rounds: ## Lose everything and go on from a backup, again and again (BACKUP_ROUNDS=20, BACKUP_SEED=)
	@scripts/backup-rounds

five-kinds: ## Let the five kinds of agent work together for minutes, and audit (FIVE_KINDS_SECONDS=240)
	@scripts/five-kinds

guide-walk: ## Run every command block of docs/operations-guide.md against the compose stack (KEEP=1, BINARY=)
	@scripts/guide-walk

docs-walk: ## Run the command blocks of README.md and docs/ (PAGES=, KEEP=1, BINARY=)
	@scripts/docs-walk

chart-check: ## Render the Helm chart and hold it to Kubernetes' schemas
	@scripts/chart-check

monitoring-check: ## Have a real Prometheus check and try the alert rules, and evaluate every query of rules and dashboard (BINARY=)
	@scripts/monitoring-check

image: ## Build the container image with a binary that is built here (PROFILE=dist, BINARY=)
	@scripts/image

lint: ## Check format, lints, shell scripts, licences
	@scripts/lint

format: ## Format the code
	@cargo fmt --all

bench: ## Measure this machine with a release build; the figures of docs/performance.md
	@scripts/bench

clean: ## Delete what was built, and the data of `make run`
	@cargo clean
	@rm -rf data
