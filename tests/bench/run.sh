#!/bin/sh
# Ours and theirs in the same run, in turn, on loopback; medians of the rounds and how they compare:
#   tests/bench/run.sh [rounds] [part…]        all of them: ipmi, console, images
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
[ $# -gt 0 ] || set -- ipmi console images
bin=$KOBOSHI_ROOT/target/release
PATH=$bin:$bin/examples:$PATH:/usr/sbin:/sbin
dir=$(mktemp -d "${TMPDIR:-/tmp}/koboshi-bench.XXXXXX")
trap 'rm -rf "$dir"' EXIT
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
	awk -v c="$2" '{ print $c }' "$1.results" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

row() {
	awk -v t="$1" -v o="$(median "$2" 1)" -v oc="$(median "$2" 2)" -v om="$(median "$2" 3)" \
		-v p="$(median "$3" 1)" -v pc="$(median "$3" 2)" -v pm="$(median "$3" 3)" -v g="$4" 'BEGIN {
		printf "| %s | %.3f s, %.2f s, %.0f MiB | %.3f s, %.2f s, %.0f MiB | %.2f | %s |\n",
			t, o, oc, om, p, pc, pm, o / p, g }'
}

echo "rounds: $rounds; wall, processor and memory are medians"
for part in "$@"; do
	echo
	# shellcheck source=/dev/null # one of the files beside this one
	. "$KOBOSHI_ROOT/tests/bench/$part.sh"
done
