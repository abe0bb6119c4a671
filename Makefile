# env86. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
ENV86 := $(TARGET)/release/env86
IMAGE := $(TARGET)/images/debian/image
WASM := wasm32-unknown-unknown

# Where the whole-machine tests look.
export ENV86_BIN := $(ENV86)
export ENV86_IMAGE := $(IMAGE)
export ENV86_IMAGE_ROOT := $(TARGET)/images/debian/root
export ENV86_PAE_IMAGE := $(TARGET)/images/debian-pae/image
export ENV86_PEERS := $(TARGET)/peers
# Cargo as rustup installs it, for a shell that has not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: figures peers conformance fuzz help demo test image image-pae bench release deps lint wasm clean

help: ## What can be made
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: image ## From nothing to a 32-bit Debian's shell
	@echo 'uname -a' | $(ENV86) boot $(IMAGE) --ttyS0 --no-console --exit-on 'i686 GNU/Linux'
	@if [ -t 0 ] && [ -t 1 ]; then $(ENV86) boot $(IMAGE) --ttyS0 --no-console; \
	else echo 'For a shell: $(ENV86) boot $(IMAGE) --ttyS0' >&2; fi

test: lint wasm image image-pae peers ## Everything, with real boots of the demo image
	cargo test --workspace --no-fail-fast

lint: deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

# What must not know an operating system is built for a machine without one.
wasm: deps
	@std=$$(rustc --print sysroot)/lib/rustlib/$(WASM); \
	[ -d $$std ] || timeout 300 rustup target add $(WASM) || true; \
	if [ -d $$std ]; then \
	    set -x; cargo build --target $(WASM) -p env86-emu -p env86-devices -p env86-bios; \
	    cargo build --release --target $(WASM) -p env86-bench-wasm; \
	else \
	    echo 'warning: not built for $(WASM), because rustup cannot install that target here' >&2; \
	fi

peers: ## The npm package v86, for the tests that exchange states with it
	@tests/peers/v86/install $(TARGET)/peers/v86

release: deps
	cargo build --release -p env86

image: release ## The demo image, in target/images/debian
	@images/debian/build --env86 $(ENV86) $(TARGET)/images/debian

image-pae: release
	@images/debian/build --env86 $(ENV86) --flavour 686-pae $(TARGET)/images/debian-pae

bench: image ## Times the boot of the demo image and programs in it
	@benches/guest $(ENV86) $(IMAGE)

figures: image peers ## What saved states cost, against v86 in turns
	cargo test -p env86-tests --test figures -- --ignored --nocapture --test-threads 1

deps: ## Installs what building needs and is missing
	@images/deps.sh

clean: ## Removes everything that was built
	cargo clean
	rm -rf $(TARGET)/images

conformance: deps ## The instruction set against this host's processor, for hours
	cargo run --release -p env86-conformance -- --cases 100000 --write docs/CONFORMANCE.md

fuzz: deps ## Random code with and without kept blocks, random bytes against another decoder, for an hour
	cargo run --release -p env86-conformance -- --fuzz 5000
