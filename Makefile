# `make demo` and `make test` need Rust, Python 3 and Node; what else is missing they install
# (as root, by apt and below target/tools) or name.

SHELL := /bin/bash
export CARGO_TERM_COLOR ?= auto
export CARGO_DENY := target/tools/bin/cargo-deny
CARGO_DENY_VERSION := 0.20.2

.PHONY: help demo test fmt lint doc unit e2e deny peers fuzz bench bench-tools service soak needs-demo needs-test
.NOTPARALLEL:

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 20

demo: needs-demo ## two MCP servers and the edge with TLS before them, to try out
	cargo run --locked --quiet -- demo

test: needs-test $(CARGO_DENY) ## everything below, with a table at the end
	tests/all.sh

fmt: ## formats the sources
	cargo fmt

lint: ## clippy, warnings are errors
	tests/all.sh fmt lint

doc: ## the API documentation, starting at the life of a request
	tests/all.sh doc

unit: ## every cargo test: unit, e2e, config, architecture
	tests/all.sh test

e2e: ## the end-to-end tests alone
	cargo test --locked --test e2e

deny: $(CARGO_DENY) ## licenses, banned crates, sources
	tests/all.sh deny

peers: needs-test ## real MCP clients and servers through the edge
	tests/all.sh peers

fuzz: ## each fuzz target for ten seconds
	tests/all.sh fuzz

bench: ## this edge beside nginx and others on this machine; options in BENCH, such as BENCH=--quick
	benches/compare/run.py $(BENCH)

bench-tools: ## as root on Debian: the peers and load tools of `make bench`
	@benches/compare/tools.sh

service: target/bench/venv ## failed requests by cause through reloads, restarts, kills, drains and upgrades; options in SERVICE
	cargo build --release --locked
	target/bench/venv/bin/python benches/service/run.py target/release/mcp-edge $(SERVICE)

soak: target/bench/venv ## a million requests, 100,000 sessions, 20,000 streams: memory and descriptors; options in SOAK
	cargo build --release --locked
	target/bench/venv/bin/python benches/service/soak.py target/release/mcp-edge $(SOAK)

target/bench/venv: benches/service/requirements.txt
	python3 -m venv $@
	$@/bin/pip install --quiet --no-deps --disable-pip-version-check -r $<
	@touch $@

needs-demo:
	@tests/needs.sh demo

needs-test:
	@tests/needs.sh test

# Without its default features and unoptimized it builds in a minute or two. The stamp is the version.
$(CARGO_DENY): target/tools/cargo-deny-$(CARGO_DENY_VERSION)
	@touch $@

target/tools/cargo-deny-$(CARGO_DENY_VERSION):
	@mkdir -p target/tools
	cargo install --quiet --locked --debug --no-default-features --force \
		--root target/tools --target-dir target/tools/build cargo-deny@$(CARGO_DENY_VERSION)
	@rm -rf target/tools/build
	@touch $@
