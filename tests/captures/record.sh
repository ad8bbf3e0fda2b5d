#!/bin/sh
# Real firmware in the virtual rack, and what it says on the wire, into NAME.pcap beside this file:
#   tests/captures/record.sh [machine…]        all of site.toml, one after the other; root
# DHCP whole; TFTP's requests, OACKs, ERRORs, first DATA and first ACKs; the heads of HTTP requests. What koboshi
# said is in them as well, for who reads; the test (pxe/tests/captures.rs) feeds only what machines said.
# Needs tcpdump, jq, and the images of `make rack-images`.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
koboshi=${KOBOSHI:-$root/target/debug/koboshi}
[ $# -gt 0 ] || set -- ipxe-rom undionly edk2-pxe edk2-http snponly grub shim pxelinux syslinux-efi udhcpc
# Beside the images: their blobs are linked.
dir=$(mktemp -d "$root/target/captures.XXXXXX")
lab=
trap '[ -z "$lab" ] || { kill -INT "$lab"; wait "$lab" || true; }; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
mkdir "$dir/state"
cp -al "$root/target/rack/state/images" "$dir/state/images"
"$koboshi" lab up --site "$here/site.toml" --dir "$dir/rack" --serve "$dir/state" --off --memory 1024 \
	--uefi edk2-pxe,snponly,grub,syslinux-efi --uefi-http edk2-http --uefi-secure shim >"$dir/lab.log" 2>&1 &
lab=$!
export KOBOSHI_LAB="$dir/rack"
for _ in $(seq 300); do
	"$koboshi" status --state "$dir/state" >"$dir/said" 2>&1 && break
	kill -0 "$lab" 2>/dev/null || { cat "$dir/lab.log"; exit 1; }
	sleep 0.2
done

tftp='(udp[8:2] = 5 or udp[8:2] = 6 or (udp[8:2] = 4 and udp[10:2] < 6) or (udp[8:2] = 3 and udp[10:2] = 1))'
head='tcp[((tcp[12:1] & 0xf0) >> 2):4]'
heads="(tcp dst port 8080 and ($head = 0x47455420 or $head = 0x48454144))"
for machine in "$@"; do
	mac=$(sed -n "s/^$machine = { mac = \[\"\([0-9a-f:]*\)\".*/\1/p" "$here/site.toml")
	wanted="udp port 67 or udp port 4011 or udp dst port 69 or (udp and not port 514 and $tftp) or $heads"
	: >"$dir/tcpdump.log"
	"$koboshi" lab exec -- tcpdump -Z root -i kb0 -U -s 720 -w "$dir/$machine.pcap" "$wanted" 2>"$dir/tcpdump.log" &
	tcpdump=$!
	until grep -q listening "$dir/tcpdump.log"; do sleep 0.1; done
	if [ "$machine" = udhcpc ]; then
		"$koboshi" lab exec -- sh -ec "ip link add kp99 type veth peer name cap0; ip link set kp99 up master kb0
			ip link set cap0 address $mac up; udhcpc -i cap0 -n -q -f -s /bin/true; ip link del kp99" >"$dir/udhcpc.log" 2>&1
	else
		"$koboshi" lab on "$machine" >"$dir/said"
		for second in $(seq 300); do
			stage=$("$koboshi" status --state "$dir/state" --json | jq -r ".[] | select(.machine == \"$machine\") | .stage")
			case $stage in kernel | initramfs | init | root* | up) break ;; esac
			[ "$second" -lt 300 ] || { echo "$machine fetched no kernel: $stage"; tail -n 40 "$dir/rack/$machine.console"; exit 1; }
			sleep 1
		done
		"$koboshi" lab off "$machine" >"$dir/said"
	fi
	sleep 1
	kill "$tcpdump" # `lab exec` has become it
	wait "$tcpdump" || true
	cp "$dir/$machine.pcap" "$here/$machine.pcap"
	echo "$machine: $(tcpdump -r "$here/$machine.pcap" 2>/dev/null | wc -l) packets, $(stat -c %s "$here/$machine.pcap") bytes"
done
