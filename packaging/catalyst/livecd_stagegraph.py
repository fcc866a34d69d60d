"""
LiveCD stagegraph target, builds upon previous LiveCD stage1 tarball
"""
# NOTE: That^^ docstring has influence catalyst-spec(5) man page generation.
#
# Everything up to the cleaned chroot is livecd-stage2's. Then one call of `stagegraph catalyst finish` packs the root,
# the ISO and the netboot set of the same kernel, initrd and squashfs. It works on catalyst 4.0.1, 4.1 and master.

import json
import os
import re
import shutil
import subprocess
import tempfile

import tomli

from catalyst import log
from catalyst.base.stagebase import StageBase
from catalyst.fileops import clear_dir, clear_path
from catalyst.support import CatalystError, cmd, normpath
from catalyst.targets.livecd_stage2 import livecd_stage2

try:
    from catalyst.version import get_version
except ImportError:
    def get_version():
        return "unknown"


# What is put beside the chroot: the request, and what became of it.
REQUEST = ".stagegraph-request.json"
RESULT = ".stagegraph-result.json"


def is_distkernel(settings, name):
    """Tell whether a kernel comes with dracut's initramfs."""
    return settings.get("boot/kernel/" + name + "/distkernel") == "yes"


def words(value):
    """Return the words of a setting, which may be a text or a list."""
    if value is None:
        return []
    return value.split() if isinstance(value, str) else [str(word) for word in value]


def write(path, request):
    """Write a request."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(request, file, indent=2)
        file.write("\n")


class livecd_stagegraph(livecd_stage2):
    """
    Builder class for a LiveCD stage2 build that also publishes a netboot set.
    """
    required_values = livecd_stage2.required_values | frozenset([
        "livecd/iso",
    ])
    valid_values = livecd_stage2.valid_values | required_values | frozenset([
        "livecd/iso_extra_partition",
        "livecd/netboot",
        "livecd/stagegraph",
        "livecd/stagegraph_request",
        "livecd/stagegraph_set",
        "livecd/stagegraph_store",
    ])

    def __init__(self, spec, addlargs):
        for name in words(addlargs.get("boot/kernel")):
            # Its keys become variables of shell scripts.
            if not re.fullmatch("[A-Za-z0-9_]+", name):
                raise CatalystError("boot/kernel: %r has more than letters, digits and underscores in it, and "
                                    "catalyst's scripts lose its settings" % name)
        # Left to catalyst, these would be entries with the arguments of genkernel's initramfs.
        self.consoles = {}
        for name in words(addlargs.get("boot/kernel")):
            key = "boot/kernel/" + name
            given = words(addlargs.get(key + "/console"))
            if is_distkernel(addlargs, name):
                addlargs.pop(key + "/console", None)
            self.consoles[name] = given
        livecd_stage2.__init__(self, spec, addlargs)
        # catalyst's scripts look for the kernel's image by the one, which nothing sets, and choose the medium's menu by
        # the other, which is set to the subarch: one such as nocona has no menu then.
        self.settings["basearch"] = self.settings["hostarch"] = self.arch()
        if not {"purgeonly", "purgetmponly", "fetch"} & set(self.settings["options"]):
            self.check()

    def check(self):
        """Let stagegraph refuse now what it would refuse when the chroot is done, hours later."""
        for size in words(self.settings.get("livecd/iso_extra_partition"))[:1]:
            if not (size.isascii() and size.isdigit()):
                raise CatalystError("livecd/iso_extra_partition: %s is no number of KiB" % size)
        if self.settings.get("livecd/stagegraph_request"):
            # Whoever asks for the request has checked it, or will.
            return
        with tempfile.TemporaryDirectory(prefix="stagegraph-") as folder:
            request = self.request()
            request["result"] = folder + "/result.json"
            path = folder + "/request.json"
            write(path, request)
            call = [self.program(), "catalyst", "finish", "--check", "--request", path]
            try:
                done = subprocess.run(call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      env=self.env, check=False)
            except OSError as error:
                raise CatalystError("%s cannot be run: %s" % (call[0], error)) from error
            said = done.stdout.decode("utf-8", "replace").strip()
            if done.returncode == 1 and not said:
                # No stagegraph ends like this. What it is will be seen when it is to pack.
                log.warning("%s does not say whether it can do what this spec asks for", call[0])
                return
            if done.returncode:
                raise CatalystError("%s refuses this spec, before anything is built:\n%s"
                                    % (call[0], said or "it ended with %d" % done.returncode))
            try:
                with open(request["result"], encoding="utf-8") as file:
                    understood = json.load(file)["schema"] == request["schema"]
            except (OSError, ValueError, KeyError, TypeError):
                understood = False
            if not understood:
                raise CatalystError("%s is not the stagegraph that this target came with; install both again: "
                                    "stagegraph catalyst install" % call[0])

    def clean(self):
        # catalyst removes what emulates the machine once, and fails at it when the build is resumed.
        for name in words(self.settings.get("interpreter")):
            path = normpath(self.settings["chroot_path"] + "/" + name)
            if not os.path.exists(path) and not os.path.exists(path + ".catalyst"):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb"):
                    pass
        livecd_stage2.clean(self)

    def arch(self):
        """Return the architecture, by Gentoo's name, of a subarch such as nocona."""
        folder = self.settings["sharedir"] + "/arch/"
        for name in sorted(os.listdir(folder)):
            if name.endswith(".toml"):
                with open(folder + name, "rb") as file:
                    for arch, subarches in tomli.load(file).items():
                        if arch != "setarch" and self.settings["subarch"] in subarches:
                            return arch
        return self.settings["subarch"]

    def set_controller_file(self):
        """Use livecd-stage2's controller: this target brings none."""
        self.settings["controller_file"] = normpath(
            self.settings["sharedir"] + "/targets/livecd-stage2/controller.sh")

    def set_target_path(self):
        """Set the folder of the medium's files, and leave alone what is in it.

        livecd-stage2 empties it here, whatever is to be done: a resumed build
        then lacks its kernels, and --purgetmponly removes a finished one. It is
        emptied where it is filled: see bootloader().
        """
        StageBase.set_target_path(self)
        os.makedirs(self.settings["target_path"], exist_ok=True)

    def set_pkgcache_path(self):
        self.with_subpaths_of_stage2(livecd_stage2.set_pkgcache_path)

    def set_kerncache_path(self):
        self.with_subpaths_of_stage2(livecd_stage2.set_kerncache_path)

    def with_subpaths_of_stage2(self, method):
        """Let a method set a path that livecd-stage2 would set: its caches are used and filled."""
        names = ("target_subpath", "target_subpath_unversioned")
        own = {name: self.settings[name] for name in names}
        for name in names:
            self.settings[name] = own[name].replace("/" + self.settings["target"] + "-", "/livecd-stage2-")
        method(self)
        self.settings.update(own)

    def set_iso_volume_id(self):
        """Set the volume id, by which an initramfs may find the medium."""
        given = words(self.settings.get(self.settings["spec_prefix"] + "/volid"))
        if not given:
            # A name may stand in front of the date: plasma-20260101T000000Z.
            day = self.settings["version_stamp"].rsplit("-", 1)[-1][:8]
            given = ["Gentoo-%s-%s" % (self.settings["subarch"], day)]
            log.notice("no livecd/volid: the volume id is %s", given[0])
        self.settings["iso_volume_id"] = " ".join(given)

    def set_action_sequence(self):
        livecd_stage2.set_action_sequence(self)
        # The image, the ISO and a tarball of the chroot nobody needs: one call makes what is published.
        replaced = (self.target_setup, self.create_iso, self.capture)
        sequence = [action for action in self.finish_sequence if action not in replaced]
        if "fetch" not in self.settings["options"]:
            sequence.insert(sequence.index(self.setup_overlay) + 1, self.stagegraph)
        self.finish_sequence[:] = sequence

    def bootloader(self):
        if not ("autoresume" in self.settings["options"] and self.resume.is_enabled("bootloader")):
            clear_dir(self.settings["target_path"])
        livecd_stage2.bootloader(self)

    def _copy_kernel_config(self, kname):
        # A second distkernel finds the first one's configuration there, and catalyst stops at it.
        if is_distkernel(self.settings, kname):
            clear_path(self.settings["chroot_path"] + "/etc/kernel/config.d")
        livecd_stage2._copy_kernel_config(self, kname)

    def program(self):
        """Find stagegraph: by the spec, by $STAGEGRAPH, on the search path."""
        named = self.settings.get("livecd/stagegraph") or os.environ.get("STAGEGRAPH")
        if not isinstance(named, (str, type(None))):
            raise CatalystError("livecd/stagegraph is %r: it is one path" % " ".join(named))
        found = shutil.which(named or "stagegraph")
        if not found:
            raise CatalystError("%s is not there; name it with livecd/stagegraph or $STAGEGRAPH, or install it"
                                % (named or "stagegraph"))
        return os.path.abspath(found)

    def kernels(self):
        kernels = []
        for name in words(self.settings["boot/kernel"]):
            kernels.append({
                "name": name,
                "family": "dracut" if is_distkernel(self.settings, name) else "genkernel",
                "consoles": self.consoles[name],
            })
        return kernels

    def work(self):
        """Return the path that the names of our own files begin with."""
        return str(self.settings["chroot_path"]).rstrip("/")

    def request(self):
        """Return what stagegraph is asked for."""
        extra = words(self.settings.get("livecd/iso_extra_partition"))
        image = {
            "iso": self.settings["iso"],
            "volume_id": self.settings["iso_volume_id"],
            "arch": self.settings["basearch"],
            "interpreter": " ".join(words(self.settings.get("interpreter"))) or None,
            "fstype": self.settings.get("fstype") or "squashfs",
            "fsops": words(self.settings.get("fsops")),
            "verify": bool(self.settings.get("livecd/verify")),
            "extra_partition_kib": int(extra[0]) if extra else None,
            "bootargs": words(self.settings.get("livecd/bootargs")),
            "kernels": self.kernels(),
            "netboot": words(self.settings.get("livecd/netboot", "ipxe")),
            "digests": sorted(self.settings.get("digests", ["blake2b", "sha512"])),
            "digest_format": self.settings.get("digest_format", "linux"),
            "version_stamp": self.settings["version_stamp"],
        }
        store = words(self.settings.get("livecd/stagegraph_store"))
        if len(store) > 1 or not all(os.path.isabs(path) for path in store):
            raise CatalystError("livecd/stagegraph_store is %r: it is one absolute path" % " ".join(store))
        return {
            "schema": 1,
            "catalyst": str(get_version()),
            "stage_path": self.settings["stage_path"].rstrip("/"),
            "iso_root": self.settings["target_path"].rstrip("/"),
            "image": image,
            "store": store[0] if store else normpath(self.settings["storedir"] + "/stagegraph"),
            "set": words(self.settings.get("livecd/stagegraph_set")),
            "result": self.work() + RESULT,
        }

    def stagegraph(self):
        """Pack the chroot, and publish ISO, netboot set and digests."""
        request = self.request()
        asked = self.settings.get("livecd/stagegraph_request")
        path = asked or self.work() + REQUEST
        write(path, request)
        if asked:
            log.notice("Nothing is packed: the request is %s", path)
            return
        log.notice("Packing with stagegraph: %s", path)
        if os.path.exists(request["result"]):
            os.remove(request["result"])
        try:
            cmd([self.program(), "catalyst", "finish", "--request", path], env=self.env)
        except CatalystError:
            # What a program prints is not in catalyst's own log.
            if os.path.exists(request["result"]):
                with open(request["result"], encoding="utf-8") as file:
                    log.error("%s", json.load(file).get("error"))
            raise
        with open(request["result"], encoding="utf-8") as file:
            for output in json.load(file)["outputs"]:
                log.notice("published %s", output["path"])
        if "keepwork" not in self.settings["options"]:
            self.remove_own_files()

    def remove_own_files(self):
        for name in (REQUEST, RESULT):
            if os.path.exists(self.work() + name):
                os.remove(self.work() + name)

    def purge(self):
        livecd_stage2.purge(self)
        self.remove_own_files()
