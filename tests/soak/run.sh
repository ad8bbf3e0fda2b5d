#!/bin/sh
# The long run, before a release: machines that take their time, storms, faults; and every parser fuzzed beside them,
# two at a time, on what processor is left:
#   tests/soak/run.sh          FUZZ=3600: seconds for each parser; SECONDS=180: how long consoles make noise
# At the end it says what it did. What failed is in target/soak.log and target/fuzz.
set -u

root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root" || exit 2
log=$root/target/soak.log
begun=$(date +%s)
: "${FUZZ:=3600}" "${SECONDS:=180}"
export SECONDS

# Everything is compiled before anything runs.
JOBS=2 chrt --idle 0 tests/fuzz/run.sh 0 >target/fuzz-corpora.log 2>&1 || {
	cat target/fuzz-corpora.log
	exit 1
}
# Who is left no processor by two machines that boot is not stuck.
HANG=300 JOBS=2 chrt --idle 0 tests/fuzz/run.sh "$FUZZ" >target/fuzz-soak.log 2>&1 &
fuzzers=$!
# An interrupted soak leaves nothing running.
trap 'kill "$fuzzers" 2>/dev/null; pkill -P "$fuzzers" 2>/dev/null; exit 130' INT TERM

# As the whole is built: one package by itself would be compiled anew, with fewer features.
${CARGO:-cargo} nextest run --workspace --exclude koboshi-fuzz --test world --profile soak --no-fail-fast 2>&1 | tee "$log"
grep -qE '^ +Summary .* passed' "$log" && ! grep -qE '^ +Summary .* (failed|timed out)' "$log"
machines=$?
echo "machines are done; parsers go on, $FUZZ s each"
wait "$fuzzers"
parsers=$?

hours() { awk -v s="$1" 'BEGIN { printf "%d h %02d min", s / 3600, s % 3600 / 60 }'; }
echo
echo "What was done, in $(hours $(($(date +%s) - begun))):"
# Once more at the end of the log are those that failed.
sed -n 's/^ *\(PASS\|FAIL\|TIMEOUT\|SIGKILL\|SIGABRT\) \[ *\([0-9.]*\)s\].*world soak::/\1 \2 /p' "$log" | sort -u -k 3 |
	awk '{ printf "  %-8s %8.1f s  %s\n", $1, $2, $3 }'
sed 's/^/  /' target/fuzz-soak.log | grep -v 'Finished\|Compiling\|Blocking'
if [ $machines = 0 ] && [ $parsers = 0 ]; then
	echo "soak: clean"
else
	echo "soak: FAILED"
	exit 1
fi
