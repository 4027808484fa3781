# make demo, make test: what a newcomer wants. The rest is in `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := build

GO       ?= go
BIN      := bin
TOOLS    := $(BIN)/tools
PLUGINS  := $(patsubst %/main.go,./%,$(wildcard plugins/*/main.go))
COMMANDS := $(patsubst %/main.go,./%,$(wildcard cmd/*/main.go))
EXAMPLES := $(patsubst %/go.mod,%,$(wildcard examples/*/go.mod))
# Not tools: tidy also wants the tests of what the tools depend on, and those
# name one package in two modules (genproto).
MODULES  := . $(EXAMPLES)

# Packages whose tests also run under the race detector. The end-to-end tests
# in test/, and those of examples and docs, start the real binaries, which it
# doesn't reach. The store's run under it in make stores: the clouds' SDKs take
# three minutes of a core to be compiled for it.
RACE = $(shell $(GO) list ./... | grep -v -e /test/ -e /pluginpb$$ -e /pipeline-store-objects -e /bench -e /examples$$ -e /docs/)

# Longest wait for one package's tests. FUZZTIME is for each fuzz target.
TIMEOUT  ?= 20m
FUZZTIME ?= 1m
CRASHES  ?= 500
PLACES   ?= 24
SOAK     ?= 1h
BENCH    ?= .
ROUNDS   ?= 5
GROWTH   ?= 10000 100000 1000000
BASE     ?= HEAD~1

.PHONY: help build demo test race crash power network cluster soak container judge stores lint format modules generated bench growth microbench compare fuzz proto deps tools clean api cross dist

help: ## Say what can be made
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

build: ## Build bin/pipeline and the plugins beside it
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ $(COMMANDS) $(PLUGINS)

demo: build ## Export the sample mailbox of an embedded IMAP server to export/
	$(BIN)/pipeline demo

# Never from the test cache: it doesn't know the executables that the tests in
# test/ build and run.
test: deps ## Run all tests, installing what they need
	$(GO) test -count=1 -timeout $(TIMEOUT) ./...
	@$(MAKE) race

# The samples of each package are enough for the race detector: the corpus
# takes ten times as long under it and finds no other race.
race: ## Run the packages' tests under the race detector
	MAILHAUL_CORPUS= $(GO) test -race -timeout $(TIMEOUT) $(RACE)

crash: ## Kills, signals, full and failing disks, power cuts, leaping clocks: every point and CRASHES (500) moments; make test takes a sample
	MAILHAUL_CRASHES=$(CRASHES) $(GO) test -count=1 -timeout 4h -v -tags clock -run 'Mixed' ./test/crash

power: ## Cut the power under a real ext4 at some 80 moments; needs root, loop devices, e2fsprogs and 4 GiB of memory
	MAILHAUL_CRASHES=30 $(GO) test -count=1 -timeout 1h -v -tags ext4 -run 'OnExt4' ./test/crash

network: ## Break the way to a server at PLACES (24) of each protocol; make test does it at one
	MAILHAUL_NETWORK=$(PLACES) $(GO) test -count=1 -timeout 1h -v -run NetworkFaults ./test/e2e

cluster: deps ## Workers: 200 mailboxes with 20 kills, 10,000 empty tasks at 300 a second, two workers against a local run in ROUNDS (5)
	MAILHAUL_CLUSTER=200 MAILHAUL_TASKS=10000 $(GO) test -count=1 -timeout 1h -v -parallel 1 -run 'Killed|Stopped|EmptyTasks' ./internal/cluster/worker
	MAILHAUL_CLUSTER=200 MAILHAUL_ROUNDS=$(ROUNDS) $(GO) test -count=1 -timeout 2h -v -parallel 1 ./test/workers

soak: ## Run pipelines over and over for SOAK (1h) while mail comes and goes; make test does it eight times
	MAILHAUL_SOAK=$(SOAK) $(GO) test -count=1 -timeout 24h -v -run Soak ./test/soak

container: ## Build what the Dockerfile does, and run it in a read-only root; needs root and Dovecot
	$(GO) test -tags container -count=1 -timeout $(TIMEOUT) -v ./test/container

stores: deps ## Run the tests of object storage over Google's and Azure's too, under the race detector; needs Node.js and npm
	.ci/install-stores
	$(GO) test -race -tags clouds -count=1 -timeout $(TIMEOUT) ./plugins/pipeline-store-objects/...

judge: ## Have four readers of others judge the .msg of every mail; CI takes a sample
	.ci/judge all

lint: deps $(TOOLS)/golangci-lint format modules generated api ## Check format, vet, linters, modules, generated code, rules
	$(GO) vet ./...
	$(GO) vet -tags judge ./plugins/pipeline-sink-msg/...
	$(GO) vet -tags clock ./test/crash
	$(GO) vet -tags ext4 ./test/crash
	$(GO) vet -tags clouds ./plugins/pipeline-store-objects/...
	$(foreach dir,$(EXAMPLES),$(GO) -C $(dir) vet ./... &&) true
	$(TOOLS)/golangci-lint run ./...
	$(GO) test -count=1 ./test/rules/...

format:
	@files=$$(find . -name '*.go' -not -path './bin/*' | xargs gofmt -l); \
	if [ -n "$$files" ]; then echo "gofmt would change these; run gofmt -w on them:"; echo "$$files"; exit 1; fi

modules:
	@for dir in $(MODULES); do \
		$(GO) -C $$dir mod tidy -diff || { echo "$$dir/go.mod isn't tidy; run: go -C $$dir mod tidy"; exit 1; }; \
	done

# protoc's own version stands in the output, and differs between machines.
generated: $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc
	@out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	PROTOC_GEN_BIN=$(CURDIR)/$(TOOLS) sh proto/generate.sh "$$out"; \
	diff -r -I '^//.*protoc ' "$$out" internal/pluginpb || { echo "internal/pluginpb isn't what proto/ gives; run: make proto"; exit 1; }

# BENCH_OUT should be on a file system like the one that exports go to: see
# bench/METHODOLOGY.md.
bench: ## Compare whole exports with other programs, into bin/bench.md
	@mkdir -p $(BIN)
	BENCH_ROUNDS=$(ROUNDS) BENCH_RESULT=$(CURDIR)/$(BIN)/bench.md $(GO) test -count=1 -timeout 3h -v ./bench

# Its million of files wants 5 GB in BENCH_OUT.
growth: ## Export 10,000, 100,000 and 1,000,000 messages: time, memory, ledger
	GROWTH='$(GROWTH)' $(GO) test -count=1 -timeout 2h -v -run '^TestGrowth$$' ./bench

.PHONY: latency mailboxes accounts tax syscalls
LATENCY   ?= 20ms 100ms
MAILBOXES ?= 500 5000
ACCOUNTS  ?= 500 5000

latency: ## Export over lines of 50 Mbit/s with LATENCY (20ms 100ms) round trips, against the ideal
	LATENCY='$(LATENCY)' $(GO) test -count=1 -timeout 2h -v -run '^TestLatency$$' ./bench

tax: ## Export small, mixed and big with plugins as processes and linked into the engine, ROUNDS (5) times in turn, into bin/tax.md
	@mkdir -p $(BIN)
	TAX_ROUNDS=$(ROUNDS) BENCH_RESULT=$(CURDIR)/$(BIN)/tax.md $(GO) test -count=1 -timeout 3h -v -run '^TestTax$$' ./bench

syscalls: ## Hold the system calls for files that whole runs make; needs strace
	$(GO) test -tags strace -count=1 -timeout $(TIMEOUT) -run '^TestSystemCalls$$' ./test/e2e

mailboxes: ## Export accounts of MAILBOXES (500 5000) mailboxes: time, memory, commands
	MAILBOXES='$(MAILBOXES)' $(GO) test -count=1 -timeout 2h -v -run '^TestMailboxes$$' ./bench

accounts: ## Export ACCOUNTS (500 5000) accounts of one server: time, memory, logins
	ACCOUNTS='$(ACCOUNTS)' $(GO) test -count=1 -timeout 2h -v -run '^TestAccounts$$' ./bench

microbench: ## Run the Go benchmarks of all packages
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 1h ./...

# Wire, plan and stages, ledger, MIME, names, MSG: what a message passes.
HOT = ./internal/wire/remote ./internal/stages ./internal/expression ./internal/ledger ./internal/engine ./pkg/message ./pkg/naming \
	./plugins/pipeline-sink-msg/internal/convert ./plugins/pipeline-sink-msg/internal/msg ./plugins/pipeline-sink-eml/internal/eml

compare: $(TOOLS)/benchstat ## Run the hot paths' benchmarks at BASE (HEAD~1) and here, with benchstat
	.ci/compare $(TOOLS)/benchstat '$(BASE)' '$(BENCH)' $(ROUNDS) '$(HOT)'

fuzz: ## Run every fuzz target for FUZZTIME (1m)
	FUZZTIME=$(FUZZTIME) .ci/fuzz

proto: deps $(TOOLS)/protoc-gen-go $(TOOLS)/protoc-gen-go-grpc ## Generate internal/pluginpb from proto/
	PROTOC_GEN_BIN=$(CURDIR)/$(TOOLS) sh proto/generate.sh

deps:
	@.ci/install-deps

$(TOOLS)/%: tools/go.mod tools/go.sum
	CGO_ENABLED=0 $(GO) -C tools build -o $(CURDIR)/$(TOOLS)/ tool
	@touch $(TOOLS)/*

api: $(TOOLS)/apidiff ## Hold the exported API of pkg/ against the frozen one
	.ci/api $(TOOLS)/apidiff

cross: ## Compile for linux, darwin and windows on amd64 and arm64
	.ci/dist check

dist: ## Make an archive for each of those, with checksums, in dist/
	.ci/dist

clean: ## Remove what was built and what the demo exported
	rm -rf $(BIN) dist export .pipeline
