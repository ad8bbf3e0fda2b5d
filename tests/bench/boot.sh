# shellcheck shell=sh
# From power-on until the page of `web` is served: one virtual machine (TCG, BIOS, iPXE in its NIC's ROM), one kernel
# and one root; by koboshi, and by dnsmasq, nginx and Debian's own live root (live-boot, of initramfs-tools), which
# fetches a squashfs over HTTP too. Read by run.sh.
#
# The peer is set up as well as it can be: iPXE gets its script by HTTP, and is told that no ProxyDHCP comes (which
# saves it two seconds); its initramfs is packed with zstd, once with all drivers as Debian's live images have it, and
# once with those alone that this machine needs; its root is one squashfs, made as koboshi makes the layers of one.

peers=$KOBOSHI_ROOT/target/bench/peers
[ -e "$peers/bin/live-boot" ] || { echo "no live-boot in $peers: make bench fetches it"; exit 1; }
mac=52:54:00:77:00:01 ip=10.77.0.11
# A port that learns for 15 s swallows the ROM's DISCOVERs; and what is not there yet need not be looked for.
ip link set kb0 type bridge forward_delay 0
ip tuntap add kt0 mode tap
ip link set kt0 up master kb0
ip neigh replace $ip lladdr $mac dev kb0 nud permanent

# Nor is there IPv6, says a router (its lifetime is zero): iPXE waits 16 s for one that says so, whoever serves it.
ip link set kb0 type bridge mcast_snooping 0
for key in disable_ipv6 accept_dad; do echo 0 >/proc/sys/net/ipv6/conf/kb0/$key; done
perl -MSocket=:all -e 'socket(S, AF_INET6, SOCK_RAW, 58) or die $!;
	setsockopt(S, 41, 17, pack("i", shift)) && setsockopt(S, 41, 18, pack("i", 255)) or die $!;
	while (1) { send(S, pack("C16", 134, 0, 0, 0, 64, (0) x 11), 0, pack_sockaddr_in6(0, inet_pton(AF_INET6, "ff02::1"))); select(undef, undef, undef, 0.2) }
' "$(ip -o link show kb0 | cut -d : -f 1)" 2>router.txt &
router=$!

# stamp: lines, and when each came, in seconds since $began.
stamp() {
	perl -MTime::HiRes=time -pe 'BEGIN { $| = 1 } printf "%.3f ", time - $ENV{began} / 1e9'
}

# power_on NAME: switches the machine on until its page is served; wall, processor and memory of QEMU, and into
# NAME.phases when it reached what.
power_on() {
	began=$(date +%s%N)
	export began
	rm -f line page
	mkfifo line
	stamp <line >"$1.console" &
	stamped=$!
	qemu-system-x86_64 -accel tcg,thread=multi -cpu max -machine q35,graphics=off -m 2048 -smp 1 -display none -vga none \
		-nodefaults -no-user-config -chardev file,id=line,path=line -serial chardev:line -boot strict=on \
		-netdev tap,id=wire,ifname=kt0,script=no,downscript=no -device "virtio-net-pci,netdev=wire,mac=$mac,bootindex=1" \
		>qemu.txt 2>&1 </dev/null &
	machine=$!
	tries=0
	until curl -s -f --connect-timeout 1 -m 2 -o page "http://$ip/"; do
		tries=$((tries + 1))
		[ $tries -lt 3000 ] && kill -0 $machine 2>/dev/null || { tail -n 50 "$1.console" qemu.txt; kill $machine; exit 1; }
		sleep 0.05
	done
	ended=$(date +%s%N)
	grep -q 'in the role' page || { cat page; exit 1; }
	awk -v ns=$((ended - began)) -v cpu="$(cpu $machine)" -v kib="$(rss VmHWM $machine)" \
		'BEGIN { print ns / 1e9, cpu / 100, kib / 1024 }' >>"$1.results"
	kill $machine
	wait $machine 2>/dev/null || true
	wait $stamped
	at() { awk -v p="$2" '$0 ~ p { print $1; exit }' "$1.console"; }
	echo "$(at "$1" 'iPXE initialising') $(at "$1" 'Linux version') $(at "$1" 'Run /init as init') $(at "$1" 'systemd\[1\]: systemd .* running') $(tail -n 1 "$1.results" | cut -d ' ' -f 1)" >>"$1.phases"
}

# phases WHAT NAME: how long each of them took.
phases() {
	awk -v w="$1" '{
		for (c = 1; c <= 5; c++) v[c, NR] = $c - (c > 1 ? $(c - 1) : 0)
	} END {
		printf "| %s", w
		for (c = 1; c <= 5; c++) {
			for (i = 1; i <= NR; i++) for (j = i + 1; j <= NR; j++) if (v[c, j] < v[c, i]) { t = v[c, i]; v[c, i] = v[c, j]; v[c, j] = t }
			printf " | %.2f s", v[c, int((NR + 1) / 2)]
		}
		print " |"
	}' "$2.phases"
}

# Ours.
mkdir -p state
cp -al "$KOBOSHI_ROOT/target/rack/state/images" state/images
koboshi image squash web --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
koboshi image show web --state state --json >show.json
# ours NAME ROOT
ours() {
	serve <<-SITE
		[roles.web]
		image = "web"
		root = "$2"
		[machines]
		m01 = { mac = ["$mac"] }
		[seats]
		web1 = { role = "web", ip = "$ip" }
		[matrix]
		m01 = "web1"
	SITE
	power_on "$1"
	ends
}

# Theirs: the same layers, put together; the kernel that the image has.
blob() {
	echo "state/images/blobs/sha256/$(jq -r "$1 | .[7:]" show.json)"
}
mkdir -p www root at live
ln "$(blob .boot.kernel.digest)" www/vmlinuz
lower=
for layer in $(jq -r '.boot.layers[].squashfs.digest[7:]' show.json); do
	mkdir "at/$layer"
	mount -o loop,ro -t squashfs "state/images/blobs/sha256/$layer" "at/$layer"
	lower=at/$layer${lower:+:$lower}
done
# sshd wants host keys, and fails three times without: koboshi-init has them made at each boot.
mount -t tmpfs tmpfs live
mkdir live/upper live/work
mount -t overlay -o "lowerdir=$lower,upperdir=live/upper,workdir=live/work" overlay root
ssh-keygen -A -f root >out.txt
mksquashfs root www/live.squashfs -comp zstd -noappend -no-progress -quiet >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
release=$(jq -r .boot.kernel_release show.json)
kernel=$(find "$KOBOSHI_ROOT/target/rack/cache/packages" -mindepth 1 -maxdepth 1 -name "linux-image-${release}_*" | head -n 1)
[ -n "$kernel" ] || { echo "the packages of $release are gone: make rack-images fetches them"; exit 1; }
# Only here are live-boot and the kernel where mkinitramfs looks for them.
mount -t overlay -o "lowerdir=$peers/bin:/usr/bin" overlay /usr/bin
mount -t overlay -o "lowerdir=$peers/lib:$kernel/usr/lib:/usr/lib" overlay /usr/lib
mount -t overlay -o "lowerdir=$kernel/boot:/boot" overlay /boot
mount -t overlay -o "lowerdir=$peers/usr/share/initramfs-tools:/usr/share/initramfs-tools" overlay /usr/share/initramfs-tools
for kind in most list; do
	cp -r /etc/initramfs-tools "mkinitramfs-$kind"
	sed -i -e 's/^COMPRESS=.*/COMPRESS=zstd/' -e "s/^MODULES=.*/MODULES=$kind/" "mkinitramfs-$kind/initramfs.conf"
	[ $kind = most ] || printf '%s\n' virtio_pci virtio_net overlay squashfs loop >>"mkinitramfs-$kind/modules"
	mkinitramfs -d "$dir/mkinitramfs-$kind" -o "www/$kind.img" "$release" >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
done
umount -l /usr/bin /usr/lib /boot /usr/share/initramfs-tools
umount root live at/*
cat >nginx.conf <<NGINX
daemon off;
user root;
pid $dir/nginx.pid;
error_log $dir/nginx.log;
events {}
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	server { listen 10.77.0.1:80; root $dir/www; }
}
NGINX
cat >dnsmasq.conf <<DNSMASQ
port=0
interface=kb0
bind-interfaces
no-resolv
no-hosts
no-ping
dhcp-authoritative
dhcp-leasefile=$dir/leases
dhcp-range=10.77.0.0,static
dhcp-host=$mac,$ip,web1,infinite
dhcp-boot=http://10.77.0.1/boot.ipxe
dhcp-option=encap:175,176,1b
DNSMASQ
# theirs NAME ROOT
theirs() {
	cat >www/boot.ipxe <<-IPXE
		#!ipxe
		kernel http://10.77.0.1/vmlinuz initrd=initrd.img console=ttyS0,115200 boot=live fetch=http://10.77.0.1/live.squashfs koboshi.seat=web1 koboshi.role=web
		initrd --name initrd.img http://10.77.0.1/$2.img
		boot
	IPXE
	nginx -p "$dir" -c nginx.conf 2>>nginx.log &
	nginx=$!
	dnsmasq -k -C dnsmasq.conf 2>dnsmasq.txt &
	dnsmasq=$!
	power_on "$1"
	kill $nginx $dnsmasq
	wait $nginx $dnsmasq || true
}

# A boot is half a minute.
for _ in $(seq $((rounds < 3 ? rounds : 3))); do
	ours ours-ram ram
	ours ours-overlay overlay
	theirs theirs-most most
	theirs theirs-list list
done
echo "| power-on to the page of web (wall, QEMU's processor and memory) | koboshi | live-boot | ratio of wall | wanted |"
echo "|---|---|---|---|---|"
row 'root = "ram"; live-boot with all drivers' ours-ram theirs-most '<= 1'
row 'root = "ram"; with those it needs' ours-ram theirs-list '<= 1'
row 'root = "overlay"; with all drivers' ours-overlay theirs-most '<= 1'
row 'root = "overlay"; with those it needs' ours-overlay theirs-list '<= 1'
echo
echo "| of that | firmware | iPXE, and all it fetches | kernel | initramfs, and the root | system |"
echo "|---|---|---|---|---|---|"
phases 'koboshi, `ram`' ours-ram
phases 'koboshi, `overlay`' ours-overlay
phases 'live-boot, all drivers' theirs-most
phases 'live-boot, those it needs' theirs-list
kill $router
rm -rf state www root at live
