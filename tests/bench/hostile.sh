# shellcheck shell=sh
# A storm of some hundred machines with one more that means harm, and without: by how much slower they are up, each
# round by itself. Read by run.sh.

machines=${HOSTILE_MACHINES:-300}

# storm_of NAME OPTION…: seconds until half of them and until the last one was up, from its own power, and how many
# were not.
storm_of() {
	name=$1
	shift
	koboshi lab storm --json --machines "$machines" --within 10s "$@" >out.txt 2>err.txt || true
	tr -d ' ,"' <out.txt | awk -F: '
		$1 == "failed" { failed = $2 }
		$1 == "makespan" { makespan = $2 }
		$1 == "boot{" || $1 == "boot" { boot = 1 }
		boot && $1 == "p50" { p50 = $2; boot = 0 }
		END { if (makespan == "") exit 1; print p50, makespan, failed }' >>"$name.results" || { cat out.txt err.txt; exit 1; }
}

for _ in $(seq "$rounds"); do
	storm_of peace
	storm_of enemy --enemy
done
echo "| $machines machines on within 10 s | alone | beside an enemy | times | wanted |"
echo "|---|---|---|---|---|"
for column in 1 2; do
	[ $column = 1 ] && title='power to up, half of them' || title='the last one up'
	printf '| %s | %.1f s | %.1f s | %s | as small as it gets |\n' "$title" "$(median peace $column)" "$(median enemy $column)" "$(ratio enemy peace $column)"
done
printf '| not up | %.0f | %.0f | | 0 |\n' "$(median peace 3)" "$(median enemy 3)"
