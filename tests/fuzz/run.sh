#!/bin/sh
# Fuzzes every target for some seconds, one at a time:
#   tests/fuzz/run.sh [seconds] [target…]      60 seconds each, all targets
# Seconds 0: only what the corpora hold is run, once. What new inputs reach new code is kept in
# target/fuzz/corpus; what brings a target down, in target/fuzz/crashes, and the exit code says so.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
seconds=${1:-60}
[ $# -gt 0 ] && shift
case $seconds in '' | *[!0-9]*) echo "usage: run.sh [seconds] [target…]" >&2; exit 2 ;; esac
triple=x86_64-unknown-linux-gnu
out=$here/../../target/fuzz
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Nothing boots here: the archives that would carry koboshi-init carry an empty file.
[ -e "$out/no-init" ] || : >"$out/no-init"
export KOBOSHI_INIT="$out/no-init"
export CARGO_TARGET_DIR="$out"
# With --target these flags stay away from build scripts and proc macros, which could not link.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
${CARGO:-cargo} build --locked --manifest-path "$here/Cargo.toml" --profile fuzz --target $triple --bins

[ $# -gt 0 ] || set -- $(sed -n 's/^path = "src\/\(.*\)\.rs"$/\1/p' "$here/Cargo.toml")
# Files that targets make lie in memory where the host has such a folder.
[ -d /dev/shm ] && : "${TMPDIR:=/dev/shm}"
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/koboshi-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT TERM
failed=
for target in "$@"; do
	corpus=$out/corpus/$target crashes=$out/crashes/$target
	mkdir -p "$corpus" "$crashes" "$here/corpus/$target"
	# 0 would mean for ever.
	limit="-max_total_time=$seconds"
	[ "$seconds" -eq 0 ] && limit="-runs=0"
	dict=
	[ -f "$here/$target.dict" ] && dict="-dict=$here/$target.dict"
	echo "== $target"
	"$out/$triple/fuzz/$target" $limit $dict -timeout=20 -rss_limit_mb=2048 \
		-print_final_stats=1 -artifact_prefix="$crashes/" "$corpus" "$here/corpus/$target" \
		>"$out/$target.log" 2>&1 || { failed="$failed $target"; grep -E -A 2 "panicked at|ERROR: |Test unit written" "$out/$target.log" || :; }
	grep -E 'cov: ' "$out/$target.log" | tail -n 1 || :
	grep -E 'stat::(number_of_executed_units|average_exec_per_sec|peak_rss_mb)' "$out/$target.log" || :
done
if [ -n "$failed" ]; then
	echo "brought down:$failed; inputs in $out/crashes" >&2
	exit 1
fi
