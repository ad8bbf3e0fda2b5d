# Two commands do it all on a fresh Debian 12 with cargo:
#   make demo   builds koboshi, raises a rack of three virtual machines, boots them into roles
#   make test   everything CI runs
.PHONY: bench demo fuzz soak test setup runner check clippy covered covered-clippy rack-images images clean

# QEMU and firmware for the rack, peers that judge our protocols, tools that build images.
PACKAGES := qemu-system-x86 ipxe-qemu seabios ovmf ipxe
# Loaders beside iPXE: files to serve, for the machines whose site names them.
PACKAGES += pxelinux syslinux-common syslinux-efi grub-efi-amd64-signed shim-signed grub-pc-bin grub-common
PACKAGES += busybox-static mmdebstrap kmod zstd cpio xz-utils
# libFuzzer is C++.
PACKAGES += g++
PACKAGES += curl iproute2 util-linux uidmap nftables procps
PACKAGES += udhcpc atftp tftp-hpa kea-admin iputils-arping
# A relay agent, and another DHCP server for proxy mode to stand beside.
PACKAGES += isc-dhcp-relay dnsmasq-base
# Images of layers: the tool that carries them between stores and registries, and another that unpacks them.
PACKAGES += skopeo umoci
# Roots: what makes a squashfs, and an NFS server that needs nothing of the kernel.
PACKAGES += squashfs-tools nfs-ganesha nfs-ganesha-vfs
# IPMI: the reference BMC, and the two clients that judge ours.
PACKAGES += openipmi ipmitool freeipmi-tools
# A terminal server with RFC 2217.
PACKAGES += ser2net
# What is on the wire, and whether a stranger finds our answers sound.
PACKAGES += tcpdump
# What the kernel is really asked to do: that a BREAK reaches a serial port's driver.
PACKAGES += strace
# The clock of the host, set under a running appliance.
PACKAGES += faketime
# Consoles by SSH: the client people have, and a judge of algorithms.
PACKAGES += openssh-client ssh-audit
# Files over a line: rz, rb, rx and their senders.
PACKAGES += lrzsz
# What tests memory: machines are given it by `koboshi maintain M memtest`.
PACKAGES += memtest86+
# File systems and partitions as machines' disks get them: what reads them back is ours.
PACKAGES += e2fsprogs xfsprogs gdisk
# Registries: one to push to and pull from, and another client that judges what is in it.
PACKAGES += docker-registry skopeo

RACK := target/rack
CARGO ?= cargo

setup:
	@sh tests/setup.sh $(PACKAGES)

# The test runner, where cargo does not have it: a minute of its own, which the demo does not need.
runner:
	@command -v cargo-nextest >/dev/null || $(CARGO) install --locked cargo-nextest --version 0.9.143

# fmt and clippy with warnings as errors, then every test. Clippy works while the images wait for their packages.
test: setup runner
	$(CARGO) fmt --all --check
	$(CARGO) build --workspace --exclude koboshi-fuzz --all-targets
	@$(MAKE) --no-print-directory -j 2 covered-clippy images
	$(CARGO) nextest run --workspace --exclude koboshi-fuzz --no-fail-fast

check: clippy
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	# What runs at a user's, without its tests: whatever a stranger sends, nothing is taken for granted.
	$(CARGO) clippy --workspace --exclude koboshi-fuzz -- -D warnings -D clippy::unwrap_used -D clippy::todo -D clippy::unimplemented

# Parsers that strangers reach, compiled so that a fuzzer sees where an input leads; the tests run each for a minute.
STRANGERS := dhcp tftp http http_range cpio tar oci site report menu escape
covered:
	RUSTC_WORKSPACE_WRAPPER=$(CURDIR)/tests/fuzz/covered.sh $(CARGO) build --workspace $(STRANGERS:%=--bin %)

# One cargo after the other: each waits for the folder of builds.
covered-clippy: covered
	@$(MAKE) --no-print-directory clippy

# The images the rack boots, made once and kept.
rack-images: setup
	$(CARGO) build --workspace --exclude koboshi-fuzz --all-targets
	@$(MAKE) --no-print-directory images

IMAGE := target/debug/koboshi image build --state $(RACK)/state --cache $(RACK)/cache --publish

images:
	$(IMAGE) rescue --kernel cloud
	$(IMAGE) rescue --kernel metal --name metal
	$(IMAGE) wipe --kernel cloud
	$(IMAGE) setup --kernel cloud
	$(IMAGE) web --kernel cloud

# The long run, before a release: real machines that take their time, storms, faults, noisy consoles for SECONDS, and
# every parser fuzzed for FUZZ seconds, two at a time.
soak: setup runner rack-images
	SECONDS=$(or $(SECONDS),180) FUZZ=$(or $(FUZZ),3600) CARGO=$(CARGO) tests/soak/run.sh

# Strangers' bytes by the million, one parser after another: make fuzz SECONDS=600
fuzz: setup
	tests/fuzz/run.sh $(or $(SECONDS),60)

# How fast, beside what others have, in the same run: make bench ROUNDS=5
bench: setup rack-images
	@sh tests/setup.sh time jq conserver-server initramfs-tools atftpd libwrap0 nginx-light wrk kea-dhcp4-server
	# As packages, tftpd-hpa and atftpd are either or.
	@[ -x target/bench/peers/usr/sbin/in.tftpd ] || { mkdir -p target/bench/peers && cd target/bench/peers && \
		apt-get -q download tftpd-hpa && dpkg -x tftpd-hpa_*.deb .; }
	# Installed, it would be in every initramfs that mkinitramfs makes.
	@[ -e target/bench/peers/bin/live-boot ] || { mkdir -p target/bench/peers && cd target/bench/peers && \
		apt-get -q download live-boot live-boot-initramfs-tools && for deb in live-boot*.deb; do dpkg -x $$deb .; done; }
	$(CARGO) build --release -p koboshi -p koboshi-bmcsim -p koboshi-console -p koboshi-initramfs -p koboshi-pxe --bins --examples
	# As PID 1 is built: static, and for size.
	RUSTFLAGS=-Ctarget-feature=+crt-static $(CARGO) build --profile init -p koboshi-init --example fetch_root \
		--target x86_64-unknown-linux-gnu --target-dir target/bench
	tests/bench/run.sh $(or $(ROUNDS),5)

demo: setup
	$(CARGO) build --release
	target/release/koboshi lab demo $(DEMO)

clean:
	$(CARGO) clean
