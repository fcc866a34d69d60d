# Two targets do all the set-up: `make image` builds and publishes, `make test` tests everything.

PREFIX  ?= /usr/local
DESTDIR ?=
OUT     ?= out
SPEC    ?= amd64-minimal
# CARGO_TARGET_DIR, where it is set, is where cargo builds.
TARGET  := $(or $(CARGO_TARGET_DIR),target)
PROGRAM := $(TARGET)/release/stagegraph

# Debian packages, by what needs them.
BUILD_PACKAGES := gcc libc6-dev
IMAGE_PACKAGES := bubblewrap
# What images are made with where the tools are this machine's own (step = "host"), as in catalyst's graphs and in many tests.
HOST_PACKAGES := mmdebstrap xorriso grub-common grub-pc-bin grub-efi-amd64-bin mtools dosfstools ipxe pxelinux \
	syslinux-common
TEST_PACKAGES  := squashfs-tools squashfs-tools-ng genisoimage cpio zstd xz-utils attr libcap2-bin \
	qemu-system-x86 ovmf ipxe-qemu dnsmasq-base iproute2 curl tftp-hpa atftp libnfs-utils systemd isc-dhcp-server kea-dhcp4-server nginx-light openssl e2fsprogs procps python3-minimal python3-venv xfsprogs fdisk \
	gnupg cryptsetup-bin softhsm2 libengine-pkcs11-openssl sbsigntool
TEST_PACKAGES  += qemu-system-arm qemu-efi-aarch64
# Machines of which `make test` boots none.
BOOT_PACKAGES  := qemu-system-misc qemu-system-ppc u-boot-qemu ovmf-ia32
CATALYST_PACKAGES := lbzip2 rsync busybox-static git squashfs-tools-ng squashfs-tools libcap2-bin cpio xfsprogs fdisk \
	genisoimage procps python3-venv qemu-system-x86 ipxe-qemu
CHECK_PACKAGES := g++ gcc-aarch64-linux-gnu libc6-dev-arm64-cross
BENCH_PACKAGES := squashfs-tools squashfs-tools-ng ninja-build cpio python3-minimal genisoimage time curl libnfs-utils nginx-light wrk

.PHONY: help program image check test test-boot test-fast test-release test-lock test-catalyst bench install
.PHONY: packages-image packages-check packages-test packages-boot packages-bench packages-catalyst

help:
	@echo "make image              build $(SPEC): an ISO and a netboot set, under $(OUT)/"
	@echo "make check              what a contributor runs before a commit: a minute or two"
	@echo "make test               run all tests: style, units, images, documents, boots in QEMU"
	@echo "make test-boot          boot the images in every way there is"
	@echo "make test-fast          all tests but the boots"
	@echo "make test-release RELEASE=trixie   build the image in a root of another release of Debian, and boot it; as root"
	@echo "make test-lock          build the image with one lock in roots of two releases of Debian, and compare; as root"
	@echo "make test-catalyst CATALYST=DIR   run the catalyst whose source is in DIR, and boot what it makes; as root"
	@echo "make bench              compare with the tools one would otherwise run"
	@echo "make install PREFIX=    install the program, its specs, manual and completions"

# Installs what is missing, by name; without apt, says what is missing and stops.
define need
	@sh packaging/need.sh $(1)
endef

packages-image:
	$(call need,$(BUILD_PACKAGES) $(IMAGE_PACKAGES))

packages-check:
	$(call need,$(BUILD_PACKAGES) $(IMAGE_PACKAGES) $(HOST_PACKAGES) $(CHECK_PACKAGES))

packages-test:
	$(call need,$(BUILD_PACKAGES) $(IMAGE_PACKAGES) $(HOST_PACKAGES) $(TEST_PACKAGES))
	sh packaging/servers.sh $(TARGET)/servers

packages-boot: packages-test
	$(call need,$(BOOT_PACKAGES))

packages-catalyst:
	$(call need,$(BUILD_PACKAGES) $(IMAGE_PACKAGES) $(HOST_PACKAGES) $(CATALYST_PACKAGES))

packages-bench:
	$(call need,$(BUILD_PACKAGES) $(IMAGE_PACKAGES) $(HOST_PACKAGES) $(BENCH_PACKAGES))
	sh packaging/servers.sh $(TARGET)/servers

program:
	cargo build --release --locked

image: packages-image
	$(MAKE) program
	$(MAKE) published

.PHONY: published
published:
	$(PROGRAM) build $(SPEC) --out $(OUT)
	@sh packaging/try.sh $(OUT)/$(SPEC) $(PROGRAM)

# A guest is emulated by one core, so that two boot at a time.
BOOT = STAGEGRAPH_NO_SKIP=root STAGEGRAPH_BOOT_DIR=$(abspath $(OUT))/$(SPEC) \
	cargo nextest run --locked --workspace --test-threads 2 --no-fail-fast -E
EMULATES := $(shell sh packaging/emulates.sh)
ALL_BOOTS = 'binary(boot) $(if $(EMULATES),,- test(/arm64|one_folder|riscv|ppc64le/))'
SOME_BOOTS = 'binary(boot) & (test(the_iso_boots_by_bios_from_cd) | test(the_iso_boots_by_uefi_from_cd) \
	| test(ipxe_boots_the_set_by_bios) | test(/^room::(a_bios_machine_finds|a_uefi|pxelinux|.*256_mib)/) \
	| test(=the_iso_boots_with_secure_boot) $(if $(EMULATES),| test(one_folder_boots_arm64_over_http) | test(an_arm64_machine_in_a_room)))'
# What is booted beside $(SPEC), and what every way to boot needs.
TESTED_SPECS := amd64-secureboot $(if $(EMULATES),arm64-minimal multi)
BOOTED_SPECS := $(TESTED_SPECS) x86-minimal $(if $(EMULATES),riscv-minimal ppc64le-minimal)

# The program that the tests were made with builds the image as well: compiling another one takes longer than all boots.
TESTED := $(TARGET)/debug/stagegraph

test: test-fast
	$(MAKE) published PROGRAM=$(TESTED)
	sh packaging/changed.sh $(abspath $(TESTED)) $(SPEC) $(abspath $(OUT))
	sh packaging/twice.sh $(abspath $(TESTED)) $(SPEC) $(abspath $(OUT))
	$(TESTED) build $(TESTED_SPECS) --out $(OUT)
	$(BOOT) $(SOME_BOOTS)

test-boot: packages-boot
	$(MAKE) image
	$(PROGRAM) build $(BOOTED_SPECS) --out $(OUT)
	$(BOOT) $(ALL_BOOTS)

# Style, units, the plan of the code; that fuzz targets, the oldest promised compiler and another architecture compile it.
check: packages-check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo nextest run --locked --workspace -E 'kind(lib) | test(/^floors::/)'
	cargo check --locked --manifest-path fuzz/Cargo.toml --target-dir $(TARGET)/fuzz
	sh packaging/msrv.sh
	rustup target add aarch64-unknown-linux-gnu
	cargo check --locked --workspace --target aarch64-unknown-linux-gnu

# All but the boots, once as root and once as somebody else; what either cannot run, the other one does. To upstreams it does not matter
# who builds, and somebody else runs one of their tests; nor to a power failure, nor to what only reads or runs no tool: none.
FAST = cargo nextest run --locked --workspace -E
ALL = 'not binary(boot) | test(/^vm::/)'
AS_USER = '(not binary(boot) - test(/^(remote|power|audit|http|layouts|squashfs|signatures|statements|code|floors|secure)::/) - test(/^arches::(images|what)/)) | test(/^remote::a_second_builder/) | test(/^vm::/)'

test-fast: packages-test
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	STAGEGRAPH_NO_SKIP=root $(FAST) $(ALL)
	STAGEGRAPH_NO_SKIP=user sh packaging/as-user.sh $(FAST) $(AS_USER)
	cargo test --locked --workspace --doc
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
	command -v cargo-deny >/dev/null || cargo install --locked --debug cargo-deny
	cargo deny check bans licenses sources

RELEASE ?= trixie

# What another release of Debian makes of the spec: in a root of its own, with nothing but what `make image` installs.
test-release: packages-test
	$(MAKE) program
	sh packaging/release.sh $(RELEASE) $(abspath $(PROGRAM)) $(SPEC) $(abspath $(OUT))/$(RELEASE)
	STAGEGRAPH_NO_SKIP=root STAGEGRAPH_BOOT_DIR=$(abspath $(OUT))/$(RELEASE)/$(SPEC) \
		cargo nextest run --locked --workspace --test-threads 2 --no-fail-fast -E $(SOME_BOOTS)

RELEASES ?= bookworm trixie

test-lock: packages-test
	$(MAKE) program
	sh packaging/lock.sh $(abspath $(PROGRAM)) $(SPEC) $(RELEASES)

WORK ?= /var/tmp/stagegraph-test-catalyst

test-catalyst:
	@test -f "$(CATALYST)/catalyst/main.py" || { echo "CATALYST=DIR: there is no catalyst/main.py in '$(CATALYST)'; give a \
	checkout of https://gitweb.gentoo.org/proj/catalyst.git, 4.0.1 or later" >&2; exit 2; }
	$(MAKE) packages-catalyst
	$(MAKE) image
	python3 tests/catalyst/run.py --catalyst "$(CATALYST)" --stagegraph $(PROGRAM) --image $(OUT)/$(SPEC) --work $(WORK)
	STAGEGRAPH_CATALYST_DIR=$(WORK)/stores/bootable/builds/test \
		cargo nextest run --locked --test boot --test-threads 1 --no-fail-fast --run-ignored only

bench: packages-bench
	$(MAKE) program
	sh benches/run.sh $(abspath $(PROGRAM))

install: program
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/stagegraph
	for spec in specs/*.toml; do \
		install -D -m 644 "$$spec" "$(DESTDIR)$(PREFIX)/share/stagegraph/$$spec" || exit 1; done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/bin/|$(PREFIX)/bin/|' packaging/systemd/stagegraph-serve.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/stagegraph-serve.service
	install -m 644 packaging/systemd/stagegraph-serve.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/stagegraph-serve.socket
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(PROGRAM) man $(DESTDIR)$(PREFIX)/share/man/man1
	$(PROGRAM) completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/stagegraph
