#!/bin/sh
# Ours and theirs in the same run, in turn, on loopback; medians of the rounds and how they compare:
#   tests/bench/run.sh [rounds] [part…]        all of them: ipmi, console, images, boot, tftp, http, dhcp, site, storm, hostile
# The other side (BMCs, machines that talk) is a process of its own. Everything is in a network namespace, with
# every address of 127.0.0.0/8 and every port to itself; it goes with this script, however that ends.
set -eu

if [ "${KOBOSHI_BENCH-}" != inside ]; then
	root=$(cd "$(dirname "$0")/../.." && pwd)
	export KOBOSHI_BENCH=inside KOBOSHI_ROOT="$root"
	[ "$(id -u)" = 0 ] && map= || map='--user --map-root-user'
	# shellcheck disable=SC2086 # words
	exec unshare $map --net --pid --fork --kill-child --mount-proc sh "$0" "$@"
fi

rounds=${1:-5}
case $rounds in '' | *[!0-9]* | 0) echo "usage: run.sh [rounds] [part…]" >&2; exit 2 ;; esac
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- ipmi console images boot tftp http dhcp site storm hostile
bin=$KOBOSHI_ROOT/target/release
PATH=$bin:$bin/examples:$KOBOSHI_ROOT/target/bench/x86_64-unknown-linux-gnu/init/examples:$PATH:/usr/sbin:/sbin
dir=$(mktemp -d "${TMPDIR:-/tmp}/koboshi-bench.XXXXXX")
trap 'sed "s/^[^ ]* //; s/ .*//" /proc/mounts | grep "^$dir/" | sort -r | xargs -r umount -l; rm -rf --one-file-system "$dir"' EXIT
trap 'exit 130' INT TERM
cd "$dir"
export HOME="$dir" XDG_CACHE_HOME="$dir/cache" LC_ALL=C
ulimit -n "$(ulimit -H -n)"
ip link set lo up
ip link add kb0 type bridge
ip addr add 10.77.0.1/24 dev kb0
ip link set kb0 up

umask 077

# run NAME COMMAND…: wall, processor and memory of a command, added to NAME's results. Its exit code may be
# that of machines that do not answer.
run() {
	name=$1
	shift
	began=$(date +%s%N)
	/usr/bin/time -o time.txt -f '%U %S %M' "$@" >out.txt 2>err.txt || true
	ended=$(date +%s%N)
	tail -n 1 time.txt | awk -v ns=$((ended - began)) '{ print ns / 1e9, $1 + $2, $3 / 1024 }' >>"$name.results"
}

# expect NUMBER PATTERN: so many lines of the last command match.
expect() {
	found=$(grep -c "$2" out.txt || true)
	[ "$found" = "$1" ] || { echo "expected $1 lines with '$2', found $found:"; head -n 20 out.txt err.txt; exit 1; }
}

# median NAME COLUMN
median() {
	awk -v c="$2" '{ print $c }' "$1.results" | sort -g | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'
}

# ratio OURS THEIRS COLUMN: the median of what the rounds say, each by itself.
ratio() {
	paste -d ' ' "$1.results" "$2.results" | awk -v c="$3" '{ n = NF / 2; if ($(c + n) > 0) print $c / $(c + n) }' |
		sort -g | awk '{ v[NR] = $1 } END { printf "%.2f", (v[int((NR + 1) / 2)] + v[int((NR + 2) / 2)]) / 2 }'
}

# cpu PID: its processor time so far, with that of its children that have ended, in hundredths of a second.
cpu() {
	sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 + $14 + $15 }'
}

# group PID: a process and the children it will have in a control group of their own, whose processor time is counted
# whoever waits for them. Prints where that is; nothing where groups cannot be made.
group() {
	for root in /sys/fs/cgroup/unified /sys/fs/cgroup; do
		[ -e "$root/cgroup.procs" ] && mkdir -p "$root/koboshi-bench" 2>/dev/null && echo "$1" 2>/dev/null >"$root/koboshi-bench/cgroup.procs" || continue
		echo "$root/koboshi-bench"
		return
	done
}

# verdict RATE CPU LEAST MOST: "missed" where a ratio of rates is below LEAST, or of processor time above MOST ("-": any).
verdict() {
	awk -v r="$1" -v c="$2" -v least="$3" -v most="$4" 'BEGIN { if (r < least || (most != "-" && c > most)) print "missed" }'
}

# rss NAME PID: VmRSS or VmHWM in KiB.
rss() {
	awk -v n="$1:" '$1 == n { print $2 }' "/proc/$2/status"
}

# boots IMAGE SIZE: an image in `state` whose kernel is `files/SIZE`, so many MiB of nothing in particular.
boots() {
	mkdir -p files root/boot root/usr/sbin root/usr/lib/modules/6.1.0-bench
	head -c "$2M" /dev/urandom >"files/$2"
	cp "files/$2" root/boot/vmlinuz-6.1.0-bench
	: >root/usr/lib/modules/6.1.0-bench/modules.dep
	printf '#!/bin/sh\n' >root/usr/sbin/init
	chmod 755 root/usr/sbin/init
	ln -s usr/lib root/lib
	ln -s usr/sbin root/sbin
	koboshi image import "$1" root --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
	koboshi image publish "$1" --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
	rm -r root
}

# serve: koboshi with the images in `state` and the rest of a site file, from [net] on, from standard input; its process is $served, its HTTP at $http.
serve() {
	{
		printf '[site]\nname = "bench"\n[admin]\nlisten = "127.0.0.1:7070"\n[net]\ninterface = "kb0"\ncidr = "10.77.0.0/24"\n'
		cat
	} >site.toml
	koboshi serve --site site.toml --state state >serve.txt 2>&1 &
	served=$!
	for _ in $(seq 100); do
		grep -q '^koboshi: ready' serve.txt && break
		sleep 0.1
	done
	http=$(sed -n 's/^koboshi: ready.*HTTP at \([0-9.:]*\).*/\1/p' serve.txt)
	[ -n "$http" ] || { echo "koboshi does not serve within ten seconds:"; cat serve.txt; exit 1; }
}

# ends: the koboshi that serves.
ends() {
	kill "$served"
	wait "$served" || true
}

row() {
	awk -v t="$1" -v o="$(median "$2" 1)" -v oc="$(median "$2" 2)" -v om="$(median "$2" 3)" \
		-v p="$(median "$3" 1)" -v pc="$(median "$3" 2)" -v pm="$(median "$3" 3)" -v r="$(ratio "$2" "$3" 1)" -v g="$4" 'BEGIN {
		printf "| %s | %.3f s, %.2f s, %.0f MiB | %.3f s, %.2f s, %.0f MiB | %s | %s |\n",
			t, o, oc, om, p, pc, pm, r, g }'
}

echo "rounds: $rounds; wall, processor and memory are medians"
for part in "$@"; do
	echo
	# shellcheck source=/dev/null # one of the files beside this one
	. "$KOBOSHI_ROOT/tests/bench/$part.sh"
done
