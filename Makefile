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
MUSL := i686-unknown-linux-musl
# The service inside the guest.
GUEST := $(TARGET)/$(MUSL)/guest/guest86
# What benches/ needs: its guest, and env86 for WebAssembly.
BENCH_GUEST := $(TARGET)/images/bench
export ENV86_WASM := $(TARGET)/$(WASM)/web/env86_bench_wasm.wasm

# Where the whole-machine tests look.
export ENV86_BIN := $(ENV86)
export ENV86_IMAGE := $(IMAGE)
export ENV86_IMAGE_ROOT := $(TARGET)/images/debian/root
export ENV86_PAE_IMAGE := $(TARGET)/images/debian-pae/image
export ENV86_NET_IMAGE := $(TARGET)/images/net/image
export ENV86_NET_IMAGE_ROOT := $(TARGET)/images/net/root
export ENV86_DESKTOP_IMAGE := $(TARGET)/images/desktop/image
export ENV86_PEERS := $(TARGET)/peers
# Cargo as rustup installs it, for a shell that has not read its profile.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: alpine archive video-beside kills bench-run bench-disk zoo zoo-others v86-network sound-test miri guest demo-state run-many run-speed go-guest cross cross-boot conformance fuzz judges help demo test web web-test web-beside web-examples web-idle web-speed examples image image-pae bench release profiled deps lint wasm clean peers cross-deps bench-count bench-dispatch bench-footprint bench-image figures bench-share bench-create fuzz-net image-net bench-net net-soak bench-window image-desktop desktop desktop-test

help: ## What can be made
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: image ## From nothing to a 32-bit Debian's shell
	@echo 'uname -a' | $(ENV86) boot $(IMAGE) --ttyS0 --no-console --exit-on 'i686 GNU/Linux'
	@if [ -t 0 ] && [ -t 1 ]; then $(ENV86) boot $(IMAGE) --ttyS0 --no-console; \
	else echo 'For a shell: $(ENV86) boot $(IMAGE) --ttyS0' >&2; fi
	$(if $(DISPLAY)$(WAYLAND_DISPLAY),@echo 'In a window: $(ENV86) boot $(IMAGE)' >&2)

# The links of release builds, which the images wait for, take one processor for minutes: what is not built into the
# folder of release builds is built meanwhile. What installs packages or Rust's libraries comes before that. One test more
# than there are processors runs at a time, as guests often wait.
test: deps std-$(WASM) std-$(MUSL) ## Everything, with real boots of the demo image
	@images/deps.sh Xvfb=xvfb 'xdotool=xdotool libxkbcommon-x11-0 libxcursor1 libxi6' xwd=x11-apps xclip=xclip \
	    wasm-opt=binaryen npm=npm zstd=zstd qemu-img=qemu-utils $(NET_PROGRAMS)
	@$(MAKE) cross-deps
	@mkdir -p $(TARGET); $(MAKE) image image-pae image-net image-desktop peers wasm web > $(TARGET)/images.log 2>&1 & images=$$!; \
	trap 'kill $$images 2> /dev/null || true' EXIT; \
	$(MAKE) lint cross; cargo test --workspace --no-run; \
	failed=0; wait $$images || failed=$$?; cat $(TARGET)/images.log; [ $$failed = 0 ]
	RUST_TEST_THREADS=$$(($$(nproc) + 1)) cargo test --workspace --no-fail-fast
	@$(MAKE) examples
	@if images/deps.sh chromium=chromium; then $(MAKE) web-test; \
	else echo 'warning: the page was not tested in a browser, because Chromium cannot be installed here' >&2; fi

# `cargo test --workspace` has built them already; `-p env86` would build the workspace's crates anew.
examples: image ## The library's examples, each with the demo image
	cargo build --workspace --examples
	for example in boot_and_ask save_and_resume many_machines deterministic; do \
	    $(TARGET)/debug/examples/$$example $(IMAGE) || exit; \
	done

# What `make bench-dispatch` is built with, and nothing else.
COUNTED := env86-benches/dispatch

lint: deps
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features $(COUNTED) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --features $(COUNTED)

# Rust's library for another target.
std = $$(rustc --print sysroot)/lib/rustlib/$(1)
std-%: deps
	@[ -d $(call std,$*) ] || timeout 300 rustup target add $* || true

# What must not know an operating system is built for a machine without one: the module has all of it.
wasm: std-$(WASM)
	@if [ -d $(call std,$(WASM)) ]; then \
	    set -x; cargo build --profile web --target $(WASM) -p env86-bench-wasm; \
	else \
	    echo 'warning: not built for $(WASM), because rustup cannot install that target here' >&2; \
	fi

web: std-$(WASM) ## The machine for pages and Node, in target/web: `env86 serve` and `env86 prepare` need it
	@images/deps.sh wasm-opt=binaryen npm=npm zstd=zstd
	@if [ -d $(call std,$(WASM)) ]; then \
	    set -x; cargo build --profile web --target $(WASM) -p env86-web -p env86-unpack; \
	    host/web/build $(TARGET)/$(WASM)/web/env86_web.wasm $(TARGET)/$(WASM)/web/env86_unpack.wasm $(TARGET)/web; \
	else \
	    echo 'warning: nothing for pages, because rustup cannot install the target $(WASM) here' >&2; \
	fi

web-test: web image ## The demo image prepared for a web server, in headless Chromium
	@images/deps.sh chromium=chromium
	node tests/web/player.mjs host/web/npm
	tests/web/chromium $(ENV86) $(IMAGE) $(TARGET)/web-test

web-beside: web image peers ## Time and bytes to the demo image's prompt in Chromium, beside v86's
	@images/deps.sh chromium=chromium
	@$(ENV86) prepare --force $(IMAGE) $(TARGET)/web-beside
	node tests/web/beside.mjs $(TARGET)/web-beside $(TARGET)/peers/v86 $(IMAGE)

web-speed: web image peers ## The benchmark guest in Chromium, beside v86's JIT: time by section, memory
	@images/deps.sh chromium=chromium
	@benches/guest/build $(ENV86_IMAGE_ROOT) $(TARGET)/images/packages/tools/bin/busybox $(BENCH_GUEST)
	node tests/web/speed.mjs $(TARGET)/web $(TARGET)/peers/v86 $(BENCH_GUEST) 3

web-idle: web image ## An hour of a page that is left open with an idle guest: processor, memory
	@images/deps.sh chromium=chromium
	@$(ENV86) prepare --force $(IMAGE) $(TARGET)/web-idle
	node tests/web/idle.mjs $(TARGET)/web-idle 60

web-examples: web ## v86's own examples, in the folder V86_REPOSITORY, with what they name in V86_FILES (docs/WEB.md)
	@images/deps.sh chromium=chromium script=bsdutils
	node tests/web/examples.mjs $(TARGET)/web $(or $(V86_REPOSITORY),$(error V86_REPOSITORY is a folder with v86's repository)) \
	    $(or $(V86_FILES),$(error V86_FILES is a folder with bios/ and images/)) $(TARGET)/web-examples

cross: deps ## The program for Windows and for 64-bit ARM, unoptimised
	@tests/cross/run build

cross-deps: deps
	@tests/cross/run deps

cross-boot: image ## Both as they are released; a ROM under Wine, the demo image under QEMU's user mode
	@tests/cross/run boot $(TARGET) $(ENV86) $(IMAGE)

# No command stands for the headers.
sound-test: deps ## The sound of the host: lint and tests of a build that has it
	@images/deps.sh $(if $(SOUND),,alsa-headers='pkg-config libasound2-dev')
	cargo clippy -p env86 --all-targets --no-default-features --features net,sound -- -D warnings
	cargo test -p env86 --lib --no-default-features --features net,sound sound

peers: ## The npm package v86, for the tests that exchange states with it
	@tests/peers/v86/install $(TARGET)/peers/v86

v86-network: image peers ## The npm package v86 on a network of `env86 network`'s
	cargo test -p env86-tests relay:: -- --ignored

# With a window where there is a display, and sound where the headers of ALSA are, too: what the window is built
# from takes nearly as long as all else.
SOUND = $(shell pkg-config --exists alsa 2> /dev/null && echo --features sound)
FEATURES = $(if $(DISPLAY)$(WAYLAND_DISPLAY),$(SOUND),--no-default-features --features net,pull)
release: deps
	cargo build --release -p env86 $(FEATURES)

profiled: image ## A faster program, laid out by what guests execute, in target/profiled: two builds more
	@benches/guest/build $(ENV86_IMAGE_ROOT) $(TARGET)/images/packages/tools/bin/busybox $(BENCH_GUEST)
	@host/profiled $(TARGET) $(BENCH_GUEST) $(IMAGE) $(FEATURES)

archive: deps guest web ## The program for other people's computers, in an archive: target/env86-VERSION-x86_64-linux.tar.gz
	@host/archive $(TARGET) $(GUEST) $(TARGET)/web

# Rust's own linker and C library: nothing else is needed for the guest's architecture.
guest: std-$(MUSL) ## The service that runs commands in the guest, for the images
	CARGO_TARGET_I686_UNKNOWN_LINUX_MUSL_LINKER=rust-lld \
	    cargo build --profile guest --target $(MUSL) -p guest86

image: release guest ## The demo image, in target/images/debian
	@images/debian/build --env86 $(ENV86) --guest $(GUEST) $(TARGET)/images/debian

image-desktop: release guest
	@images/debian/build --with images/desktop --env86 $(ENV86) --guest $(GUEST) $(TARGET)/images/desktop

desktop: image-desktop ## X with a window manager, in a window where there is a display
	$(if $(DISPLAY)$(WAYLAND_DISPLAY),$(ENV86) boot $(TARGET)/images/desktop/image,@echo \
	    'There is no display. A picture: $(ENV86) boot $(TARGET)/images/desktop/image --no-console --script FILE' >&2)

# A debug build of env86 for the window, as for all tests of it, here with the graphics adapter, too (a software one will do;
# no command stands for it); X is drawn by the image's own.
desktop-test: image image-desktop ## X by its drivers fbdev and vesa; the mouse in X, and the demo image, in a real window by either way to draw
	@images/deps.sh Xvfb=xvfb 'xdotool=xdotool libxkbcommon-x11-0 libxcursor1 libxi6' xwd=x11-apps xclip=xclip openbox=openbox \
	    $(if $(wildcard /usr/share/vulkan/icd.d/*),,vulkan=mesa-vulkan-drivers)
	cargo test -p env86-tests --test machine desktop:: -- --include-ignored
	cargo test -p env86 --features adapter --test host window:: -- --include-ignored

image-pae: release guest
	@images/debian/build --env86 $(ENV86) --guest $(GUEST) --flavour 686-pae $(TARGET)/images/debian-pae

# Servers and clients of the host's for the network's tests.
NET_PROGRAMS := wrk=wrk iperf3=iperf3 ssh=openssh-client

image-net: release guest ## The demo image with the programs of the network's tests
	@images/debian/build --with images/net --env86 $(ENV86) --guest $(GUEST) $(TARGET)/images/net

alpine: image image-net ## A Dockerfile of a whole Alpine with its own kernel, built and booted (`make test` has a smaller one)
	cargo test -p env86-tests --test machine alpine:: -- --ignored

# One arena of the allocator's, so that what it keeps of ended threads does not look like a leak.
net-soak: image-net ## Mixed traffic for MINUTES (60) with ten saves and restores: nothing lost, no descriptor, no memory
	@images/deps.sh $(NET_PROGRAMS)
	MALLOC_ARENA_MAX=1 ENV86_SOAK_MINUTES=$(or $(MINUTES),60) cargo test -p env86-tests --test machine net_soak:: -- --ignored --nocapture

# A copy, so that the image itself still boots.
demo-state: image ## A copy of the demo image with a ready machine in it, for `env86 run`
	@rm -rf $(TARGET)/images/ready && cp -al $(IMAGE) $(TARGET)/images/ready
	@$(ENV86) run --save $(TARGET)/images/ready true
	@echo 'Try: $(ENV86) run $(TARGET)/images/ready uname -a' >&2

run-many: demo-state ## 2,000 commands, 50 at once, 40 killed, in machines of one state: no byte lost, nothing left
	@tests/run/many $(ENV86) $(TARGET)/images/ready

go-guest: image ## The Go env86's service (GO_GUEST86=FILE, for linux/386) in an image, and our host
	@test -x "$(GO_GUEST86)" || { echo "GO_GUEST86=FILE names the Go env86's guest86 for linux/386" >&2; exit 2; }
	rm -rf $(TARGET)/go-guest && mkdir -p $(TARGET)/go-guest
	cp -a $(ENV86_IMAGE_ROOT) $(TARGET)/go-guest/root
	install -m 755 $(GO_GUEST86) $(TARGET)/go-guest/root/usr/bin/guest86
	$(ENV86) create --from-dir $(TARGET)/go-guest/root $(TARGET)/go-guest/image
	cp $(IMAGE)/image.json $(TARGET)/go-guest/image
	ENV86_GO_IMAGE=$(TARGET)/go-guest/image cargo test -p env86-tests --test machine run::the_go_service -- --ignored

run-speed: demo-state ## How long a command takes, and how fast bytes pass
	@tests/run/speed $(ENV86) $(TARGET)/images/ready

kills: image ## Env86 killed 40 times while a guest writes to its disk: what was synchronised is there
	@images/deps.sh qemu-img=qemu-utils e2fsck=e2fsprogs
	@tests/disk/kills $(ENV86) $(IMAGE) $(TARGET)/kills

zoo: release ## Other people's systems, each to a usable prompt; what cannot be fetched is skipped by name
	@images/zoo/run $(ENV86) $(TARGET)/zoo

zoo-others: peers ## The same systems by the same scripts on QEMU and on v86
	@images/deps.sh qemu-system-i386=qemu-system-x86 python3=python3 node=nodejs
	@for other in qemu v86.mjs; do \
	    mkdir -p $(TARGET)/zoo/fetched $(TARGET)/zoo/$$other && ln -sfn ../fetched $(TARGET)/zoo/$$other/fetched && \
	    echo "$$other:" && V86=$(TARGET)/peers/v86/node_modules/v86 images/zoo/run images/zoo/others/$$other $(TARGET)/zoo/$$other; \
	done

video-beside: release ## The scenes of the video card's tests in QEMU: what differs is what docs/SCREEN.md lists
	@images/deps.sh qemu-system-i386=qemu-system-x86
	cargo test -p env86-tests --test machine video::beside_qemu -- --ignored --nocapture

bench: image wasm ## Whole guests, beside whatever other emulators are installed
	cargo build --release -p env86-benches --bin compare
	@benches/guest/build $(ENV86_IMAGE_ROOT) $(TARGET)/images/packages/tools/bin/busybox $(BENCH_GUEST)
	@benches/whole $(TARGET)/release/compare $(ENV86) $(BENCH_GUEST)

bench-run: demo-state peers ## A command in a machine that resumes a state, beside QEMU and v86 that do the same
	@images/deps.sh qemu-system-i386=qemu-system-x86 qemu-img=qemu-utils
	@benches/run/run $(ENV86) $(TARGET)/images/ready $(ENV86_IMAGE_ROOT) $(TARGET)/images/packages/tools/bin/busybox \
	    $(ENV86_PEERS)/v86 $(TARGET)/bench-run

bench-disk: image std-$(MUSL) ## The disk of a guest, by IDE and by virtio, beside QEMU's
	@images/deps.sh qemu-system-i386=qemu-system-x86
	cargo build --release -p env86-benches --bin compare
	@benches/disk/run $(TARGET)/release/compare $(ENV86) $(ENV86_IMAGE_ROOT) $(TARGET)/images/packages/tools/bin/busybox $(TARGET)/bench-disk

bench-share: release guest ## A folder of the host in a guest (untar, grep, git, sqlite, a compiler), beside QEMU's virtfs
	@images/deps.sh qemu-system-i386=qemu-system-x86 git=git
	@images/debian/build --with benches/share --env86 $(ENV86) --guest $(GUEST) $(TARGET)/images/share
	@rm -rf $(TARGET)/images/share/ready && cp -al $(TARGET)/images/share/image $(TARGET)/images/share/ready
	@$(ENV86) run --save $(TARGET)/images/share/ready true
	@benches/share/run $(ENV86) $(TARGET)/images/share/ready $(TARGET)/images/share/root $(TARGET)/bench-share

bench-net: image-net ## The guest's network beside QEMU's slirp, in turns: throughput, requests, latency, idleness
	@images/deps.sh qemu-system-i386=qemu-system-x86 readelf=binutils $(NET_PROGRAMS)
	@benches/net/run $(ENV86) $(TARGET)/images/net/root $(TARGET)/images/packages/tools/bin/busybox $(TARGET)/bench-net

# The probe speaks to the X server; the window must be in the program, even where there is no display.
bench-window: deps ## From a key to the dot it changes, and a guest's frames, in windows of env86's and QEMU's in turns
	@images/deps.sh Xvfb=xvfb 'xdotool=xdotool libxkbcommon-x11-0 libxcursor1 libxi6' as=binutils qemu-system-i386=qemu-system-x86 \
	    $(if $(wildcard /usr/lib/*/qemu/ui-gtk.so),,qemu-windows=qemu-system-gui)
	cargo build --release -p env86
	cargo build --release -p env86-benches --bin window
	@benches/window/run $(ENV86) $(TARGET)/release/window $(TARGET)/bench-window

bench-create: release ## Images from directories, beside tar and zstd
	@images/deps.sh zstd=zstd
	@benches/create/run $(ENV86) $(TARGET)/bench-create

bench-count: deps ## Host instructions for each of the guest's, by Valgrind: repeatable to 0.1 %
	cargo build --release -p env86-benches --bin count
	@$(TARGET)/release/count

bench-dispatch: image ## Dispatches for each of the guest's instructions in the benchmark guest, and which
	cargo build --profile fast -p env86-benches --features dispatch --bin dispatch
	@benches/guest/build $(ENV86_IMAGE_ROOT) $(TARGET)/images/packages/tools/bin/busybox $(BENCH_GUEST)
	@$(TARGET)/fast/dispatch $(BENCH_GUEST)

bench-footprint: image ## Time to start, memory at a prompt, size of the program
	cargo build --release -p env86-benches --bin footprint
	@$(TARGET)/release/footprint $(ENV86) $(IMAGE)

bench-image: image ## Times the boot of the demo image and programs in it
	@benches/image $(ENV86) $(IMAGE)

figures: image peers ## What saved states cost, against v86 in turns
	cargo test -p env86-tests figures:: -- --ignored --nocapture --test-threads 1

# What was built for one processor (.cargo/config.toml) may not run on another, and cargo does not see that it is another.
# Several may run at a time, so that the file is only written where it says something else.
deps: ## Installs what building needs and is missing
	@images/deps.sh
	@now=$$({ grep -m 1 -e ^flags -e ^Features /proc/cpuinfo || true; } | cksum); known=$(TARGET)/processor; \
	if [ "$$(cat $$known 2> /dev/null || true)" != "$$now" ]; then \
	    if [ -e $$known ]; then \
	        echo 'another processor: everything is built anew' >&2; rm -rf $(TARGET)/{debug,release,fast,profiled}; \
	    fi; \
	    mkdir -p $(TARGET); echo "$$now" > $$known; \
	fi

clean: ## Removes everything that was built
	cargo clean
	rm -rf $(TARGET)/images

conformance: deps ## The instruction set against this host's processor, for hours
	cargo run --release -p env86-conformance -- --row 100000 --write docs/CONFORMANCE.md

fuzz: deps ## Random code with and without kept blocks, random bytes against another decoder, an hour each
	cargo run --release -p env86-conformance -- --fuzz blocks --minutes 60
	cargo run --release -p env86-conformance -- --fuzz decoder --minutes 60

fuzz-net: deps ## Random and changed frames into the network's gateway, for MINUTES (60): no panic, memory under a limit
	ENV86_FUZZ_MINUTES=$(or $(MINUTES),60) cargo test --profile fast -p env86 --lib -- --ignored --exact net::tests::hostile::hostile_frames_for_long

# What they are and how they are to be configured: tests/judges/run. They are not built here.
judges: image ## Others' tests of emulators, built before in the directory JUDGES
	tests/judges/run $(ENV86) $(TARGET)/images/debian/root/boot/vmlinuz-* $(or $(JUDGES),$(error JUDGES names the directory))

miri: ## The processor's tests under Miri, which finds undefined behaviour; needs a nightly toolchain
	MIRIFLAGS='-Zmiri-permissive-provenance -Zmiri-tree-borrows' \
	    cargo +nightly miri test --target-dir $(TARGET)/miri -p env86-emu --lib -- --skip simd:: --skip fpu::
