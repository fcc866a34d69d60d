//! What is to be made of catalyst's work, and the spec that stands for it.

use std::path::PathBuf;

use serde::Deserialize;

pub use super::error::WantedError;
use super::error::wrong;
use super::fsops;
use crate::arch::{Arch, Platform};
use crate::formats::checksums::Algorithm;
use crate::formats::initramfs::Family;
use crate::image::LEAST_PARTITION_KIB;
use crate::image::Timestamp;

/// Where a root has GRUB's modules, in a folder for each platform.
const MODULES: &str = "usr/lib/grub";

/// What is to be made of catalyst's work.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The ISO to publish; other files go beside it.
    pub iso: PathBuf,
    /// The ISO's volume id.
    pub volume_id: String,
    /// The architecture, by Gentoo's name: `amd64` for a `subarch` of `nocona` too.
    pub arch: String,
    /// The program that runs that machine's programs here, where it is another machine: to stagegraph it does not matter, which runs none.
    pub interpreter: Option<String>,
    /// The root that catalyst made, where it is there already.
    #[serde(skip)]
    pub root: Option<PathBuf>,
    /// The kind of file system; only squashfs is known.
    pub fstype: String,
    /// Words for gensquashfs.
    pub fsops: Vec<String>,
    /// Whether the medium carries checksums of its files.
    pub verify: bool,
    /// KiB of a partition behind the ISO.
    pub extra_partition_kib: Option<u64>,
    /// Kernel arguments in front of all others.
    pub bootargs: Vec<String>,
    /// The kernels, by catalyst's names.
    pub kernels: Vec<Kernel>,
    /// What is published: `ipxe` is kernel, initrd, squashfs and the script that boots them; with `no-iso`, nothing but
    /// that.
    pub netboot: Vec<String>,
    /// Hashes of the digest files.
    pub digests: Vec<String>,
    /// Their format: `linux` or `bsd`.
    pub digest_format: String,
    /// catalyst's version stamp, which is the one date of everything.
    pub version_stamp: String,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Its name, which is that of its file.
    pub name: String,
    /// Who made its initrd, as the spec says.
    pub family: Family,
    /// Consoles that the menu offers.
    pub consoles: Vec<String>,
}

/// Characters of `livecd/bootargs`: x86 takes lines of 2047 (`COMMAND_LINE_SIZE`).
const BOOTARGS_MAX: usize = 1600;

/// Words that say where the system is: dracut's and genkernel's, and the boot loader's.
const OWN_WORDS: [&str; 8] =
    ["root", "loop", "looptype", "initrd", "rd.live.dir", "rd.live.squashimg", "rd.live.image", "cdroot"];

/// Keys of `livecd/stagegraph_set` that catalyst's menu and its medium contradict.
const FIXED: [&str; 4] = ["image.volume_id", "image.bootargs", "publish", "image.name"];

impl Wanted {
    /// Tells whether an ISO is asked for.
    fn wants_iso(&self) -> bool {
        !self.netboot.iter().any(|word| word == "no-iso")
    }

    /// Tells whether an ISO is made.
    pub fn has_iso(&self) -> bool {
        self.wants_iso() && self.refused_iso().is_none()
    }

    /// Returns why no ISO is made, where one is asked for; the netboot set is made all the same.
    pub fn refused_iso(&self) -> Option<String> {
        let why = self.lacks_for_iso()?;
        let name = self.iso.file_name().unwrap_or_default().to_string_lossy();
        self.wants_iso().then(|| {
            format!(
                "livecd/iso: {name} cannot be made for {}: {why}; the netboot set is. With `livecd/netboot: ipxe no-iso` \
                 it is all that is asked for",
                self.arch
            )
        })
    }

    /// Returns why firmware could not start an ISO.
    fn lacks_for_iso(&self) -> Option<String> {
        let platforms: Vec<&Platform> = self.machine().into_iter().flat_map(Arch::platforms).collect();
        if platforms.is_empty() {
            return Some("GRUB's images are not made for it".to_owned());
        }
        let root = self.root.as_ref().filter(|_| self.takes_loaders_from_root())?;
        let lacks = platforms.iter().find(|platform| !root.join(MODULES).join(platform.name).is_dir())?;
        Some(format!(
            "the root has no /{MODULES}/{0}: have it install sys-boot/grub with GRUB_PLATFORMS for {0}",
            lacks.name
        ))
    }

    /// Returns whose machines boot it, as far as the name is known.
    fn machine(&self) -> Option<Arch> {
        Arch::named(&self.arch)
    }

    /// Tells whether boot loaders come from the root: those for other machines than this one are not installed here.
    fn takes_loaders_from_root(&self) -> bool {
        let builder = Arch::of_machine();
        self.machine().is_some_and(|arch| arch != builder && !(arch.is_pc() && builder.is_pc()))
    }

    /// Returns the spec that stands for this, over a node `stage2` that gives `root`, `boot`, `medium` and `packages`.
    /// `set` are the settings that will be laid over it.
    ///
    /// # Errors
    /// [`WantedError`]: something cannot be done.
    pub fn spec(&self, stage2: toml::Table, set: &[String]) -> Result<toml::Table, WantedError> {
        if self.fstype != "squashfs" {
            return Err(wrong("livecd/fstype", format!("{:?} cannot be made; squashfs can", self.fstype)));
        }
        if let Some(word) = self.netboot.iter().find(|word| !["ipxe", "no-iso"].contains(&word.as_str())) {
            return Err(wrong("livecd/netboot", format!("{word:?} is not known; ipxe and no-iso are")));
        }
        if !self.netboot.iter().any(|word| word == "ipxe") {
            return Err(wrong(
                "livecd/netboot",
                "without ipxe there is no netboot set; livecd-stage2 makes the ISO alone",
            ));
        }
        let name = self.iso.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(name) = name.strip_suffix(".iso") else {
            return Err(wrong("livecd/iso", format!("{:?} does not end in .iso", self.iso)));
        };
        let [first, ..] = &self.kernels[..] else {
            return Err(wrong("boot/kernel", "there is no kernel"));
        };
        if let Some(kernel) =
            self.kernels.iter().find(|kernel| kernel.name.to_lowercase().contains("memtest"))
        {
            let why = format!(
                "{:?} cannot be a kernel's name: by it, memory tests are told from kernels",
                kernel.name
            );
            return Err(wrong("boot/kernel", why));
        }
        self.check_lists()?;
        self.check_volume_id()?;
        self.check_bootargs()?;
        self.check_set(set)?;
        for (key, text) in [("livecd/volid", &self.volume_id), ("livecd/iso", &name.to_owned())] {
            if text.contains('@') {
                return Err(wrong(key, format!("{text:?} has a placeholder in it that nobody filled")));
            }
        }
        let has_iso = self.has_iso();
        let arch = self.machine().map(|arch| ("arch", arch.name().into()));
        let image = table(arch.into_iter().chain([
            ("name", name.into()),
            ("title", "LiveCD".into()),
            ("label", first.name.as_str().into()),
            ("volume_id", self.volume_id.as_str().into()),
            ("timestamp", self.timestamp(set)?.into()),
            ("bootargs", self.bootargs.clone().into()),
        ]));
        let families = self.kernels.iter().map(|kernel| (kernel.name.as_str(), kernel.family.name().into()));
        let families = table([("family", table(families).into())]);
        let digests =
            table([("hashes", self.digests.clone().into()), ("format", self.digest_format.as_str().into())]);
        let mut nodes = vec![
            ("stage2", stage2.into()),
            ("kernel", families.clone().into()),
            ("initrd", families.into()),
            ("squashfs", fsops::settings(&self.fsops)?.into()),
            ("digests", digests.into()),
        ];
        if has_iso {
            nodes.push(("iso", self.medium()?.into()));
            if self.takes_loaders_from_root() {
                let input = table([("loaders", "stage2.root".into())]);
                nodes.push(("grub", table([("input", input.into())]).into()));
            }
        }
        let base = if has_iso { "catalyst" } else { "catalyst-netboot" };
        Ok(table([("extends", base.into()), ("image", image.into()), ("node", table(nodes).into())]))
    }

    /// Refuses hashes and formats that no lists are made with.
    fn check_lists(&self) -> Result<(), WantedError> {
        if let Some(name) = self.digests.iter().find(|name| Algorithm::of_lists(name).is_none()) {
            let why =
                format!("{name:?} is not a hash for digests; blake2b, sha512 and sha256 are (catalyst.conf)");
            return Err(wrong("digests", why));
        }
        if !["linux", "bsd"].contains(&self.digest_format.as_str()) {
            let why = format!("catalyst.conf says {:?}; linux and bsd are known", self.digest_format);
            return Err(wrong("digest_format", why));
        }
        Ok(())
    }

    /// Refuses a volume id by which dracut would not find the medium: as catalyst writes its command line, it ends at a
    /// blank. genkernel's initramfs looks into every device, and without an ISO there is nothing to find.
    fn check_volume_id(&self) -> Result<(), WantedError> {
        let by_label = self.kernels.iter().find(|kernel| kernel.family == Family::Dracut);
        match by_label.filter(|_| self.has_iso() && self.volume_id.contains(' ')) {
            Some(kernel) => {
                let why = format!(
                    "{:?} has a blank in it, and the kernel {} comes with dracut, which looks for the medium by it; use \
                     '-' or '_'",
                    self.volume_id, kernel.name
                );
                Err(wrong("livecd/volid", why))
            }
            None => Ok(()),
        }
    }

    /// Refuses settings that catalyst's spec contradicts, and those of kernels that it does not name.
    fn check_set(&self, set: &[String]) -> Result<(), WantedError> {
        if let Some(text) = set.iter().find(|text| FIXED.iter().any(|key| is_key(text, key))) {
            let why = format!(
                "{text:?}: catalyst's spec says that (livecd/volid, livecd/bootargs, livecd/iso), and its menu goes by it"
            );
            return Err(wrong("livecd/stagegraph_set", why));
        }
        let of_kernel = |text: &&String| {
            let rest =
                ["kernel.family.", "initrd.family."].iter().find_map(|start| text.strip_prefix(start))?;
            rest.split_once('=').map(|(name, _)| name.to_owned())
        };
        let named = set.iter().find_map(|text| Some((text, of_kernel(&text)?)));
        if let Some((text, name)) = named
            && !self.kernels.iter().any(|kernel| kernel.name == name)
        {
            return Err(wrong("livecd/stagegraph_set", format!("{text:?}: boot/kernel has no {name:?}")));
        }
        Ok(())
    }

    /// Refuses words that GRUB would take apart where catalyst writes its menu: it does not quote them.
    fn check_bootargs(&self) -> Result<(), WantedError> {
        let length: usize = self.bootargs.iter().map(|word| word.len() + 1).sum();
        if length > BOOTARGS_MAX {
            let why = format!(
                "{length} characters; with stagegraph's own words a line has room for {BOOTARGS_MAX}"
            );
            return Err(wrong("livecd/bootargs", why));
        }
        let is_own = |word: &&String| OWN_WORDS.contains(&word.split('=').next().unwrap_or_default());
        if let Some(word) = self.bootargs.iter().find(is_own) {
            let why = format!(
                "{word:?} says where the system is, which every line that is published says for itself"
            );
            return Err(wrong("livecd/bootargs", why));
        }
        let is_grubs = |word: &&String| word.contains(['{', '}', '|', '&', ';', '<', '>']);
        match self.bootargs.iter().find(is_grubs).filter(|_| self.has_iso()) {
            Some(word) => {
                let why = format!(
                    "{word:?} has a character that GRUB reads as its own, and catalyst's menu does not quote it"
                );
                Err(wrong("livecd/bootargs", why))
            }
            None => Ok(()),
        }
    }

    /// Returns the settings of the step `medium`.
    fn medium(&self) -> Result<toml::Table, WantedError> {
        let mut medium = table([("verify", self.verify.into())]);
        if let Some(size) = self.extra_partition_kib {
            // More than fits is more than the step takes as well.
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            if size < LEAST_PARTITION_KIB {
                let why = format!("{size} KiB are too few: XFS needs {LEAST_PARTITION_KIB} KiB");
                return Err(wrong("livecd/iso_extra_partition", why));
            }
            medium.insert("extra_partition_kib".to_owned(), size.into());
        }
        // catalyst's menu gives every console the arguments of genkernel's initramfs, so it writes no others.
        let consoles = self
            .kernels
            .iter()
            .filter(|kernel| kernel.family == Family::Dracut && !kernel.consoles.is_empty());
        let consoles = table(consoles.map(|kernel| (kernel.name.as_str(), kernel.consoles.clone().into())));
        if !consoles.is_empty() {
            medium.insert("consoles".to_owned(), consoles.into());
        }
        Ok(medium)
    }

    /// Returns the one date: what is set, else that of the version stamp.
    fn timestamp(&self, set: &[String]) -> Result<String, WantedError> {
        if let Some(text) = set.iter().rev().find_map(|text| text.strip_prefix("image.timestamp=")) {
            return Ok(text.to_owned());
        }
        let stamp = &self.version_stamp;
        date_of(stamp).map(Timestamp::text).ok_or_else(|| {
            let why = format!(
                "{stamp:?} has no date; use YYYYMMDDTHHMMSSZ or YYYYMMDD, a name and a dash in front of it or not, or say \
                 `livecd/stagegraph_set: image.timestamp=YYYYMMDDTHHMMSSZ`"
            );
            wrong("version_stamp", why)
        })
    }
}

/// Returns the date of a version stamp in whichever of its usual forms: `20260101T000000Z`, `20260101`, and
/// `plasma-20260101T000000Z`.
pub(super) fn date_of(stamp: &str) -> Option<Timestamp> {
    let date = stamp.rsplit_once('-').map_or(stamp, |(_, date)| date);
    Timestamp::parse(date).or_else(|| Timestamp::parse(&format!("{date}T000000Z")))
}

/// Tells whether a setting is of a key, or of one below it.
fn is_key(setting: &str, key: &str) -> bool {
    let rest = setting.strip_prefix(key);
    rest.is_some_and(|rest| rest.starts_with(['=', '.']))
}

fn table<'a>(rows: impl IntoIterator<Item = (&'a str, toml::Value)>) -> toml::Table {
    rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(change: impl FnOnce(&mut Wanted)) -> Wanted {
        let text = |text: &str| text.to_owned();
        let mut wanted = Wanted {
            iso: "/b/install-x.iso".into(),
            volume_id: text("Gentoo-amd64-20250101"),
            arch: text("amd64"),
            interpreter: None,
            root: None,
            fstype: text("squashfs"),
            fsops: Vec::new(),
            verify: false,
            extra_partition_kib: None,
            bootargs: vec![text("dokeymap")],
            kernels: vec![Kernel {
                name: text("gentoo"),
                family: Family::Dracut,
                consoles: vec![text("ttyS0,115200")],
            }],
            netboot: vec![text("ipxe")],
            digests: vec![text("blake2b")],
            digest_format: text("linux"),
            version_stamp: text("20250101T000000Z"),
        };
        change(&mut wanted);
        wanted
    }

    fn spec(wanted: &Wanted) -> Result<String, String> {
        wanted.spec(toml::Table::new(), &[]).map(|table| table.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_the_key_of_the_spec() {
        type Change = fn(&mut Wanted);
        let cases: [(Change, &str); 13] = [
            (|w| w.fstype = "jffs2".into(), "livecd/fstype: \"jffs2\""),
            (|w| w.extra_partition_kib = Some(4096), "livecd/iso_extra_partition: 4096 KiB are too few"),
            (|w| w.iso = "/b/x.img".into(), "livecd/iso: \"/b/x.img\" does not end in .iso"),
            (|w| w.netboot = vec!["pxe".into()], "livecd/netboot: \"pxe\" is not known"),
            (|w| w.netboot = vec!["no-iso".into()], "livecd/netboot: without ipxe"),
            (|w| w.kernels.clear(), "boot/kernel: there is no kernel"),
            (|w| w.kernels[0].name = "memtest".into(), "boot/kernel: \"memtest\" cannot be"),
            (|w| w.fsops = vec!["-comp".into()], "livecd/fsops: \"-comp\""),
            (|w| w.version_stamp = "latest".into(), "version_stamp: \"latest\" has no date"),
            (|w| w.volume_id = "Gentoo amd64".into(), "livecd/volid: \"Gentoo amd64\" has a blank"),
            (|w| w.bootargs = vec!["a;b".into()], "livecd/bootargs: \"a;b\" has a character"),
            (|w| w.digests = vec!["sha1".into()], "digests: \"sha1\" is not a hash"),
            (|w| w.digest_format = "foo".into(), "digest_format: catalyst.conf says \"foo\""),
        ];
        for (change, says) in cases {
            let error = spec(&wanted(change)).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
        // Where nothing looks for the medium by it, a volume id may have blanks.
        for change in
            [(|w| w.kernels[0].family = Family::Genkernel) as Change, |w| w.netboot.push("no-iso".into())]
        {
            let blanks = wanted(|w| {
                w.volume_id = "Gentoo sparc64 2025".into();
                change(w);
            });
            assert!(spec(&blanks).unwrap().contains("\"Gentoo sparc64 2025\""));
        }
        for stamp in ["20250101", "plasma-20250101T000000Z", "openrc-20250101"] {
            assert!(
                spec(&wanted(|w| w.version_stamp = stamp.into())).unwrap().contains("\"20250101T000000Z\"")
            );
        }
        let set = ["image.timestamp=20260101T000000Z".to_owned()];
        let set = wanted(|w| w.version_stamp = "latest".into()).spec(toml::Table::new(), &set);
        assert!(set.unwrap().to_string().contains("20260101T000000Z"));
    }

    #[test]
    fn where_no_iso_can_be_made_the_netboot_set_is_and_the_iso_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let (empty, for_arm64) = (root.path().join("empty"), root.path().join("arm64"));
        std::fs::create_dir_all(&empty).unwrap();
        std::fs::create_dir_all(for_arm64.join("usr/lib/grub/arm64-efi")).unwrap();
        for (arch, root, says) in [
            ("sparc", None, "cannot be made for sparc: GRUB's images are not made for it"),
            ("sparc64", None, "cannot be made for sparc64: GRUB's images are not made for it"),
            ("arm64", Some(&empty), "cannot be made for arm64: the root has no /usr/lib/grub/arm64-efi"),
        ] {
            let change = |w: &mut Wanted| (w.arch, w.root) = (arch.to_owned(), root.cloned());
            let refused = wanted(change);
            assert!(refused.refused_iso().unwrap().contains(says), "{:?}", refused.refused_iso());
            assert!(spec(&refused).unwrap().starts_with("extends = \"catalyst-netboot\"\n"));
            let unasked = wanted(|w| {
                change(w);
                w.netboot.push("no-iso".into());
            });
            assert_eq!(unasked.refused_iso(), None);
        }
        // Who runs the root's programs does not matter; boot loaders for other machines are those of the root.
        for (arch, root, of_root) in [
            ("amd64", None, false),
            ("x86", None, false),
            ("arm64", None, true),
            ("arm64", Some(&for_arm64), true),
        ] {
            let made = wanted(|w| {
                (w.arch, w.root) = (arch.to_owned(), root.cloned());
                w.interpreter = Some("/usr/bin/qemu-x".into());
            });
            assert_eq!(made.refused_iso(), None, "{arch}");
            let text = spec(&made).unwrap();
            assert!(
                text.starts_with("extends = \"catalyst\"\n") && text.contains(&format!("arch = \"{arch}\""))
            );
            assert_eq!(text.contains("loaders = \"stage2.root\""), of_root, "{text}");
        }
    }
}
