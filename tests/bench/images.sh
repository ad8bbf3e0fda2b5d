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
# allow IMAGE: what a host has lying about looks like keys here and there.
allow() {
	koboshi image lint "$1" --json --state state 2>/dev/null |
		jq -r '.findings[] | select(.severity == "secret") | .rule + " " + .path' | sort -u >found.txt
	while read -r rule path; do
		koboshi image allow "$1" "$rule" "$path" --reason bench --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
	done <found.txt
}
allow bulk
koboshi image publish bulk --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
cat >page.toml <<'PAGE'
name = "page"
summary = "one file over another image"
from = "bulk"

[[files]]
path = "/srv/page"
text = "first"
PAGE
koboshi image build page.toml --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
allow page
koboshi image publish page --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
for round in $(seq "$rounds"); do
	sed -i "s/^text = .*/text = \"change $round\"/" page.toml
	run ours-rebuild koboshi image build page.toml --state state --publish
	grep -q 'is what machines boot now' out.txt err.txt || { cat out.txt err.txt; exit 1; }
done
awk -v t="$(median ours-rebuild 1)" -v m="$(median ours-rebuild 3)" 'BEGIN {
	printf "| one file changed, to published | %.3f s, %.0f MiB | | | <= 2 s |\n", t, m }'
rm -rf state root whole.tar bulk.tar bulk.list

# The initramfs of a kernel: what the kernel unpacks is the same, and so is the level. Then mkinitramfs, with the
# drivers that it finds worth their bytes, and with ours.
packages=$KOBOSHI_ROOT/target/rack/cache/packages
kernel=$(find "$packages" -mindepth 1 -maxdepth 1 -name 'linux-image-*' ! -name '*cloud*' 2>/dev/null | sort | tail -n 1)
busybox=$(find "$packages" -path '*/bin/busybox' 2>/dev/null | sort | tail -n 1)
if [ -z "$kernel" ] || [ -z "$busybox" ]; then
	echo "no kernel or no busybox in $packages: make rack-images fetches them"
	exit 1
fi
release=$(ls "$kernel/usr/lib/modules")
run ours-initramfs segment "$kernel" "$busybox" ours.img
[ -s ours.img ] || { cat out.txt err.txt; exit 1; }
mkdir unpacked
common=$(sed 's/.*, \([0-9]*\) of them .*/\1/' out.txt)
(cd unpacked && head -c "$common" ../ours.img | gzip -q -d -c | cpio --quiet -i -d && tail -c "+$((common + 1))" ../ours.img | zstd -q -d -c 2>/dev/null | cpio --quiet -i -d)
drivers=$(find unpacked -name '*.ko' | wc -l)
# Only here is the kernel where mkinitramfs looks for it.
mount -t overlay -o "lowerdir=$kernel/usr/lib:/usr/lib" overlay /usr/lib
mount -t overlay -o "lowerdir=$kernel/boot:/boot" overlay /boot
for kind in most same; do
	cp -r /etc/initramfs-tools "mkinitramfs-$kind"
	sed -i -e 's/^COMPRESS=.*/COMPRESS=zstd/' -e '$aCOMPRESSLEVEL=9' "mkinitramfs-$kind/initramfs.conf"
done
sed -i 's/^MODULES=.*/MODULES=most/' mkinitramfs-most/initramfs.conf
sed -i 's/^MODULES=.*/MODULES=list/' mkinitramfs-same/initramfs.conf
{
	printf '#!/bin/sh\n[ "$1" = prereqs ] && exit\n. /usr/share/initramfs-tools/hook-functions\nmanual_add_modules'
	find unpacked -name '*.ko' | sed 's,.*/,,; s,\.ko$,,' | sort | tr '\n' ' ' | sed 's/^/ /'
} >mkinitramfs-same/hooks/drivers
chmod 755 mkinitramfs-same/hooks/drivers
rm -f ours-initramfs.results
for _ in $(seq "$rounds"); do
	run ours-initramfs segment "$kernel" "$busybox" ours.img
	run theirs-cpio sh -c '(cd unpacked && find . -print0 | cpio --quiet -0 -o -H newc) | zstd -q -T0 -9 >cpio.img'
	for kind in most same; do
		run theirs-$kind mkinitramfs -d "$dir/mkinitramfs-$kind" -o "$kind.img" "$release"
		[ -s "$kind.img" ] || { cat out.txt err.txt; exit 1; }
	done
done
umount -l /usr/lib /boot
row "initramfs of $drivers drivers (find, cpio, zstd -T0 -9)" ours-initramfs theirs-cpio '< 1'
row "the same (mkinitramfs, these drivers, zstd -9)" ours-initramfs theirs-same '< 1'
row "the same (mkinitramfs, MODULES=most, $(lsinitramfs most.img | grep -c '\.ko$') drivers)" ours-initramfs theirs-most '< 1'
for kind in cpio same most; do
	size=$(stat -c %s ours.img) other=$(stat -c %s "$kind.img")
	awk -v o="$size" -v p="$other" -v k="$kind" 'BEGIN { printf "| its bytes (%s) | %d | %d | %.3f | <= 1 |\n", k, o, p, o / p }'
done
rm -rf unpacked ./*.img

# A root into memory, by PID 1's own code from koboshi's HTTP, and by what one would type instead.
mkdir -p state/images root
cp -al "$KOBOSHI_ROOT/target/rack/state/images/." state/images
koboshi image squash web --state state >out.txt 2>err.txt || { cat out.txt err.txt; exit 1; }
koboshi image show web --state state --json >show.json
# blobs KEY: digest and size of each layer, the lowest first.
blobs() {
	jq -r ".boot.layers[] | $1 | .digest[7:] + \" \" + (.size | tostring)" show.json
}
serve <<'SITE'
[roles.ram]
image = "web"
[roles.overlay]
image = "web"
root = "overlay"
SITE
urls=$(blobs .blob | sed "s,^\([0-9a-f]*\) .*,http://$http/blob/sha256/\1,")
# fresh: an empty tmpfs at root.
fresh() {
	mountpoint -q root && umount root
	mount -t tmpfs -o size=90% tmpfs root
}
cat >piped.sh <<'PIPED'
for url in "$@"; do
	curl -sSf "$url" | zstd -q -d | tar -xp --numeric-owner -C root
done
PIPED
for _ in $(seq "$rounds"); do
	fresh
	# shellcheck disable=SC2046 # words
	run ours-root fetch_root "http://$http" root $(blobs .blob)
	[ -x root/usr/sbin/nginx ] || { cat out.txt err.txt; exit 1; }
	names=$(find root | wc -l)
	fresh
	# shellcheck disable=SC2086 # words
	run theirs-root sh piped.sh $urls
	[ -x root/usr/sbin/nginx ] || { cat out.txt err.txt; exit 1; }
done
rates() {
	awk -v b="$(blobs .blob | awk '{ sum += $2 } END { print sum }')" -v o="$(median ours-root 1)" -v p="$(median theirs-root 1)" 'BEGIN {
		printf "| its bytes a second, packed | %.0f MB/s | %.0f MB/s | %.2f of theirs | >= 0.9 |\n", b / o / 1e6, b / p / 1e6, p / o }'
}
row "web, $names names, into tmpfs (curl, zstd -d, tar x)" ours-root theirs-root '<= 1.11'
rates

# To the first file of it that can be read: kept packed, or unpacked.
cat >overlay.sh <<'OVERLAY'
set -e
fetch_root "$@" >/dev/null
at=
for file in root/layer.*; do
	mkdir "root/at.${file##*.}"
	mount -o loop,ro -t squashfs "$file" "root/at.${file##*.}"
	at="root/at.${file##*.}${at:+:$at}"
done
mkdir root/upper root/work root/whole
mount -t overlay -o "lowerdir=$at,upperdir=root/upper,workdir=root/work" overlay root/whole
cat root/whole/etc/os-release
OVERLAY
cat >ram.sh <<'RAM'
set -e
fetch_root "$@" >/dev/null
cat root/etc/os-release
RAM
for _ in $(seq "$rounds"); do
	fresh
	# shellcheck disable=SC2046 # words
	run ours-overlay sh overlay.sh "http://$http" root/layer $(blobs .squashfs)
	grep -q bookworm out.txt || { cat out.txt err.txt; exit 1; }
	umount root/whole root/at.*
	fresh
	# shellcheck disable=SC2046 # words
	run ours-ram sh ram.sh "http://$http" root $(blobs .blob)
	grep -q bookworm out.txt || { cat out.txt err.txt; exit 1; }
done
umount root
row 'the same root, until a file of it is read: `overlay` (`ram`)' ours-overlay ours-ram '< 1'
ends
rm -rf state root
