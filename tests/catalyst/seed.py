"""Makes seeds: what catalyst begins with, a root with Gentoo's commands, which are stand-ins here.

The small one is busybox and bash: catalyst is done with it in seconds. The other is the root, the kernel and dracut's
initramfs of an image that stagegraph built, so that what catalyst makes of it boots.
"""
import os
import pathlib
import random
import shutil
import stat
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
COMMANDS = ("emerge portageq equery dracut genkernel getent env-update rc-update eselect gcc-config binutils-config "
            "groupadd useradd").split()
RELEASE = "6.12.31-gentoo-dist"


def run(*words, **options):
    return subprocess.run([str(word) for word in words], check=True, **options)


def write(path, content, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def add_gentoo(root, names, kernel, release, initramfs, genkernel):
    """Puts Gentoo's commands and files into a root, and a kernel for them to install."""
    for name in names:
        path = root / "usr/bin" / name
        path.unlink(missing_ok=True)
        shutil.copy(HERE / "gentoo", path)
        path.chmod(0o755)
    seed = root / "usr/lib/seed"
    write(seed / "release", release + "\n")
    write(seed / "config", "CONFIG_SQUASHFS=y\n")
    write(seed / "System.map", "0000000000000000 A nothing\n")
    write(seed / "kernel", kernel)
    write(seed / "initramfs", initramfs)
    write(seed / "initramfs-genkernel", genkernel)
    for folder in ("etc/conf.d etc/init.d etc/modprobe.d etc/portage etc/kernel/install.d etc/runlevels/default etc/env.d "
                   "usr/share/applications usr/share/zoneinfo usr/src var/cache var/log boot").split():
        (root / folder).mkdir(parents=True, exist_ok=True)
    zone = root / "usr/share/zoneinfo/UTC"
    if not zone.exists():
        zone.write_text("UTC0\n")
    write(root / "etc/portage/make.conf", 'COMMON_FLAGS="-O2 -pipe"\nCHOST="x86_64-pc-linux-gnu"\n')
    for name, line in (("passwd", "portage:x:250:250::/var/tmp/portage:/bin/false"), ("group", "portage:x:250:")):
        path = root / "etc" / name
        if "\nportage:" not in path.read_text():
            with path.open("a") as file:
                file.write(line + "\n")


def initramfs(files):
    """Returns an initramfs with these files, which tell who made it; nothing in it runs."""
    folder = pathlib.Path(run("mktemp", "-d", capture_output=True, text=True).stdout.strip())
    for name, content in files.items():
        write(folder / name, content)
    packed = run("sh", "-c", f"cd {folder} && find . -exec touch -hd @0 {{}} + && find . | LC_ALL=C sort | "
                 "cpio --quiet --reproducible -R 0:0 -o -H newc | xz --check=crc32", capture_output=True).stdout
    shutil.rmtree(folder)
    return packed


GENKERNEL = {"etc/initrd.scripts": "", "etc/initrd.defaults": ""}


def pack(root, seed):
    # The name that tar gives a sparse file's header has tar's own PID in it.
    run("unshare", "-pf", "tar", "--xattrs", "--xattrs-include=*", "--sort=name", "--numeric-owner", "--mtime=@1700000000",
        "--format=posix", "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime", "-S",
        "-cf", seed, "-C", root, ".")


def libraries(program):
    for line in run("ldd", program, capture_output=True, text=True).stdout.splitlines():
        yield from (word for word in line.split() if word.startswith("/"))


def small(seed, work):
    """A root of busybox and bash, with the files that image builders lose."""
    root = work / "small-root"
    shutil.rmtree(root, ignore_errors=True)
    for folder in "usr/bin usr/sbin usr/lib usr/lib64 dev etc home mnt proc root run sys tmp var/tmp var/db opt".split():
        (root / folder).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to("usr/" + name)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    write(root / "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    write(root / "etc/group", "root:x:0:\nusers:x:100:\n")
    write(root / "etc/hosts", "127.0.0.1 localhost\n")
    write(root / "etc/localtime", "UTC0\n")
    write(root / "etc/profile", "export PATH=/usr/sbin:/usr/bin\n")
    write(root / "etc/os-release", "ID=gentoo\n")
    shutil.copy("/usr/bin/busybox", root / "usr/bin/busybox")
    own = ("busybox", "bash", "tar", "bzip2")
    for name in run("busybox", "--list", capture_output=True, text=True).stdout.split():
        if name not in own:
            (root / "usr/bin" / name).symlink_to("busybox")
    for name in ("bash", "tar", "bzip2"):
        program = os.path.realpath(shutil.which(name))
        shutil.copy(program, root / "usr/bin" / name)
        for library in libraries(program):
            folder = "usr/lib64" if "ld-linux" in library else "usr/lib"
            shutil.copy(os.path.realpath(library), root / folder / os.path.basename(library))
    write(root / "etc/ld.so.conf", "/usr/lib\n")
    rare = root / "opt/rare"
    write(rare / "capable", "x", 0o755)
    run("setcap", "cap_net_raw+ep", rare / "capable")
    write(rare / "one", "linked")
    os.link(rare / "one", rare / "other")
    write(rare / "setuid", "x", 0o4755)
    os.mknod(rare / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    write(rare / "noise", random.Random(1).randbytes(4 << 20))
    # A kernel's header, as far as it is read: its length, its signature, its version.
    kernel = bytearray(random.Random(2).randbytes(1 << 20))
    kernel[0x1F1] = 31
    kernel[0x1F4:0x1F8] = ((len(kernel) - (31 + 1) * 512) // 16).to_bytes(4, "little")
    kernel[0x1FE:0x210] = b"\x55\xaa\xeb\x66HdrS\x0f\x02" + bytes(4) + (0x1000).to_bytes(2, "little") + bytes(2)
    kernel[0x1200:0x1200 + len(RELEASE) + 1] = RELEASE.encode() + b"\0"
    dracut = {"usr/lib/dracut/modules.txt": "dmsquash-live\nlivenet\n", f"usr/lib/modules/{RELEASE}/modules.dep": ""}
    add_gentoo(root, COMMANDS + ["install"], bytes(kernel), RELEASE, initramfs(dracut), initramfs(GENKERNEL))
    pack(root, seed)


def bootable(seed, work, image):
    """The root, kernel and initramfs of a published image."""
    root = work / "boot-root"
    shutil.rmtree(root, ignore_errors=True)
    netboot = pathlib.Path(image) / "netboot"
    run("unsquashfs", "-n", "-q", "-d", root, netboot / "image.squashfs")
    # catalyst writes it; here it leads to where nothing is yet.
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    kernel = next(netboot.glob("*.vmlinuz"))
    release = next((root / "usr/lib/modules").iterdir()).name
    initrd = kernel.with_suffix(".initrd").read_bytes()
    # The modules are in the initramfs and in the root; catalyst packs them once more, with bzip2.
    commands = [name for name in COMMANDS if name not in ("getent", "groupadd", "useradd")]
    add_gentoo(root, commands, kernel.read_bytes(), release, initrd, initramfs(GENKERNEL))
    pack(root, seed)
