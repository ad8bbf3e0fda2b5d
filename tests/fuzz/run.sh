#!/bin/sh
# Fuzzes every target for some seconds each, with everything compiled for it, dependencies too:
#   tests/fuzz/run.sh [seconds] [target…]      60 seconds each, all targets; JOBS=2: two at a time;
#                                              HANG=20: seconds after which an input has brought its target to a stop
# Seconds 0: only what the corpora hold is run, once. What new inputs reach new code is kept in
# target/fuzz/corpus; what brings a target down, in target/fuzz/crashes, and the exit code says so.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../target/fuzz
mkdir -p "$out"
out=$(cd "$out" && pwd)
triple=x86_64-unknown-linux-gnu

if [ "${1-}" = --one ]; then
	seconds=$2 target=$3
	corpus=$out/corpus/$target crashes=$out/crashes/$target log=$out/$target.log
	mkdir -p "$corpus" "$crashes" "$here/corpus/$target"
	# 0 would mean for ever.
	limit="-max_total_time=$seconds"
	[ "$seconds" -eq 0 ] && limit="-runs=0"
	dict=
	[ -f "$here/$target.dict" ] && dict="-dict=$here/$target.dict"
	failed=
	# shellcheck disable=SC2086 # words
	"$out/$triple/fuzz/$target" $limit $dict -timeout="${HANG:-20}" -rss_limit_mb=2048 \
		-print_final_stats=1 -artifact_prefix="$crashes/" "$corpus" "$here/corpus/$target" \
		>"$log" 2>&1 || failed=" BROUGHT DOWN"
	number() { sed -n "s/^stat::$1: *//p" "$log" | tail -n 1; }
	covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
	printf '%-16s %12s inputs %9s a second %7s edges %5s MiB%s\n' "$target" "$(number number_of_executed_units)" \
		"$(number average_exec_per_sec)" "$covered" "$(number peak_rss_mb)" "$failed"
	[ -z "$failed" ] || { grep -a -E -A 2 "panicked at|ERROR: |Test unit written" "$log" || :; exit 1; }
	exit 0
fi

seconds=${1:-60}
[ $# -gt 0 ] && shift
case $seconds in '' | *[!0-9]*) echo "usage: run.sh [seconds] [target…]" >&2; exit 2 ;; esac

# Nothing boots here: the archives that would carry koboshi-init carry an empty file.
[ -e "$out/no-init" ] || : >"$out/no-init"
export KOBOSHI_INIT="$out/no-init"
export CARGO_TARGET_DIR="$out"
# With --target these flags stay away from build scripts and proc macros, which could not link.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
${CARGO:-cargo} build --locked --manifest-path "$here/Cargo.toml" -p koboshi-fuzz --profile fuzz --target $triple --bins

# shellcheck disable=SC2046 # words
[ $# -gt 0 ] || set -- $(sed -n 's/^path = "src\/\(.*\)\.rs"$/\1/p' "$here/Cargo.toml")
# Files that targets make lie in memory where the host has such a folder.
[ -d /dev/shm ] && : "${TMPDIR:=/dev/shm}"
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/koboshi-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT TERM
echo "$# targets, $seconds s each, ${JOBS:-1} at a time:"
# Each is waited for, whatever became of the others.
printf '%s\n' "$@" | xargs -P "${JOBS:-1}" -I '{}' "$here/run.sh" --one "$seconds" '{}' || {
	echo "inputs that brought a target down are in $out/crashes" >&2
	exit 1
}
