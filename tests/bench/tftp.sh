# shellcheck shell=sh
# Loaders by TFTP, beside atftpd, tftpd-hpa and dnsmasq. Read by run.sh. All of them have the same files, ours in its
# image store; one client for all, tftp_load, asks in turn.

# So many that none of them asks for more than eight files at once: what more it asked for before its first ACK would
# not be answered (docs/hostile.md).
tftp_addresses=125
last_octet=$((tftp_addresses + 99))
for last in $(seq 100 $last_octet) 66; do ip addr add "10.77.0.$last/24" dev kb0; done
for size in 64 4 1; do boots "of$size" $size; done
chmod 755 "$dir" files
chmod 644 files/*
serve_files() {
	serve <<'SITE'
[roles.of64]
image = "of64"
[roles.of4]
image = "of4"
[roles.of1]
image = "of1"
SITE
}
serve_files
for name in 64 4 1; do
	hex=$(sha256sum files/$name | cut -d ' ' -f 1)
	eval "blob_$name=blob/sha256/$hex"
done

atftpd --daemon --no-fork --no-multicast --user root.root --maxthread 4096 --port 1069 --bind-address 10.77.0.1 "$dir/files" >/dev/null 2>&1 &
atftpd=$!
"$KOBOSHI_ROOT/target/bench/peers/usr/sbin/in.tftpd" --listen --foreground --user root --address 10.77.0.1:2069 --secure "$dir/files" >/dev/null 2>&1 &
hpa=$!
hpa_group=$(group "$hpa")
dnsmasq --conf-file=/dev/null --keep-in-foreground --port=0 --user=root --pid-file= --enable-tftp --tftp-root="$dir/files" \
	--tftp-max=4096 --tftp-no-fail --listen-address=10.77.0.66 --bind-interfaces >/dev/null 2>&1 &
dnsmasq=$!
sleep 1

# spent SERVER PID: processor time so far, in hundredths of a second. tftpd-hpa leaves all to children that nobody waits
# for.
spent() {
	if [ "$1" = hpa ]; then
		awk '$1 == "usage_usec" { print int($2 / 10000) }' "${hpa_group:-/nowhere}/cpu.stat" 2>/dev/null || echo 0
	else
		cpu "$2"
	fi
}

# load NAME SERVER FILE OPTION…: bytes a second, CPU nanoseconds of the server a byte, added to NAME's results.
load() {
	name=$1 server=$2 file=$3
	shift 3
	asks=$file
	case $server in
	koboshi) pid=$served at=10.77.0.1:69 && eval "asks=\$blob_$file" ;;
	atftpd) pid=$atftpd at=10.77.0.1:1069 ;;
	hpa) pid=$hpa at=10.77.0.1:2069 ;;
	dnsmasq) pid=$dnsmasq at=10.77.0.66:69 ;;
	esac
	before=$(spent "$server" "$pid")
	tftp_load "$at" "$asks" "files/$file" from=10.77.0.100 addresses=$tftp_addresses "$@" >out.txt 2>err.txt ||
		{ [ "$server" != koboshi ] && [ -s out.txt ]; } || { echo "$server:"; cat out.txt err.txt; exit 1; }
	after=$(spent "$server" "$pid")
	awk -v c=$((after - before)) '{ print $1 / $3, c * 1e7 / $1, $5 }' out.txt >>"$name.$server.results"
}

echo "| TFTP | koboshi | theirs | best of them | rate, to the best | CPU a byte, to the best | wanted | |"
echo "|---|---|---|---|---|---|---|---|"

# against LEAST MOST TITLE NAME PEER…: beside the best of these peers, and all of them named.
against() {
	least=$1 most=$2 title=$3 name=$4
	shift 4
	wanted=">= $least"
	[ "$most" = - ] || wanted="$wanted, <= $most"
	best=$(for peer in "$@"; do echo "$(median "$name.$peer" 1) $peer"; done | sort -rg | head -n 1 | cut -d ' ' -f 2)
	others=$(for peer in "$@"; do
		printf '%s %.0f MB/s, %.2f s/GB; ' "$peer" "$(median "$name.$peer" 1 | awk '{ print $1 / 1e6 }')" "$(median "$name.$peer" 2)"
	done)
	rate=$(ratio "$name.koboshi" "$name.$best" 1)
	spends=$(ratio "$name.koboshi" "$name.$best" 2)
	printf '| %s | %.0f MB/s, %.2f s/GB | %s | %s | %s | %s | %s | %s |\n' "$title" "$(median "$name.koboshi" 1 | awk '{ print $1 / 1e6 }')" \
		"$(median "$name.koboshi" 2)" "${others%; }" "$best" "$rate" "${spends:--}" "$wanted" \
		"$(verdict "$rate" "${spends:-0}" "$least" "$most")"
}

for window in 16 64; do
	for _ in $(seq "$rounds"); do
		for server in koboshi atftpd; do
			load window$window $server 64 transfers=12 tsize=0 blksize=1468 windowsize=$window
		done
	done
	against 2 0.5 "one client, blksize 1468, windowsize $window" window$window atftpd
done
for _ in $(seq "$rounds"); do
	for server in koboshi atftpd hpa dnsmasq; do
		load one $server 64 transfers=1 blksize=1468
		load many $server 4 clients=256 blksize=1468
		load edk2 $server 1 transfers=200 probe=1 tsize=0 blksize=1468 windowsize=4
		load ipxe $server 1 transfers=100 blksize=1432 tsize=0
	done
done
against 1 - 'one client, blksize 1468, no window' one atftpd hpa dnsmasq
against 1 - '256 clients, blksize 1468, no window' many atftpd hpa dnsmasq
against 1 - 'what EDK2 asks: the size, then windowsize 4' edk2 atftpd hpa dnsmasq
against 1 - 'what iPXE asks: blksize 1432, tsize' ipxe atftpd hpa dnsmasq

# A thousand at once, on a server that has served one; its memory while they are all under way.
ends
serve_files
load first koboshi 4 blksize=1468 windowsize=16
sleep 2
idle=$(rss VmRSS "$served")
load thousand koboshi 4 clients=1000 blksize=1468 windowsize=16 &
loading=$!
sleep 1.5
busy=$(rss VmRSS "$served")
wait "$loading"
awk -v a="$busy" -v b="$idle" '{ printf "| 1,000 transfers at once: failed; memory of each | %d; %.1f KiB | | | | | 0; <= 64 KiB | %s |\n",
	$3, (a - b) / 1000, ($3 > 0 || a - b > 64000 ? "missed" : "") }' thousand.koboshi.results
ends
kill "$atftpd" "$hpa" "$dnsmasq"
wait || true
[ -z "$hpa_group" ] || rmdir "$hpa_group"
rm -rf state files
