# shellcheck shell=sh
# Kernels and roots by HTTP, beside nginx. Read by run.sh. Both have the same file, ours in its image store; wrk asks
# from four machines, which are network namespaces: one address may not have a thousand connections.

machines=
for number in 1 2 3 4; do
	unshare --net sleep 3600 &
	machine=$!
	machines="$machines $machine"
	sleep 0.1
	ip link add "kbv$number" type veth peer name eth0 netns "$machine"
	ip link set "kbv$number" master kb0 up
	nsenter -t "$machine" -n ip addr add "10.77.0.$((100 + number))/24" dev eth0
	nsenter -t "$machine" -n ip link set eth0 up
done
boots of64 64
serve <<'SITE'
[roles.of64]
image = "of64"
SITE
mkdir -p html/blob
chmod 755 "$dir" html html/blob
cp files/64 html/64
chmod 644 html/64
cat >nginx.conf <<NGINX
user root;
worker_processes auto;
pid $dir/nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	server {
		listen 10.77.0.1:8081 backlog=4096;
		root $dir/html;
	}
}
NGINX
nginx -c "$dir/nginx.conf" -g 'daemon off;' >nginx.txt 2>&1 &
nginx=$!
sleep 1
kill -0 "$nginx" || { cat nginx.txt; exit 1; }

# all PID: of a process and the workers it has.
all() {
	total=$(cpu "$1")
	for child in $(cat "/proc/$1/task/$1/children"); do total=$((total + $(cpu "$child"))); done
	echo "$total"
}

# load NAME PID URL CONNECTIONS SECONDS: bytes a second, CPU seconds of the server a gigabyte, and errors.
load() {
	before=$(all "$2")
	askers=
	for machine in $machines; do
		nsenter -t "$machine" -n wrk -t 1 -c $(($4 / 4)) -d "$5s" --timeout 60s "$3" >"wrk.$machine.txt" 2>&1 &
		askers="$askers $!"
	done
	# shellcheck disable=SC2086 # words
	wait $askers
	after=$(all "$2")
	cat wrk.*.txt | awk -v c=$((after - before)) -v s="$5" '
		/requests in/ { n = $5; unit = n; gsub(/[0-9.]/, "", unit); gsub(/[A-Za-z,]/, "", n)
			bytes += n * (unit ~ /^TB/ ? 1e12 : unit ~ /^GB/ ? 2^30 : unit ~ /^MB/ ? 2^20 : unit ~ /^KB/ ? 1024 : 1) }
		/Socket errors/ { gsub(",", ""); errors += $4 + $6 + $8 }
		/Non-2xx/ { errors += $NF }
		END { print bytes / s, c * 1e7 / bytes, errors + 0 }' >>"$1.results"
}

echo "| HTTP, a file of 64 MB | koboshi | nginx | rate, to nginx | CPU a byte, to nginx | wanted | |"
echo "|---|---|---|---|---|---|---|"
hex=$(sha256sum files/64 | cut -d ' ' -f 1)
for connections in 64 1024; do
	for _ in $(seq "$rounds"); do
		load "ours-$connections" "$served" "http://$http/blob/sha256/$hex" $connections 5
		load "theirs-$connections" "$nginx" "http://10.77.0.1:8081/64" $connections 5
	done
	for side in ours theirs; do
		awk '{ sum += $3 } END { exit sum > 0 }' "$side-$connections.results" || echo "$side: requests failed: $(cut -d ' ' -f 3 "$side-$connections.results" | tr '\n' ' ')"
	done
	rate=$(ratio ours-$connections theirs-$connections 1)
	spends=$(ratio ours-$connections theirs-$connections 2)
	printf '| %s connections | %.0f MB/s, %.2f s/GB, %.0f MiB | %.0f MB/s, %.2f s/GB | %s | %s | >= 1, <= 1.3 | %s |\n' $connections \
		"$(median ours-$connections 1 | awk '{ print $1 / 1e6 }')" "$(median ours-$connections 2)" "$(rss VmHWM "$served" | awk '{ print $1 / 1024 }')" \
		"$(median theirs-$connections 1 | awk '{ print $1 / 1e6 }')" "$(median theirs-$connections 2)" \
		"$rate" "$spends" "$(verdict "$rate" "$spends" 1 1.3)"
done
ends
# shellcheck disable=SC2086 # words
kill "$nginx" $machines
wait || true
rm -rf state files html
