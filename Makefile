# Two commands do everything: make demo, make test. `make help` lists the rest.
GO       ?= go
BIN      := bin/pando
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/pandoproxy/pando/internal/cli.Version=$(VERSION)
FUZZTIME ?= 100000x
COUNT    ?= 1

# Everything that is built or checked without the race detector is built alike, so
# that the compiler's cache serves all of it: -trimpath, without cgo.
PLAIN_GO := CGO_ENABLED=0 GOFLAGS='$(strip $(GOFLAGS) -trimpath)' $(GO)

# The binaries that others get. Without the stamp of the checkout they are the same
# bytes wherever they are built, and a second build has nothing to do.
RELEASE_BUILD := $(PLAIN_GO) build -buildvcs=false -ldflags '$(LDFLAGS)'

# More flags of make test. CI turns its short go vet off, because make lint runs
# the whole one.
TESTFLAGS ?=

.PHONY: demo
demo: build ## show a private API reached by name through a fleet of three
	./$(BIN) demo

# The packages whose tests run whole tailnets. They run one after the other: each of them
# keeps two processors busy, and what waits for a peer has a time limit.
NETWORKED := .*/internal/(gateway|tailnet)

.PHONY: test
test: deps ## run every test, with the race detector; as root, kernel mode too
	$(RACE_ENV) $(GO) test $(RACE) $(TESTFLAGS) -count=$(COUNT) -timeout 15m -v $$($(GO) list ./... | grep -vxE '$(NETWORKED)')
	$(RACE_ENV) $(GO) test $(RACE) $(TESTFLAGS) -count=$(COUNT) -timeout 15m -v -p 1 $$($(GO) list ./... | grep -xE '$(NETWORKED)')
	$(PLAIN_GO) test $(TESTFLAGS) -count=1 -timeout 10m -v -run 'TestClosesWithTunnels|TestCachedNetmap' ./internal/tailnet # times hold without the detector
	@[ "$$(id -u)" = 0 ] || echo 'NOT ROOT: kernel mode was not tested; run make test as root for that.'

SOAK ?= 5m
.PHONY: soak
soak: ## load a gateway for SOAK while it is reloaded and its router restarts
	$(GO) test -tags soak -count=1 -timeout 60m -v -run TestSoak ./internal/gateway -args -soak $(SOAK)

.PHONY: abuse
abuse: ## attack a replica under memory limits of 512 and 128 MiB, as root
	$(GO) test -tags abuse -count=1 -timeout 30m -v ./abuse

.PHONY: abuse-short
abuse-short: ## the same for a few seconds each, without a bound on times
	$(GO) test -tags abuse -short -count=1 -timeout 10m -v ./abuse

.PHONY: bench
bench: ## measure, as ratios (bench/README.md)
	$(GO) test -run '^$$' -bench . -benchtime 3000x ./bench
	$(GO) test -run '^$$' -bench Cached ./internal/datapath/resolve

# What must hold on any machine, however busy, again and again.
.PHONY: again
again: ## drain, reload and limits, 50 times with the race detector
	$(RACE_ENV) $(GO) test $(RACE) -count=50 -timeout 60m -run '^Test(Drain.*|Reload.*|Limits|TransparentDrain.*|TransparentLimits)$$/^userspace$$' ./internal/gateway

.PHONY: build
build: ## build bin/pando
	$(PLAIN_GO) build -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/pando

# The image: an OCI archive made without Docker.
IMAGE ?= pando:$(VERSION)
ARCHS ?= amd64 arm64
.PHONY: image
image: ## pack dist/pando-image.tar for linux/amd64 and linux/arm64, with an SBOM beside it
	for arch in $(ARCHS); do GOOS=linux GOARCH=$$arch $(RELEASE_BUILD) -o dist/pando-linux-$$arch ./cmd/pando || exit 1; done
	cd tools && $(PLAIN_GO) run ./image -name $(IMAGE) -out ../dist/pando-image.tar -max 14 -entrypoint /pando -links usr/local/bin/containerboot=/pando,usr/local/bin/tailscale=/pando \
	  $(foreach a,$(ARCHS),linux/$(a)=pando:../dist/pando-linux-$(a))
	cd tools && gomod=$$($(PLAIN_GO) tool -n cyclonedx-gomod) && for arch in $(ARCHS); do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $$gomod app -json -licenses -std -noserial -notimestamp -main cmd/pando -output ../dist/pando-image-$$arch.cdx.json .. || exit 1; done

# The end-to-end tests want a cluster: KUBECTL reaches it, and E2E_LOAD puts an
# image archive on its nodes. E2E_EXEC stands before the command that runs the
# tests, for a cluster in a network namespace.
TOOLS    ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pando-e2e
KUBECTL  ?= kubectl
E2E_LOAD ?= kind load image-archive
E2E_EXEC ?=
E2E_RUN  ?= .
.PHONY: e2e
e2e: e2e-build ## prove a fleet on the cluster that KUBECTL reaches
	for i in pando lab stock; do $(E2E_LOAD) dist/e2e/$$i.tar || exit 1; done
	cd e2e && HELM=$(TOOLS)/helm KUBECTL='$(KUBECTL)' $(E2E_EXEC) ../dist/e2e/e2e.test -test.v -test.timeout 20m -test.run '$(E2E_RUN)'

.PHONY: e2e-build
e2e-build:
	mkdir -p dist/e2e $(TOOLS)
	cd tools/headscale && $(PLAIN_GO) build -ldflags '-s -w' -o $(TOOLS)/headscale github.com/juanfont/headscale/cmd/headscale
	cd tools/stock && for c in tailscaled tailscale containerboot; do $(PLAIN_GO) build -ldflags '-s -w' -o $(TOOLS)/$$c tailscale.com/cmd/$$c || exit 1; done
	cd tools && $(PLAIN_GO) build -o $(TOOLS)/ ./image helm.sh/helm/v3/cmd/helm
	$(PLAIN_GO) build -ldflags '-s -w' -o dist/e2e/lab ./e2e/lab
	$(PLAIN_GO) test -c -tags e2e -o dist/e2e/e2e.test ./e2e
	$(MAKE) build
	$(TOOLS)/image -name lab.invalid/pando:e2e -out dist/e2e/pando.tar -entrypoint /pando linux/amd64=pando:$(BIN)
	$(TOOLS)/image -name lab.invalid/pando-lab:e2e -out dist/e2e/lab.tar -entrypoint /lab linux/amd64=lab:dist/e2e/lab,headscale:$(TOOLS)/headscale
	$(TOOLS)/image -name lab.invalid/tailscale:e2e -out dist/e2e/stock.tar -entrypoint /usr/local/bin/containerboot \
	  linux/amd64=usr/local/bin/containerboot:$(TOOLS)/containerboot,usr/local/bin/tailscale:$(TOOLS)/tailscale,usr/local/bin/tailscaled:$(TOOLS)/tailscaled

.PHONY: cross
cross: ## build for linux and darwin, amd64 and arm64
	for os in linux darwin; do for arch in amd64 arm64; do echo "$$os/$$arch"; \
	  GOOS=$$os GOARCH=$$arch $(RELEASE_BUILD) -o dist/pando-$$os-$$arch ./cmd/pando || exit 1; done; done

.PHONY: lint
lint: ## gofmt, go vet (linux and darwin) and staticcheck
	@files=$$(gofmt -l .); [ -z "$$files" ] || { echo "not gofmt'ed: $$files"; exit 1; }
	$(GO) mod tidy -diff
	$(PLAIN_GO) vet ./... && $(PLAIN_GO) vet -tags e2e ./e2e && $(PLAIN_GO) vet -tags soak ./internal/gateway && $(PLAIN_GO) vet -tags abuse ./abuse && $(PLAIN_GO) vet -tags clients ./clients && cd tools && $(PLAIN_GO) vet ./...
	GOOS=darwin $(PLAIN_GO) vet ./cmd/... ./internal/tailnet/ ./internal/gateway/ ./internal/nstest/
	$(PLAIN_GO) tool staticcheck ./...

.PHONY: fuzz
fuzz: ## run every fuzz target FUZZTIME times (or for a time, such as 30s)
	@set -e; files=$$(grep -rl --include='*_test.go' '^func Fuzz' cmd internal); for file in $$files; do \
	  for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$file); do \
	    echo "$$file $$f"; $(PLAIN_GO) test -vet=off -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$file); done; done

# The other proxies must not run as services: only the test uses them.
.PHONY: differential
differential: ## send unusual HTTP through Pando, squid, haproxy and tinyproxy, and write the table
	@need=; for p in squid haproxy tinyproxy; do PATH=$$PATH:/usr/sbin command -v $$p >/dev/null || need="$$need $$p"; done; \
	if [ -n "$$need" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "make differential: installing with apt-get:$$need (the test compares Pando with them)"; \
	  apt-get update -q && apt-get install -y -q --no-install-recommends $$need || true; \
	fi
	$(GO) test -count=1 -v -run TestPeers ./internal/datapath/httpproxy/differential -update
	$(GO) test -count=1 ./internal/datapath/httpproxy/differential

.PHONY: nmap
nmap: ## have nmap look for an open proxy, as root on Debian
	@if ! command -v nmap >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo 'make nmap: installing with apt-get: nmap (the test runs its scripts against a gateway, in a namespace without a way out)'; \
	  apt-get update -q && apt-get install -y -q --no-install-recommends nmap || true; \
	fi
	@command -v nmap >/dev/null || { echo 'make nmap: nmap is not installed; install it, or run make nmap as root on Debian'; exit 1; }
	$(PLAIN_GO) test -count=1 -v -run '^TestNmap$$' ./internal/gateway

# The programs of make clients. Chromium, Java and MariaDB are large.
CLIENT_PACKAGES := curl wget wget2 busybox aria2 lynx git python3 python3-requests python3-httpx python3-socksio \
	python3-aiohttp python3-aiohttp-socks python3-socks nodejs npm default-jdk-headless ruby perl libwww-perl \
	liblwp-protocol-https-perl php-cli php-curl openssl socat ncat netcat-openbsd openssh-client proxychains4 \
	postgresql mariadb-client mariadb-server-core chromium libnss3-tools

.PHONY: clients
clients: ## run real client programs through a replica, as root on Debian, and write docs/clients.md
	@need=; for p in $(CLIENT_PACKAGES); do \
	  [ $$p = npm ] && command -v npm >/dev/null && continue; \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || need="$$need $$p"; done; \
	if [ -n "$$need" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "make clients: installing with apt-get:$$need (the test runs them as clients of a replica)"; \
	  apt-get update -q && apt-get install -y -q --no-install-recommends $$need || true; \
	fi
	@if [ ! -e tools/clients/node_modules/.package-lock.json ]; then \
	  echo 'make clients: installing the packages of tools/clients/package.json with npm'; \
	  npm ci --prefix tools/clients --ignore-scripts --no-audit --no-fund || true; \
	fi
	@[ -x bin/clients/grpcurl ] || { echo 'make clients: building grpcurl'; \
	  GOBIN=$(CURDIR)/bin/clients $(PLAIN_GO) install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3 || true; }
	$(GO) test -tags clients -count=1 -timeout 60m -v ./clients -args -update

.PHONY: vuln
vuln: ## look for known vulnerabilities in what is linked
	@out=$$($(PLAIN_GO) tool govulncheck ./... 2>&1); code=$$?; echo "$$out"; \
	if echo "$$out" | grep -q 'fetching vulnerabilities'; then echo 'SKIPPED: the vulnerability database can not be reached from here.'; else exit $$code; fi

.PHONY: docs
docs: ## generate docs/configuration.md, docs/metrics.md, the help of the flags and the chart's schema
	$(GO) run ./internal/configdoc/generate
	$(GO) test -count=1 ./internal/metrics -run TestReference -update

.PHONY: docs-check
docs-check: ## check links, commands and examples of the documentation
	$(PLAIN_GO) test -count=1 ./docs ./e2e && $(PLAIN_GO) test -count=1 -run '^TestDocs' ./internal/cli

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed 's/:.*## /\t/'

# The tests use curl as a client and PostgreSQL as a target, and the race
# detector needs a C compiler. Without curl nothing can be tested. Without the
# others, less is tested.
.PHONY: deps
deps: ## install what the tests need, curl and PostgreSQL, on Debian as root
	@need=; \
	command -v curl >/dev/null || need="$$need curl"; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || need="$$need postgresql"; \
	if [ -n "$$need" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "make deps: installing with apt-get:$$need (the tests use curl as a client and PostgreSQL as a target)"; \
	  apt-get update -q && apt-get install -y -q --no-install-recommends $$need || true; \
	fi
	@command -v curl >/dev/null || { echo 'make deps: the tests need curl; install it, or run make deps as root on Debian'; exit 1; }
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || echo 'NO POSTGRESQL: its test is skipped.'
	@[ -n '$(RACE)' ] || echo 'NO C COMPILER: testing without the race detector.'

ifneq ($(shell command -v gcc),)
RACE     := -race
RACE_ENV := CGO_ENABLED=1
endif
