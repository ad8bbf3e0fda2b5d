#!/bin/sh
# Our crates, compiled so that they tell libFuzzer where an input leads (SanitizerCoverage), as cargo's
# RUSTC_WORKSPACE_WRAPPER: dependencies stay as the tests have them, and are compiled once for both.
rustc=$1
shift
case " $* " in
	# These are linked without libFuzzer.
	*" --crate-name build_script_"* | *" --crate-type proc-macro "* | *" -vV "* | *" --print "*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
