# shellcheck shell=sh
# Lines of consoles, beside conserver. Read by run.sh. Machines are a process of their own (chatter), each a Unix
# socket that says numbered lines at 115,200 baud. Every log is read afterwards: a line that is missing, or there
# twice, ends this.

PATH=$bin/examples:$PATH
mkdir console
cd console

# lines FILE COUNT [ssh]: a site of so many machines, each with a console.
lines() {
	{
		printf '[site]\nname = "bench"\n[net]\ninterface = "kb0"\ncidr = "10.77.0.0/24"\n'
		[ -z "${3-}" ] || printf '[admin]\nssh = "127.0.0.1:2222"\n[console]\nauthorized-keys = "keys"\n'
		printf '[machines]\n'
		awk -v n="$2" -v d="$PWD" 'BEGIN { for (i = 0; i < n; i++)
			printf "m%04d = { mac = [\"52:54:00:79:%02x:%02x\"], console = \"unix:%s/s/%04d\" }\n",
				i, int(i / 256), i % 256, d, i }'
	} >"$1"
}

# talk COUNT SECONDS TICK: machines that wait for somebody to listen.
talk() {
	rm -rf s go
	mkfifo go
	chatter --folder s --lines "$1" --seconds "$2" --tick "$3" --baud "${baud-115200}" <go >chatter.out 2>&1 &
	chatter=$!
	exec 3>go
	until grep -q ready chatter.out; do sleep 0.1; done
}

# told PID…: they talk, and these are measured meanwhile; into `said`.
told() {
	echo "$@" >&3
	until said=$(grep lines chatter.out); do
		kill -0 "$chatter" || { cat chatter.out; exit 1; }
		sleep 0.5
	done
}

hush() {
	exec 3>&-
	over "$chatter"
}

# field NAME: of what was said.
field() { echo "$said" | sed "s/.*\"$1\": \([0-9.]*\).*/\1/"; }

# complete FOLDER COUNT SECONDS
complete() {
	chatter --check "$1" --lines "$2" --seconds "$3" >check.out || { echo "characters are missing: $1"; cat check.out; exit 1; }
}

# ours COUNT [ssh]: the appliance with so many lines, all of them up.
ours() {
	rm -rf state
	mkdir state
	lines site.toml "$@"
	koboshi serve --site site.toml --state state >serve.log 2>&1 &
	serve=$!
	until [ "$(koboshi console --state state --json 2>/dev/null | grep -o '"state": *"up"' | wc -l)" = "$1" ]; do
		kill -0 $serve || { cat serve.log; exit 1; }
		sleep 0.5
	done
}

over() {
	kill "$1" 2>/dev/null || true
	wait "$1" || true
}

# theirs COUNT: conserver, all of its lines in one process beside the master.
theirs() {
	rm -rf logs
	mkdir logs
	: >passwd
	{
		echo "config * { defaultaccess allowed; sslrequired no; logfile $PWD/server.log; }"
		echo "access * { trusted 127.0.0.1; }"
		echo "default * { rw *; master localhost; logfile $PWD/logs/&; type uds; }"
		for number in $(seq 0 $(($1 - 1))); do
			printf 'console m%04d { uds %s/s/%04d; }\n' "$number" "$PWD" "$number"
		done
	} >conserver.cf
	conserver -n -E -M 127.0.0.1 -p 17782 -b 17800 -m "$1" -C conserver.cf -P passwd >conserver.log 2>&1 &
	conserver=$!
	sleep 1
	kill -0 $conserver || { cat conserver.log; exit 1; }
}

seconds=20
for tick in 10 1; do
	for _ in $(seq "$rounds"); do
		talk 48 $seconds $tick
		ours 48
		told $serve
		echo "$(field cpu_ns_per_byte) $(field peak_kib)" >>ours-$tick.results
		over $serve
		hush
		complete state/consoles 48 $seconds
		talk 48 $seconds $tick
		theirs 48
		told $conserver $(pgrep -P $conserver)
		echo "$(field cpu_ns_per_byte) $(field peak_kib)" >>theirs-$tick.results
		over $conserver
		hush
		complete logs 48 $seconds
	done
done

echo "| nothing lost, logs written | koboshi | conserver | ratio | wanted |"
echo "|---|---|---|---|---|"
for tick in 10 1; do
	awk -v t=$tick -v o="$(median ours-$tick 1)" -v p="$(median theirs-$tick 1)" 'BEGIN {
		printf "| 48 lines at 115,200 baud, read every %d ms: processor for each byte | %.0f ns | %.0f ns | %.2f | <= 1 |\n", t, o, p, o / p }'
done

# 2,000 lines; what the process takes without them is not theirs.
many=2000
talk $many $seconds 50
lines site.toml $many
sed 's/, console = "[^"]*"//' site.toml >without.toml
mkdir -p empty
koboshi serve --site without.toml --state empty >serve.log 2>&1 &
serve=$!
sleep 5
without=$(awk '/^RssAnon/ { print $2 }' /proc/$serve/status)
over $serve
ours $many
told $serve
over $serve
hush
complete state/consoles $many $seconds
awk -v n=$many -v p="$(field peak_kib)" -v w="$without" -v c="$(field cpu_ns_per_byte)" -v s="$(field mb_per_s)" 'BEGIN {
	printf "| %d lines at 115,200 baud, %.1f MB/s: memory of a line, processor for each byte | %.0f KiB, %.0f ns | | | < 256 KiB |\n", n, s, (p - w) / n, c }'

# From a key to its echo, while the line talks: straight over the machine's socket, and through SSH with 50 people
# who look at the same line (each OpenSSH), one of whom does not read.
ssh-keygen -q -t ed25519 -N '' -f key
cp key.pub keys
for _ in $(seq "$rounds"); do
	talk 1 30 10
	echo >&3
	said=$(key_echo --socket s/0000) || { echo "$said"; exit 1; }
	echo "$(field p99_ms) $(field median_ms)" >>straight.results
	hush
	talk 1 60 10
	ours 1 ssh
	echo $serve >&3
	said=$(key_echo --ssh 127.0.0.1:2222 --who m0000 --identity key --viewers 50) || { echo "$said"; tail serve.log; exit 1; }
	echo "$(field p99_ms) $(field median_ms)" >>through.results
	over $serve
	hush
done
awk -v o="$(median through 1)" -v s="$(median straight 1)" 'BEGIN {
	printf "| key to echo through SSH, 50 look and one of them does not read: 99th percentile | %.2f ms | straight: %.2f ms | | < 5 ms more |\n", o, s }'

# A line that has said 10 MB and is silent now: to its screen, through SSH.
baud=20000000
talk 1 5 10
ours 1 ssh
told $serve
said=$(key_echo --ssh 127.0.0.1:2222 --who m0000 --identity key --draw $((rounds * 10))) || { echo "$said"; tail serve.log; exit 1; }
over $serve
hush
awk -v m="$(field median_ms)" -v l="$(field longest_ms)" 'BEGIN {
	printf "| a line with 10 MB of history: from the wish to the screen | %.1f ms, at the most %.1f ms | | | < 50 ms |\n", m, l }'
cd ..
