# shellcheck shell=sh
# Images into the store, beside skopeo. Read by run.sh. The root is this host's own
# /usr/lib and /usr/share, up to a gigabyte, over a root that boots as far as an import can tell.

bulk=${BULK:-1000}
mkdir -p root/boot root/usr/sbin root/usr/lib/modules/6.1.0-bench root/etc root/srv
printf 'kernel' >root/boot/vmlinuz-6.1.0-bench
: >root/usr/lib/modules/6.1.0-bench/modules.dep
printf '#!/bin/sh\n' >root/usr/sbin/init
chmod 755 root/usr/sbin/init
ln -s usr/lib root/lib
ln -s usr/sbin root/sbin
# Names sorted, so that every run of a host has the same gigabyte.
find /usr/lib /usr/share -xdev -type f -size -65536k -printf '%s %p\n' 2>/dev/null | sort -k 2 |
	awk -v most="$bulk" '{ sum += $1; if (sum > most * 1048576) exit; sub(/^[0-9]+ /, ""); print }' >bulk.list
tar -cf bulk.tar -T bulk.list -P --transform 's,^/,srv/,' --owner 0 --group 0 --numeric-owner
tar -C root --owner 0 --group 0 --numeric-owner -cf whole.tar .
tar -Af whole.tar bulk.tar
size=$(($(stat -c %s whole.tar) / 1048576))
# What skopeo reads is an image: the same tar as its one layer, not compressed.
layer=$(sha256sum whole.tar | cut -d ' ' -f 1)
config="{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:$layer\"]}}"
mkdir docker
printf '%s' "$config" >docker/config.json
printf '[{"Config":"config.json","RepoTags":["bulk:1"],"Layers":["layer.tar"]}]' >docker/manifest.json
ln whole.tar docker/layer.tar
tar -C docker -cf docker.tar manifest.json config.json layer.tar
rm -r docker

echo "| | koboshi | theirs | ratio of wall | wanted |"
echo "|---|---|---|---|---|"

for round in $(seq "$rounds"); do
	rm -rf state layout
	run ours-import koboshi image import bulk docker.tar --state state
	grep -q 'bulk@1' out.txt err.txt || { cat out.txt err.txt; exit 1; }
	run theirs-import skopeo --insecure-policy copy docker-archive:docker.tar oci:layout:bulk
	[ -f layout/index.json ] || { cat out.txt err.txt; exit 1; }
done
row "import of a tar of $size MB (skopeo copy, gzip)" ours-import theirs-import '<= 1'
printf '| bytes kept | %s | %s | | |\n' "$(du -sh state/images/blobs | cut -f 1)" "$(du -sh layout/blobs | cut -f 1)"
rm -rf layout docker.tar

# A recipe over it, of which one file changes: from the command to what machines boot.
koboshi image publish bulk --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
cat >page.toml <<'PAGE'
name = "page"
summary = "one file over another image"
from = "bulk"

[[files]]
path = "/srv/page"
text = "first"
PAGE
koboshi image build page.toml --state state --publish >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
for round in $(seq "$rounds"); do
	sed -i "s/^text = .*/text = \"change $round\"/" page.toml
	run ours-rebuild koboshi image build page.toml --state state --publish
	grep -q 'is what machines boot now' out.txt err.txt || { cat out.txt err.txt; exit 1; }
done
awk -v t="$(median ours-rebuild 1)" -v m="$(median ours-rebuild 3)" 'BEGIN {
	printf "| one file changed, to published | %.3f s, %.0f MiB | | | <= 2 s |\n", t, m }'
rm -rf state root whole.tar bulk.tar bulk.list

# The drivers of a kernel as an archive: what the kernel unpacks is the same, and so is the level.
packages=$KOBOSHI_ROOT/target/rack/cache/packages
kernel=$(find "$packages" -mindepth 1 -maxdepth 1 -name 'linux-image-*' ! -name '*cloud*' 2>/dev/null | sort | tail -n 1)
if [ -z "$kernel" ]; then
	echo "no kernel in $packages: make rack-images fetches one"
	exit 1
fi
run ours-segment segment "$kernel" segment.cpio.zst
mkdir unpacked
zstd -q -d -c segment.cpio.zst | (cd unpacked && cpio --quiet -i -d)
rm -f ours-segment.results
for _ in $(seq "$rounds"); do
	run ours-segment segment "$kernel" segment.cpio.zst
	run theirs-segment sh -c '(cd unpacked && find . -print0 | cpio --quiet -0 -o -H newc) | zstd -q -T0 -9 >theirs.cpio.zst'
done
row "initramfs segment of $(find unpacked -name '*.ko' | wc -l) drivers (find, cpio, zstd -T0 -9)" \
	ours-segment theirs-segment '< 1'
printf '| bytes | %s | %s | | |\n' "$(stat -c %s segment.cpio.zst)" "$(stat -c %s theirs.cpio.zst)"
rm -rf unpacked
