# shellcheck shell=sh
# Leases, beside Kea with its file of leases. Read by run.sh. perfdhcp is a relay agent in a network namespace of its own:
# behind one, neither server asks the link whether an address is free.

unshare --net sleep 3600 &
agent=$!
sleep 0.1
ip link add kbv1 type veth peer name eth0 netns "$agent"
ip link set kbv1 master kb0 up
nsenter -t "$agent" -n ip addr add 10.78.0.2/15 dev eth0
nsenter -t "$agent" -n ip link set eth0 up
nsenter -t "$agent" -n ip route add 10.77.0.0/24 dev eth0
ip route add 10.78.0.0/15 dev kb0 src 10.77.0.1
# All clients are strangers to the site, who share a part of a pool: it is a large one. Kea writes its file and leaves the
# rest to the kernel; ours writes its journal and brings it to the disk in groups. In memory nobody waits for a disk, and what
# is left is the servers themselves.
memory=$(mktemp -d /dev/shm/koboshi-bench.XXXXXX)
trap 'ended=$?; [ "$ended" = 0 ] || { echo "dhcp: ended by $ended at ${name-the start}, $server"; cat serve.txt kea.txt; } 2>/dev/null; rm -rf "$dir" "$memory"' EXIT
server=none
koboshi_begins() {
	rm -rf state "$place"/leases
	mkdir -p "$place/leases"
	ln -s "$place/leases" state
	serve <<'SITE'
unknown = "discover"
[[net.subnet]]
relay = "10.78.0.2"
cidr = "10.78.0.0/15"
gateway = "10.78.0.2"
pool = "10.78.0.10-10.79.255.250"
[roles.rescue]
image = "rescue"
SITE
}
kea_begins() {
	rm -rf "$place/leases"
	mkdir -p "$place/leases"
	cat >kea.json <<KEA
{ "Dhcp4": {
	"interfaces-config": { "interfaces": [ "kb0/10.77.0.1" ], "dhcp-socket-type": "udp" },
	"lease-database": { "type": "memfile", "persist": true, "name": "$place/leases/leases.csv", "lfc-interval": 0 },
	"valid-lifetime": 3600,
	"subnet4": [ { "id": 1, "subnet": "10.78.0.0/15", "relay": { "ip-addresses": [ "10.78.0.2" ] },
		"pools": [ { "pool": "10.78.0.10 - 10.79.255.250" } ],
		"option-data": [ { "name": "routers", "data": "10.78.0.2" } ] } ],
	"loggers": [ { "name": "kea-dhcp4", "severity": "ERROR", "output_options": [ { "output": "stderr" } ] } ]
} }
KEA
	KEA_PIDFILE_DIR=$dir KEA_LOCKFILE_DIR=$dir kea-dhcp4 -c kea.json >kea.txt 2>&1 &
	served=$!
	sleep 1
	kill -0 "$served" || { cat kea.txt; exit 1; }
}

# load NAME RATE: exchanges a second that were begun, lost, and what the halves took in milliseconds.
load() {
	before=$(cpu "$served")
	nsenter -t "$agent" -n perfdhcp -4 -l eth0 -r "$2" -R 40000 -p 5 -W 1000000 10.77.0.1 >out.txt 2>err.txt || true
	after=$(cpu "$served")
	awk -v rate="$2" -v c=$((after - before)) '
		/^sent packets:/ { sent[++half] = $3 }
		/^drops:/ { lost += $2 }
		/^avg delay:/ { delay += $3 }
		END { if (half < 2 || sent[1] == 0) exit 1; print rate, lost, delay, c * 1e4 / sent[1], sent[1] / 5 }' out.txt >>"$1.results" || { cat out.txt err.txt serve.txt; exit 1; }
}

echo "| DHCP, exchanges a second, leases on | koboshi: lost, mean delay, CPU | Kea: lost, mean delay, CPU | delay, to Kea | wanted |"
echo "|---|---|---|---|---|"
for place in "$dir/disk" "$memory"; do
	for rate in 1000 2000 3000 4000 6000 8000; do
		name=${place##*/}-$rate
		for _ in $(seq "$rounds"); do
			for server in kea koboshi; do
				"${server}_begins"
				load "$server-$name" "$rate"
				ends
			done
		done
		cell() { printf '%.0f, %.2f ms, %.0f us' "$(median "$1-$name" 2)" "$(median "$1-$name" 3)" "$(median "$1-$name" 4)"; }
		on=disk
		[ "$place" = "$memory" ] && on=memory
		printf '| %s, %s | %s | %s | %s | lost: no more, <= 1 |\n' "$rate" $on "$(cell koboshi)" "$(cell kea)" "$(ratio "koboshi-$name" "kea-$name" 3)"
	done
done
kill "$agent"
wait || true
rm -rf state disk
