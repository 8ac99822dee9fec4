# The commands of this repository. Every target installs the Debian packages that it needs first (tools/setup), so that
# all of them work on a bare Debian 12 with only make, git and ca-certificates.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PRESET ?= dev
BENCH_PRESET ?= release
FUZZ_SECONDS ?= 600
KILLS ?= 500
SEED ?= $(shell date +%s)
JOBS ?= $(shell nproc)
BUILD := build/$(PRESET)
SOURCES = $(shell git ls-files '*.h' '*.cc' '*.c')

.PHONY: help setup build image demo check bench fuzz torture fmt lint clean

help:
	@echo 'make demo    install what is needed, build, and freeze and thaw a real sandbox, step by step'
	@echo 'make check   build and run every test; the last line says how many passed and failed'
	@echo 'make bench   measure; writes build/bench.json'
	@echo 'make fuzz    libFuzzer on everything that is parsed from outside, for FUZZ_SECONDS=600 in all'
	@echo 'make torture kill processes that use a store or make up a sandbox, cut the power, and play long random histories of stores and guests; KILLS=500 SEED=...'
	@echo 'make build   build the programs (build/$(PRESET)/bin); PRESET=dev|release|asan|tsan|coverage|fuzz'
	@echo 'make image   build the base image (build/image): kernel, initrd, root disk'
	@echo 'make fmt     format the sources'
	@echo 'make lint    check formatting, and the sources with clang-tidy'
	@echo 'make clean   remove build/'

setup:
	@tools/setup build run

# Made again when the presets change; ninja itself notices every other change of the build files.
build/%/build.ninja: CMakePresets.json | setup
	@cmake --preset $* && touch $@

build: setup $(BUILD)/build.ninja
	@ninja -C $(BUILD) -j $(JOBS)

image: build
	@images/build.py --guest $(BUILD)/bin/stasis-guest --out build/image

demo: image
	@demo/run $(BUILD)

check: image
	@tools/run-tests --build $(BUILD) --jobs $(JOBS)

bench: image
	@$(MAKE) build PRESET=$(BENCH_PRESET)
	@bench/run build/$(BENCH_PRESET)

fuzz:
	@tools/setup build run fuzz
	@$(MAKE) build/fuzz/build.ninja
	@ninja -C build/fuzz -j $(JOBS) fuzz_targets
	@tools/fuzz build/fuzz $(FUZZ_SECONDS)

torture: build image
	@tools/torture $(BUILD) $(KILLS) $(SEED)

fmt:
	@tools/setup lint
	@clang-format-16 -i $(SOURCES)

# The build comes first: clang-tidy reads the generated sources of the protocols.
lint: build
	@tools/setup lint
	@clang-format-16 --dry-run -Werror $(SOURCES)
	@run-clang-tidy-16 -quiet -p $(BUILD) -j $(JOBS) -extra-arg=-Wno-unknown-warning-option '^$(CURDIR)/(src|tests)/'

clean:
	@rm -rf --one-file-system build
