//! Which modules and which firmware a machine needs to reach a root over the network.
//!
//! What is not known stays: folders are named that hold nothing for it, and a module that another one depends on stays wherever it is.

use std::collections::BTreeSet;

use cache::RelPath;
use globset::{Glob, GlobMatcher};

use crate::formats::initramfs::{Files, Node};
use crate::formats::modules::{self, Modules};

/// Folders of modules, below the kernel's own, that have nothing to do with a root over the network: other devices and file systems, sound
/// and radio; and the network cards of large servers, whose drivers are as large.
pub(super) const LEFT_OUT: [&str; 96] = [
    "drivers/ata",
    "drivers/block",
    "drivers/cdrom",
    "drivers/crypto",
    "drivers/firewire",
    "drivers/gpu",
    "drivers/hid",
    "drivers/infiniband",
    "drivers/md",
    "drivers/media",
    "drivers/memstick",
    "drivers/message",
    "drivers/mmc",
    "drivers/mtd",
    "drivers/net/bonding",
    "drivers/net/can",
    "drivers/net/ethernet/brocade",
    "drivers/net/ethernet/broadcom/bnx2x",
    "drivers/net/ethernet/cavium",
    "drivers/net/ethernet/chelsio",
    "drivers/net/ethernet/emulex",
    "drivers/net/ethernet/fungible",
    "drivers/net/ethernet/huawei",
    "drivers/net/ethernet/intel/fm10k",
    "drivers/net/ethernet/intel/i40e",
    "drivers/net/ethernet/intel/ice",
    "drivers/net/ethernet/mellanox",
    "drivers/net/ethernet/myricom",
    "drivers/net/ethernet/neterion",
    "drivers/net/ethernet/netronome",
    "drivers/net/ethernet/pensando",
    "drivers/net/ethernet/qlogic",
    "drivers/net/ethernet/sfc",
    "drivers/net/ethernet/tehuti",
    "drivers/net/fddi",
    "drivers/net/hippi",
    "drivers/net/team",
    "drivers/net/wireless",
    "drivers/net/wwan",
    "drivers/nvme",
    "drivers/parport",
    "drivers/pcmcia",
    "drivers/scsi",
    "drivers/staging",
    "drivers/target",
    "drivers/ufs",
    "drivers/uio",
    "drivers/usb/storage",
    "drivers/usb/typec",
    "drivers/watchdog",
    "fs/9p",
    "fs/adfs",
    "fs/affs",
    "fs/afs",
    "fs/bcachefs",
    "fs/befs",
    "fs/bfs",
    "fs/btrfs",
    "fs/ceph",
    "fs/coda",
    "fs/dlm",
    "fs/ecryptfs",
    "fs/efs",
    "fs/erofs",
    "fs/exfat",
    "fs/ext4",
    "fs/f2fs",
    "fs/fat",
    "fs/gfs2",
    "fs/hfs",
    "fs/hfsplus",
    "fs/jbd2",
    "fs/jffs2",
    "fs/jfs",
    "fs/minix",
    "fs/nfsd",
    "fs/nilfs2",
    "fs/nls",
    "fs/ntfs",
    "fs/ntfs3",
    "fs/ocfs2",
    "fs/orangefs",
    "fs/reiserfs",
    "fs/romfs",
    "fs/smb",
    "fs/ubifs",
    "fs/udf",
    "fs/ufs",
    "fs/xfs",
    "net/9p",
    "net/bluetooth",
    "net/ceph",
    "net/mac80211",
    "net/sunrpc/xprtrdma",
    "net/wireless",
    "sound",
];

/// Modules that stay wherever they are: what a live root is mounted and checked with, and a keyboard.
pub(super) const STAYS: [&str; 7] =
    ["dm-mod", "dm-snapshot", "dm-verity", "hid", "hid-generic", "loop", "usbhid"];

/// Where firmware is.
const FIRMWARE: &str = "lib/firmware/";

/// What stands in front of the name of a firmware in a module (`MODULE_FIRMWARE` of `linux/module.h`).
const ASKS: &[u8] = b"firmware=";

/// How firmware may be compressed (`firmware_loader/main.c`).
const PACKED: [&str; 3] = ["", ".xz", ".zst"];

/// Tells whether a path is that of firmware.
pub(super) fn is_firmware(path: &str) -> bool {
    modules::plain(path).starts_with(FIRMWARE)
}

/// What stays of an initramfs.
#[derive(Debug)]
pub(super) struct Kept {
    /// The paths of modules that go.
    left_out: BTreeSet<String>,
    /// The names of firmware that is asked for, and patterns of them.
    asked: BTreeSet<String>,
    patterns: Vec<GlobMatcher>,
    /// Whether something is asked for that cannot be read.
    is_open: bool,
    /// The paths of firmware that stays; nothing where all of it does.
    firmware: Option<BTreeSet<RelPath>>,
}

/// Returns where an entry of that name is once everything is unpacked.
fn real(files: &Files, name: &str) -> Option<RelPath> {
    files.resolve(name.trim_start_matches('/'))
}

impl Kept {
    /// Has all modules stay that are in no folder of `left_out`, those that `stays` names, and what they depend on.
    pub(super) fn new(files: &Files, modules: &Modules, left_out: &[String], stays: &[String]) -> Self {
        let there: BTreeSet<String> = files
            .iter()
            .map(|(path, _)| path.to_string())
            .filter(|path| modules::is_module(path))
            .map(|path| modules::plain(&path).to_owned())
            .collect();
        let is_below = |path: &str| {
            // lib/modules/RELEASE/kernel/FOLDER/…; what is beside the kernel's own was put there by somebody.
            let parts: Vec<&str> = path.splitn(5, '/').collect();
            let [_, _, _, "kernel", below] = parts[..] else { return false };
            let is_in =
                |folder: &String| below.strip_prefix(folder.as_str()).is_some_and(|r| r.starts_with('/'));
            left_out.iter().any(is_in)
        };
        let is_named = |path: &str| modules::name(path).is_some_and(|name| stays.contains(&name));
        let start = there.iter().map(String::as_str).filter(|path| is_named(path) || !is_below(path));
        let kept = modules.with_dependencies(start, &there);
        let left_out = there.difference(&kept).cloned().collect();
        Self { left_out, asked: BTreeSet::new(), patterns: Vec::new(), is_open: false, firmware: None }
    }

    /// Tells whether the entry of a module stays.
    fn has_module(&self, files: &Files, name: &str) -> bool {
        let path = real(files, name).map_or_else(|| name.to_owned(), |path| path.to_string());
        !self.left_out.contains(modules::plain(&path))
    }

    /// Tells whether an entry is a module that stays.
    pub(super) fn is_kept_module(&self, files: &Files, name: &str) -> bool {
        modules::is_module(name) && self.has_module(files, name)
    }

    /// Takes from a module's bytes, or from the list of those that are in the kernel, which firmware is asked for.
    pub(super) fn asks(&mut self, bytes: &[u8]) {
        for at in memchr::memmem::find_iter(bytes, ASKS) {
            // Of a word of its own, or of a name with a dot: `module.firmware=`.
            let is_word = at.checked_sub(1).is_none_or(|before| matches!(bytes[before], 0 | b'.'));
            let rest = &bytes[at + ASKS.len()..];
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            let Some(name) =
                std::str::from_utf8(&rest[..end]).ok().filter(|name| is_word && !name.is_empty())
            else {
                continue;
            };
            match name.contains(['*', '?', '[']).then(|| Glob::new(name)) {
                None => drop(self.asked.insert(name.to_owned())),
                Some(Ok(pattern)) => self.patterns.push(pattern.compile_matcher()),
                Some(Err(_)) => self.is_open = true,
            }
        }
    }

    /// Has the firmware stay that was asked for, of each place where the kernel looks for it, and what links lead to.
    pub(super) fn choose_firmware(&mut self, files: &Files, releases: &BTreeSet<String>) {
        let places = || {
            let own =
                releases.iter().flat_map(|release| [format!("updates/{release}/"), format!("{release}/")]);
            own.chain(["updates/".to_owned(), String::new()])
        };
        let mut stays = BTreeSet::new();
        for name in &self.asked {
            for (place, packed) in places().flat_map(|place| PACKED.map(|packed| (place.clone(), packed))) {
                for top in ["", "usr/"] {
                    stays.extend(files.resolve(&format!("{top}{FIRMWARE}{place}{name}{packed}")));
                }
            }
        }
        for (path, _) in files.iter() {
            let path = path.to_string();
            let Some(below) = modules::plain(&path).strip_prefix(FIRMWARE) else { continue };
            let names = places().filter_map(|place| below.strip_prefix(&place).map(str::to_owned));
            let is_asked = |name: String| {
                let bare = PACKED[1..].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
                self.patterns.iter().any(|pattern| pattern.is_match(bare))
            };
            if names.into_iter().any(is_asked) {
                stays.extend(files.resolve(&path));
            }
        }
        self.firmware = Some(stays).filter(|_| !self.is_open);
    }

    /// Tells whether an entry stays. Folders and links do: they take no room, and something may lie behind them.
    pub(super) fn has(&self, files: &Files, name: &str) -> bool {
        if is_firmware(name) {
            let Some(firmware) = &self.firmware else { return true };
            let at = real(files, name);
            let is_file =
                at.as_ref().and_then(|at| files.get(at)).is_some_and(|made| made.node == Node::File);
            return !is_file || at.is_some_and(|at| firmware.contains(&at));
        }
        self.has_module(files, name)
    }

    /// Returns the names of the drivers of network cards that went.
    pub(super) fn without_drivers(&self) -> Vec<String> {
        let of_cards = self.left_out.iter().filter(|path| path.contains("/kernel/drivers/net/"));
        of_cards.filter_map(|path| modules::name(path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/drivers/net/ethernet/mellanox/mlx5/core/mlx5_core.ko: kernel/net/psample/psample.ko\n\
        kernel/drivers/virtio/virtio_scsi_like.ko: kernel/drivers/scsi/scsi_mod.ko\n\
        kernel/drivers/scsi/scsi_mod.ko: kernel/drivers/scsi/scsi_common.ko\n";

    const MODULES: [&str; 12] = [
        "drivers/md/dm-mod.ko.xz",
        "drivers/md/raid456.ko",
        "drivers/net/ethernet/intel/e1000/e1000.ko",
        "drivers/net/ethernet/mellanox/mlx5/core/mlx5_core.ko",
        "drivers/net/wireless/ath/ath.ko",
        "drivers/nobody/knows.ko",
        "drivers/scsi/scsi_common.ko",
        "drivers/scsi/scsi_mod.ko",
        "drivers/scsi/sd_mod.ko",
        "drivers/scsixyz/x.ko",
        "drivers/virtio/virtio_scsi_like.ko",
        "net/psample/psample.ko",
    ];

    /// What was put beside the kernel's own.
    const BESIDE: &str = "usr/lib/modules/6.1/updates/drivers/net/ethernet/intel/ice/ice.ko";

    fn files(more: &[(&str, Option<&str>)]) -> Files {
        let mut files = Files::default();
        let modules = MODULES.map(|path| format!("usr/lib/modules/6.1/kernel/{path}"));
        let all = modules.iter().map(|path| (path.as_str(), None)).chain(more.iter().copied());
        for (path, link) in all.collect::<Vec<_>>() {
            for (at, _) in path.match_indices('/') {
                files.add(&path[..at], Node::Folder, true, 0);
            }
            let node = link.map_or(Node::File, |target| Node::Link(target.as_bytes().to_vec()));
            files.add(path, node, false, 0).unwrap_or_else(|| panic!("{path}"));
        }
        files
    }

    fn kept(files: &Files) -> Kept {
        let mut modules = Modules::default();
        modules.add("usr/lib/modules/6.1/modules.dep", DEPENDENCIES);
        Kept::new(files, &modules, &LEFT_OUT.map(str::to_owned), &STAYS.map(str::to_owned))
    }

    #[test]
    fn a_module_stays_that_another_one_depends_on() {
        let files = files(&[("lib", Some("usr/lib")), (BESIDE, None)]);
        let kept = kept(&files);
        assert!(kept.has(&files, BESIDE));
        let goes = [
            "drivers/md/raid456.ko",
            "drivers/net/ethernet/mellanox/mlx5/core/mlx5_core.ko",
            "drivers/net/wireless/ath/ath.ko",
            "drivers/scsi/sd_mod.ko",
        ];
        for path in MODULES {
            for top in ["usr/lib", "lib"] {
                let entry = format!("{top}/modules/6.1/kernel/{path}");
                assert_eq!(kept.has(&files, &entry), !goes.contains(&path), "{entry}");
            }
        }
        assert_eq!(kept.without_drivers(), ["mlx5-core", "ath"]);
        assert!(kept.has(&files, "usr/bin/bash") && kept.has(&files, "usr/lib/modules/6.1/modules.dep"));
    }

    #[test]
    fn firmware_stays_that_a_module_asks_for_wherever_it_is() {
        let files = files(&[
            ("usr/lib/firmware/rtl_nic/a.fw.xz", None),
            ("usr/lib/firmware/rtl_nic/other.fw", None),
            ("usr/lib/firmware/tigon/tg3_tso.bin", None),
            ("usr/lib/firmware/link.fw", Some("/usr/lib/firmware/real.fw")),
            ("usr/lib/firmware/real.fw", None),
            ("usr/lib/firmware/deep/real", None),
            ("usr/lib/firmware/there", Some("deep")),
            ("usr/lib/firmware/updates/6.1/new.fw", None),
            ("usr/lib/firmware/6.1/old.fw", None),
            ("usr/lib/firmware/built/in.fw", None),
            ("usr/lib/firmware/amdgpu/a.bin", None),
        ]);
        let mut kept = kept(&files);
        kept.asks(
            b"license=GPL\0firmware=rtl_nic/a.fw\0firmware=tigon/tg3?*.bin\0notfirmware=amdgpu/a.bin\0",
        );
        kept.asks(b"firmware=link.fw\0firmware=there/real\0firmware=new.fw\0firmware=old.fw\0driver.firmware=built/in.fw\0");
        assert!(kept.has(&files, "usr/lib/firmware/amdgpu/a.bin"), "before anything is chosen, all stays");
        kept.choose_firmware(&files, &BTreeSet::from(["6.1".to_owned()]));
        let goes = ["usr/lib/firmware/rtl_nic/other.fw", "usr/lib/firmware/amdgpu/a.bin"];
        for (path, _) in files.iter() {
            let path = path.to_string();
            if path.starts_with("usr/lib/firmware/") {
                assert_eq!(kept.has(&files, &path), !goes.contains(&path.as_str()), "{path}");
            }
        }
    }
}
