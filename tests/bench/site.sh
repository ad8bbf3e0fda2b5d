# shellcheck shell=sh
# An argument of a role changes, and how long it takes until a machine would boot with it. Read by run.sh.

mkdir -p state
cp -al "$KOBOSHI_ROOT/target/rack/state/images" state/images
echo "| an argument of a role is changed | to what machines boot | memory of the daemon | wanted |"
echo "|---|---|---|---|"
for machines in 300 10000; do
	awk -v n=$machines 'BEGIN {
		printf "[[net.subnet]]\nrelay = \"10.80.0.1\"\ncidr = \"10.80.0.0/16\"\n[roles.web]\nimage = \"web\"\ncmdline = \"bench.id=0\"\n[machines]\n"
		for (i = 0; i < n; i++) printf "m%05d = { mac = [\"52:54:00:78:%02x:%02x\"] }\n", i, int(i / 256), i % 256
		printf "[seats]\n"
		for (i = 0; i < n; i++) printf "s%05d = { role = \"web\", ip = \"10.80.%d.%d\" }\n", i, 1 + int(i / 250), 1 + i % 250
		printf "[matrix]\n"
		for (i = 0; i < n; i++) printf "m%05d = \"s%05d\"\n", i, i
	}' >tables.toml
	serve <tables.toml
	for round in $(seq "$rounds"); do
		sed "s/bench.id=[0-9]*/bench.id=$round/" site.toml >next.toml
		mv next.toml site.toml
		run "live-$machines" koboshi reload --state state
		koboshi explain m00042 --state state >said.txt
		grep -q "bench.id=$round" said.txt || { cat out.txt err.txt said.txt; exit 1; }
	done
	wanted=50
	[ $machines -gt 300 ] && wanted=500
	printf '| %s machines: `koboshi reload` | %.0f ms | %.0f MiB | <= %s ms, <= 200 MiB |\n' $machines \
		"$(median live-$machines 1 | awk '{ print $1 * 1000 }')" "$(rss VmHWM "$served" | awk '{ print $1 / 1024 }')" $wanted
	ends
done
rm -rf state
