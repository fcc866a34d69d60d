#!/bin/sh
# seeds.sh OUT : takes seeds for every target from a published folder (out/amd64-minimal) into fuzz/corpus/.
set -eu
out=$(realpath "$1")
cd "$(dirname "$0")"
iso=$(ls "$out"/*.iso)
seed() { mkdir -p "corpus/$1"; cat > "corpus/$1/$2"; }
head_of() { head -c "$2" "$1"; }

# A small ISO with all that a real one has: the same boot files, cut short.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tree/boot/grub"
xorriso -osirrox on -indev "$iso" -extract /boot/grub/grub.cfg "$work/tree/boot/grub/grub.cfg" 2>/dev/null
head_of "$out"/*.vmlinuz 70000 > "$work/tree/boot/gentoo"
mkdir "$work/initrd"
(cd "$work/initrd" && mkdir -p usr/lib/dracut && echo base > usr/lib/dracut/modules.txt && find . | cpio -o -H newc --quiet > ../cpio)
gzip -n < "$work/cpio" > "$work/tree/boot/gentoo.igz"
head_of "$out"/*.squashfs 4096 > "$work/tree/image.squashfs"
grub-mkrescue -o "$work/x.iso" -volid Seed "$work/tree" 2>/dev/null
xorriso -as mkisofs -quiet -r -J -V Seed -o "$work/plain.iso" "$work/tree" 2>/dev/null
tail -c +32769 "$work/plain.iso" | seed iso9660 plain
tail -c +32769 "$work/x.iso" | head -c 400000 | seed iso9660 rescue
cp "$work/plain.iso" seed.iso

printf 'RR\005\001\201NM\011\001\000gentooPX\044\001' | seed rock_ridge name
printf 'CE\034\001\022\000\000\000\000\000\000\022\000\000\000\000\000\000\000\000\100\000\000\000\000\000\000\100' | seed rock_ridge continued
for compress in cat 'gzip -n' xz 'xz --format=lzma' 'zstd -q' bzip2 'lz4 -ql'; do
	command -v "${compress%% *}" >/dev/null || continue
	name=$(echo "$compress" | tr -d ' =-')
	$compress < "$work/cpio" | seed initramfs "$name"
	$compress < "$work/cpio" | seed compression "$name"
done
cat "$work/cpio" "$work/tree/boot/gentoo.igz" | seed initramfs two
head_of "$out"/*.squashfs 96 | seed squashfs real
tar --format=pax --xattrs -C "$work/tree" -cf - boot | seed tar pax
tar --format=gnu -C "$work/tree" -cf - boot | seed tar gnu
for list in "$out"/*.DIGESTS "$out"/*.sha256; do { basename "$list"; cat "$list"; } | seed checksums "$(basename "$list")"; done
(cd "$out/netboot" && { echo sums; sha512sum --tag boot.ipxe; }) | seed checksums bsd
seed grub iso < "$work/tree/boot/grub/grub.cfg"
seed grub net < "$out/netboot/grub/grub.cfg"
for script in "$out"/netboot/*.ipxe; do seed ipxe "$(basename "$script")" < "$script"; done
seed pxelinux default < "$out/netboot/pxelinux.cfg/default"
printf 'subarch: amd64\nversion_stamp: @TIMESTAMP@\ntarget: livecd-stage2\nrel_type: x\nprofile: default/linux/amd64/23.0\nsnapshot_treeish: @TREEISH@\nsource_subpath: %%(rel_type)s/y\nlivecd/iso: z.iso\nboot/kernel: gentoo\nboot/kernel/gentoo/distkernel: yes\nlivecd/rm:\n\t/a\n\t/b # c\n' | seed release stage2
for spec in ../specs/*.toml; do seed spec "$(basename "$spec")" < "$spec"; done
seed manifest real < "$(ls "$out"/*.manifest.json)"
printf 'stagegraph slices 1\n' | seed store slices
echo '{"outputs":{"x":{"object":{"tree":"00"}}},"milliseconds":1}' | seed store result
STORE=${STAGEGRAPH_STORE:-$HOME/.cache/stagegraph}
grep -l -a '^stagegraph tree' -r "$STORE/objects" 2>/dev/null | head -5 | while read -r tree; do
	[ "$(stat -c %s "$tree")" -gt 200000 ] || seed store "$(basename "$tree")" < "$tree"
done

export GNUPGHOME="$work/gnupg"
mkdir -m 700 "$GNUPGHOME"
gpg -q --batch --passphrase '' --quick-generate-key fuzz ed25519 sign never
gpg -q --export > seed.gpg
printf 'a\n- b\n' > "$work/text"
gpg -q --batch --clearsign < "$work/text" | seed signatures clear
gpg -q --batch --armor --detach-sign < "$work/text" | seed signatures armored
gpg -q --batch --detach-sign < "$work/text" | seed signatures binary
gpg -q --export | seed signatures keyring
gpgconf --kill all
(cd "$work" && openssl req -x509 -newkey rsa:2048 -noenc -keyout ca.key -out ca.crt -subj /CN=fuzz -days 9 -addext extendedKeyUsage=codeSigning -addext basicConstraints=CA:FALSE 2>/dev/null)
openssl cms -sign -binary -noattr -md sha256 -outform DER -signer "$work/ca.crt" -inkey "$work/ca.key" -in "$work/text" | seed signatures cms
openssl pkey -in "$work/ca.key" -pubout | seed signatures public
printf '{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}]}' | seed signatures envelope
