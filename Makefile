# sgfleet and sgsim. `make help` lists the targets.

SHELL   := /bin/bash
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X github.com/sgfleet/sgfleet/cmd/internal/cli.version=$(VERSION)'

.DEFAULT_GOAL := help
.PHONY: help demo test scenarios check lint race fuzz bench soak mutants e2e build package clean need-go deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: need-go ## a fleet of 42 fake services on 8 hosts, restarted live on screen: needs Go, git and make only
	@$(GO) run ./cmd/sgsim demo

test: need-go deps ## every test (real redis-server, real systemd, real git) and every scenario
	$(GO) test ./...
	@$(MAKE) --no-print-directory scenarios

scenarios: need-go ## run every shipped scenario in virtual time
	$(GO) run ./cmd/sgsim run scenarios

check: need-go deps lint race scenarios ## what CI runs: lint, tests with the race detector, scenarios

lint: need-go ## gofumpt, vet, staticcheck, deadcode, go.mod tidy, planted bugs still apply, Ansible linters when installed
	@.ci/lint

race: need-go deps ## every test with the race detector
	CGO_ENABLED=1 $(GO) test -race ./...

fuzz: need-go ## each fuzz target for FUZZTIME (default 10s)
	@.ci/fuzz $${FUZZTIME:-10s}

bench: need-go deps build ## publish → last ack against a raw-RESP floor, the daemon's idle memory, virtual : real time
	@.ci/bench

soak: need-go deps ## the long forms: 1,000 git kills, Redis killed again and again, real-time scenarios
	SGFLEET_SOAK=1 $(GO) test -timeout 60m -count=1 ./...

mutants: need-go ## plant each bug in a copy and require that its invariant catches it
	SGFLEET_MUTANTS=1 $(GO) test -v -timeout 60m -count=1 -run TestMutant ./sim/mutants

e2e: need-go build ## the Ansible role on real hosts in namespaces (root)
	@ansible/e2e/run

build: need-go ## static binaries in bin/
	@mkdir -p bin
	$(BUILD) -o bin/ ./cmd/...

package: need-go build ## .deb and .rpm in dist/
	@ansible/package

clean: ## remove bin/ and dist/
	rm -rf bin dist

deps:
	@.ci/deps

need-go:
	@command -v $(GO) >/dev/null || { echo "Go is not installed: this project needs Go 1.26 or newer (https://go.dev/dl)."; exit 1; }
	@$(GO) list -m >/dev/null 2>&1 || { \
	  echo "go.mod asks for Go $$(awk '/^go /{print $$2}' go.mod) or newer; this is $$(cd / && GOTOOLCHAIN=local $(GO) version | cut -d' ' -f3)."; \
	  echo "Install it from https://go.dev/dl, or let Go 1.21 and newer fetch it: GOTOOLCHAIN=auto make $(MAKECMDGOALS)"; \
	  $(GO) list -m; exit 1; }
