# Two commands do everything: make demo, make test.
GO      ?= go
BIN     := bin/pando
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/pandoproxy/pando/internal/cli.Version=$(VERSION)

export CGO_ENABLED ?= 0

.PHONY: demo
demo: build ## show a private API reached by name through a fleet of three
	./$(BIN) demo

.PHONY: build
build: ## build bin/pando
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/pando
