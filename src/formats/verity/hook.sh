# Has the kernel check each block of the live squashfs when it is read (dm-verity). dracut runs this when it has mounted the squashfs,
# and before anything is mounted over it. What does not fit, or is damaged, ends the boot: nothing goes on unchecked.

stagegraph_verity() {
    local image= blocks= root= key value base=/run/rootfsbase device= place rest backing data tree number size
    while IFS='=' read -r key value; do
        case $key in
        image) image=$value ;;
        blocks) blocks=$value ;;
        root) root=$value ;;
        esac
    done < /etc/stagegraph/verity

    while read -r value place rest; do
        [ "$place" = "$base" ] && device=$value
    done < /proc/mounts
    if [ -z "$device" ]; then
        case $(getarg root=) in
        live:*) die "stagegraph: the squashfs of $image is not mounted at $base: it cannot be checked" ;;
        esac
        warn "stagegraph: the root is not the live image: nothing is checked"
        return 0
    fi

    # The kernel gives nobody a device that is mounted: the same file gets a second one.
    backing=$device
    if [ -e "/sys/block/${device##*/}/loop/backing_file" ]; then
        read -r backing < "/sys/block/${device##*/}/loop/backing_file"
    fi
    [ -e "$backing" ] || die "stagegraph: $backing, which $base is mounted from, is gone: it cannot be checked"
    modprobe loop 2> /dev/null
    modprobe dm-verity 2> /dev/null
    data=$(losetup -f) && losetup -r "$data" "$backing" \
        || die "stagegraph: $backing cannot be read as a device: it cannot be checked"
    tree=$(losetup -f) && losetup -r "$tree" /etc/stagegraph/verity.tree \
        || die "stagegraph: there is no device for the hash tree of $image"
    read -r size < "/sys/block/${data##*/}/size"
    if [ "$size" -lt $((blocks * 8)) ] || { [ -f "$backing" ] && [ "$size" -ne $((blocks * 8)) ]; }; then
        die "stagegraph: $backing has $((size / 2)) KiB, and the squashfs of $image has $((blocks * 4)): is it of another build?"
    fi

    # No waiting for udev: the kernel itself makes the node.
    dmsetup create --noudevsync --readonly stagegraph-root \
        --table "0 $((blocks * 8)) verity 1 $data $tree 4096 4096 $blocks 1 sha256 $root -" > /dev/null \
        || die "stagegraph: the kernel refused to check $backing (dm-verity): it has no such target, or the hash tree is damaged"
    for number in /sys/block/dm-*; do
        read -r value < "$number/dm/name"
        [ "$value" = stagegraph-root ] && device=/dev/${number##*/}
    done
    if getargbool 0 stagegraph.verify.full; then
        info "stagegraph: reading all of $backing"
        cat "$device" > /dev/null || die "stagegraph: $backing is damaged, or is not the squashfs of $image"
    fi
    umount "$base" || die "stagegraph: $base cannot be unmounted: it cannot be checked"
    mount -r -t squashfs "$device" "$base" \
        || die "stagegraph: $backing is damaged, or is not the squashfs of $image: is it of another build?"
    info "stagegraph: each block of $backing is checked when it is read"
}

stagegraph_verity
