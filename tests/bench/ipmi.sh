# shellcheck shell=sh
# Power, sensors and consoles of BMCs, beside ipmipower and ipmitool. Read by run.sh.

printf 'open-sesame-42\n' >password
printf 'username admin\npassword open-sesame-42\n' >freeipmi.conf

# site NAME COUNT: so many machines, with BMCs at 127.45.A.B, 250 for each A.
site() {
	{
		printf '[site]\nname = "bench"\n[net]\ninterface = "kb0"\ncidr = "10.77.0.0/24"\n'
		printf '[defaults.bmc]\nuser = "admin"\npassword-file = "password"\ncipher = 17\n[machines]\n'
		awk -v n="$2" 'BEGIN { for (i = 0; i < n; i++)
			printf "m%04d = { mac = [\"52:54:00:78:%02x:%02x\"], bmc = \"127.45.%d.%d\" }\n",
				i, int(i / 256), i % 256, int(i / 250), i % 250 + 1 }'
	} >"$1"
}

# bmcs OPTION…: starts simulated BMCs; `kill $started` ends all of them.
bmcs() {
	bmcsim --password-file password "$@" >bmcsim.log 2>&1 &
	bmcs=$!
	started="$(echo "${started-} $bmcs")"
	sleep 1
	kill -0 "$bmcs" || { cat bmcsim.log; exit 1; }
}

echo "| | koboshi | theirs | ratio of wall | wanted |"
echo "|---|---|---|---|---|"

# 1,000 BMCs, all well.
site site.toml 1000
hosts=127.45.0.[1-250],127.45.1.[1-250],127.45.2.[1-250],127.45.3.[1-250]
freeipmi="--config-file=$dir/freeipmi.conf -D LAN_2_0 -I 17"
ranges() {
	for third in "$@"; do bmcs --listen "127.45.$third.1-127.45.$third.250" --threads 1 $fault; done
}
fault=
ranges 0 1 2 3
for _ in $(seq "$rounds"); do
	run ours-all koboshi power @all status --site site.toml --yes
	expect 1000 '\boff\b'
	# shellcheck disable=SC2086 # words
	run theirs-all ipmipower $freeipmi -h "$hosts" -s
	expect 1000 ': off'
done
row "power of 1,000 BMCs (ipmipower)" ours-all theirs-all '<= 1'

# Half of them dead: nothing comes back from them, for as long as we care to wait.
# shellcheck disable=SC2086 # words
kill $started
started=
sleep 1
ranges 0 1
fault='--fault dead'
ranges 2 3
patience=5
for _ in $(seq "$rounds"); do
	run ours-half koboshi power @all status --site site.toml --yes --patience $patience
	expect 500 '\boff\b'
	# shellcheck disable=SC2086 # words
	run theirs-half ipmipower $freeipmi -h "$hosts" -s --session-timeout=${patience}000
	expect 500 ': off'
done
row "the same, half of them dead, given up after $patience s" ours-half theirs-half "$(awk -v p=$patience 'BEGIN { print "<= " p * 1.2 " s" }')"
# shellcheck disable=SC2086 # words
kill $started
started=

# One BMC with 200 sensors.
site one.toml 1
bmcs --listen 127.45.0.1 --sensors 200
tool="ipmitool -I lanplus -C 17 -H 127.45.0.1 -U admin -f password"
for _ in $(seq "$rounds"); do
	rm -rf cache
	run ours-cold koboshi sensors m0000 --all --site one.toml
	[ "$(wc -l <out.txt)" -ge 200 ] || { cat out.txt err.txt; exit 1; }
	run ours-warm koboshi sensors m0000 --all --site one.toml
	[ "$(wc -l <out.txt)" -ge 200 ] || { cat out.txt err.txt; exit 1; }
	run theirs-cold $tool sdr elist all
	[ "$(wc -l <out.txt)" -ge 200 ] || { cat out.txt err.txt; exit 1; }
	[ -e records ] || $tool sdr dump records >/dev/null
	run theirs-warm $tool -S records sdr elist all
done
row "200 sensors, nothing known (ipmitool sdr elist all)" ours-cold theirs-cold '<= 0.5'
row "200 sensors, records kept, to ipmitool with nothing known" ours-warm theirs-cold '<= 0.1'
row "200 sensors, records kept by both (ipmitool -S)" ours-warm theirs-warm ''
# shellcheck disable=SC2086 # words
kill $started
started=

# 1,000 consoles, 115,200 baud each way.
echo
echo "1,000 consoles in one process, 115,200 baud each way (wanted: no byte lost, under 64 KiB each):"
"$bin/examples/sol_storm" --sessions 1000 --seconds 10
