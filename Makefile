# Two commands do everything: make demo, make test. `make help` lists the rest.
GO       ?= go
BIN      := bin/pando
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/pandoproxy/pando/internal/cli.Version=$(VERSION)
FUZZTIME ?= 300000x
COUNT    ?= 1

.PHONY: demo
demo: build ## show a private API reached by name through a fleet of three
	./$(BIN) demo

.PHONY: test
test: deps ## run every test, with the race detector; as root, kernel mode too
	$(RACE_ENV) $(GO) test $(RACE) -count=$(COUNT) -timeout 15m -v ./...
	$(GO) test -count=1 -timeout 10m -v -run 'TestUserspace|TestKernel' ./internal/tailnet # times hold without the detector
	@[ "$$(id -u)" = 0 ] || echo 'NOT ROOT: kernel mode was not tested; run make test as root for that.'

.PHONY: build
build: ## build bin/pando
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/pando

.PHONY: cross
cross: ## build for linux and darwin, amd64 and arm64
	for os in linux darwin; do for arch in amd64 arm64; do echo "$$os/$$arch"; \
	  CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/pando-$$os-$$arch ./cmd/pando || exit 1; done; done

.PHONY: lint
lint: ## gofmt, go vet (linux and darwin) and staticcheck
	@files=$$(gofmt -l cmd internal); [ -z "$$files" ] || { echo "not gofmt'ed: $$files"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	GOOS=darwin $(GO) vet ./cmd/... ./internal/tailnet/ ./internal/gateway/ ./internal/nstest/
	$(GO) tool staticcheck ./...

.PHONY: fuzz
fuzz: ## run every fuzz target FUZZTIME times (or for a time, such as 30s)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg; done; done

.PHONY: vuln
vuln: ## look for known vulnerabilities in what is linked
	@out=$$($(GO) tool govulncheck ./... 2>&1); code=$$?; echo "$$out"; \
	if echo "$$out" | grep -q 'fetching vulnerabilities'; then echo 'SKIPPED: the vulnerability database can not be reached from here.'; else exit $$code; fi

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9]+:.*##' Makefile | sed 's/:.*## /\t/'

# The tests use curl as a client, and the race detector needs a C compiler.
.PHONY: deps
deps:
	@command -v curl >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -q curl; } || { echo 'the tests need curl: install it'; exit 1; }
	@[ -n '$(RACE)' ] || echo 'NO C COMPILER: testing without the race detector.'

ifneq ($(shell command -v gcc),)
RACE     := -race
RACE_ENV := CGO_ENABLED=1
endif
