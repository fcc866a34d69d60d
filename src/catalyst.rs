//! What catalyst's target livecd-stagegraph asks for, and the spec that stands for it.
//!
//! catalyst makes the root, the kernels and the files of the medium, as it always does, and then hands over one
//! request: a JSON file that says where they are and what is wanted. It can be run again by hand, as long as catalyst
//! keeps its work folder. `docs/catalyst.md` has the schema.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::formats::initramfs::Family;
use crate::spec::Timestamp;

/// The version of the request that this program reads.
pub const SCHEMA: u32 = 1;

/// The target, as it is installed into catalyst.
pub const TARGET: &str = include_str!("../packaging/catalyst/livecd_stagegraph.py");

/// Where the target goes, below the folder that holds catalyst's Python package.
pub const TARGET_PATH: &str = "catalyst/targets/livecd_stagegraph.py";

/// Architectures that GRUB's boot images are made for.
const BOOTABLE: [&str; 2] = ["amd64", "x86"];

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The version of the schema.
    pub schema: u32,
    /// catalyst's version, for the record.
    pub catalyst: String,
    /// The cleaned chroot.
    pub stage_path: PathBuf,
    /// The files of the medium: catalyst's target path.
    pub iso_root: PathBuf,
    /// The ISO to publish; other files go beside it.
    pub iso: PathBuf,
    /// The ISO's volume id.
    pub volume_id: String,
    /// catalyst's name of the machine the medium is for.
    pub arch: String,
    /// The program that runs that machine's programs here, where it is another machine.
    pub interpreter: Option<String>,
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
    pub kernels: Vec<RequestKernel>,
    /// What is published beside the ISO: `ipxe` is kernel, initrd, squashfs and the script that boots them.
    pub netboot: Vec<String>,
    /// Hashes of the digest files.
    pub digests: Vec<String>,
    /// Their format: `linux` or `bsd`.
    pub digest_format: String,
    /// catalyst's version stamp, which is the one date of everything.
    pub version_stamp: String,
    /// The store.
    pub store: PathBuf,
    /// More settings, `KEY=VALUE`.
    pub set: Vec<String>,
    /// Where the result is written.
    pub result: PathBuf,
}

/// A kernel of a request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestKernel {
    /// Its name, which is that of its file.
    pub name: String,
    /// Who made its initrd, as the spec says.
    pub family: Family,
    /// Consoles that menus offer.
    pub consoles: Vec<String>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestResult {
    /// The version of the schema.
    pub schema: u32,
    /// Every published file and its BLAKE3, sorted by name.
    pub outputs: Vec<RequestOutput>,
}

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RequestOutput {
    /// Where it is.
    pub path: PathBuf,
    /// Its digest.
    pub blake3: cache::BlobDigest,
}

/// Why a request cannot be met.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no request.
    #[error("{path} is no request of the target livecd-stagegraph")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It was written by another version of the target.
    #[error(
        "{path} has the schema {found}; this version of stagegraph reads {SCHEMA}: run `stagegraph catalyst install`"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// Something in it cannot be done.
    #[error("{key}: {why}")]
    Value {
        /// The key of catalyst's spec.
        key: &'static str,
        /// Why not, and what to do.
        why: String,
    },
}

fn wrong(key: &'static str, why: impl Into<String>) -> RequestError {
    RequestError::Value { key, why: why.into() }
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn read(path: &Path) -> Result<Self, RequestError> {
        let bytes =
            std::fs::read(path).map_err(|source| RequestError::Read { path: path.to_owned(), source })?;
        let syntax = |source| RequestError::Syntax { path: path.to_owned(), source };
        // The schema counts before anything else does.
        let document: serde_json::Value = serde_json::from_slice(&bytes).map_err(syntax)?;
        if let Some(found) = document["schema"].as_u64().filter(|found| *found != u64::from(SCHEMA)) {
            return Err(RequestError::Schema { path: path.to_owned(), found });
        }
        serde_json::from_value(document).map_err(syntax)
    }

    /// Returns the text of the spec that stands for the request; it extends the built-in spec `catalyst`.
    ///
    /// # Errors
    /// [`RequestError::Value`]: something cannot be done.
    pub fn spec(&self) -> Result<String, RequestError> {
        if self.fstype != "squashfs" {
            return Err(wrong("livecd/fstype", format!("{:?} cannot be made; squashfs can", self.fstype)));
        }
        if let Some(interpreter) = &self.interpreter {
            let why = format!(
                "the build is emulated by {interpreter}; no boot images for {} are made here",
                self.arch
            );
            return Err(wrong("interpreter", why));
        }
        if !BOOTABLE.contains(&self.arch.as_str()) {
            let why = format!("no ISO is made for {:?}; for {} it is", self.arch, BOOTABLE.join(" and "));
            return Err(wrong("subarch", why));
        }
        if let Some(size) = self.extra_partition_kib {
            let why = format!("a partition of {size} KiB behind the ISO cannot be made by this version");
            return Err(wrong("livecd/iso_extra_partition", why));
        }
        if let Some(word) = self.netboot.iter().find(|word| *word != "ipxe") {
            return Err(wrong("livecd/netboot", format!("{word:?} is not known; ipxe is")));
        }
        let name = self.iso.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(name) = name.strip_suffix(".iso") else {
            return Err(wrong("livecd/iso", format!("{:?} does not end in .iso", self.iso)));
        };
        let [first, ..] = &self.kernels[..] else {
            return Err(wrong("boot/kernel", "there is no kernel"));
        };
        let timestamp = self.timestamp()?;
        let text = |text: &str| toml::Value::from(text);
        let texts = |texts: &[String]| toml::Value::from(texts.to_vec());
        let table = |rows: Vec<(&str, toml::Value)>| {
            toml::Value::Table(rows.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
        };
        let mut consoles: Vec<String> = Vec::new();
        for console in self.kernels.iter().flat_map(|kernel| &kernel.consoles) {
            if !consoles.contains(console) {
                consoles.push(console.clone());
            }
        }
        let families: toml::Table =
            self.kernels.iter().map(|kernel| (kernel.name.clone(), kernel.family.name().into())).collect();
        let family = || table(vec![("family", families.clone().into())]);
        let path = |path: &Path| text(&path.to_string_lossy());
        let image = table(vec![
            ("name", text(name)),
            ("title", text("LiveCD")),
            ("label", text(&first.name)),
            ("volume_id", text(&self.volume_id)),
            ("timestamp", text(&timestamp)),
            ("bootargs", texts(&self.bootargs)),
            ("consoles", texts(&consoles)),
        ]);
        let boot = self.iso_root.join("boot");
        let digests = vec![("hashes", texts(&self.digests)), ("format", text(&self.digest_format))];
        let nodes = table(vec![
            ("stage2", table(vec![("path", path(&self.stage_path)), ("boot", path(&boot))])),
            ("medium", table(vec![("path", path(&self.iso_root))])),
            ("kernel", family()),
            ("initrd", family()),
            ("squashfs", toml::Value::Table(self.squashfs()?)),
            ("iso", table(vec![("verify", self.verify.into())])),
            ("digests", table(digests)),
        ]);
        let spec = [("extends", text("catalyst")), ("image", image), ("node", nodes)];
        Ok(toml::Table::from_iter(spec.map(|(key, value)| (key.to_owned(), value))).to_string())
    }

    /// Returns the one date: the version stamp, in whichever of its usual forms.
    fn timestamp(&self) -> Result<String, RequestError> {
        let stamp = &self.version_stamp;
        let day = format!("{stamp}T000000Z");
        [stamp, &day].into_iter().find(|text| Timestamp::parse(text).is_some()).cloned().ok_or_else(|| {
            let why = format!("{stamp:?} is no date; use YYYYMMDDTHHMMSSZ or YYYYMMDD, or set image.timestamp in livecd/stagegraph_set");
            wrong("version_stamp", why)
        })
    }

    /// Maps the words for gensquashfs to settings of the step; those nobody knows are refused by name.
    fn squashfs(&self) -> Result<toml::Table, RequestError> {
        let mut settings = toml::Table::new();
        let mut words = self.fsops.iter();
        while let Some(word) = words.next() {
            let (option, attached) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let mut value = || {
                attached
                    .clone()
                    .or_else(|| words.next().cloned())
                    .ok_or_else(|| wrong("livecd/fsops", format!("{option} needs a value")))
            };
            match option {
                "-c" | "--compressor" => {
                    settings.insert("compressor".to_owned(), value()?.into());
                }
                "-b" | "--block-size" => {
                    let text = value()?;
                    let (digits, shift) = match text.strip_suffix(['K', 'k']) {
                        Some(digits) => (digits, 10),
                        None => {
                            text.strip_suffix(['M', 'm']).map_or((text.as_str(), 0), |digits| (digits, 20))
                        }
                    };
                    let size: i64 = digits
                        .parse()
                        .map_err(|_| wrong("livecd/fsops", format!("{text:?} is no block size")))?;
                    settings.insert("block_size".to_owned(), (size << shift).into());
                }
                "-X" | "--comp-extra" => {
                    for extra in value()?.split(',') {
                        let level = extra.strip_prefix("level=").and_then(|level| level.parse::<i64>().ok());
                        let Some(level) = level else {
                            return Err(wrong(
                                "livecd/fsops",
                                format!("the compressor's option {extra:?} is not known; level=N is"),
                            ));
                        };
                        settings.insert("level".to_owned(), level.into());
                    }
                }
                // How many threads, how much is said: no matter of the image. Times and attributes are kept anyway.
                "-j" | "--num-jobs" | "-Q" | "--queue-backlog" => drop(value()?),
                "-q" | "--quiet" | "-k" | "--keep-time" | "-x" | "--keep-xattr" | "-f" | "--force" => {}
                other => {
                    let why =
                        format!("{other:?} is not known; -c, -b, -X level=N, -j, -Q, -k, -x and -q are");
                    return Err(wrong("livecd/fsops", why));
                }
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut serde_json::Value)) -> Request {
        let mut document = serde_json::json!({
            "schema": 1, "catalyst": "4.1.1", "stage_path": "/s", "iso_root": "/t", "iso": "/b/install-x.iso",
            "volume_id": "Gentoo-amd64-20250101", "arch": "amd64", "interpreter": null, "fstype": "squashfs",
            "fsops": [], "verify": false, "extra_partition_kib": null, "bootargs": ["dokeymap"],
            "netboot": ["ipxe"], "kernels": [{"name": "gentoo", "family": "dracut", "consoles": ["ttyS0,115200"]}],
            "digests": ["blake2b", "sha512"], "digest_format": "linux", "version_stamp": "20250101T000000Z",
            "store": "/store", "set": [], "result": "/r.json"
        });
        change(&mut document);
        serde_json::from_value(document).unwrap()
    }

    #[test]
    fn known_words_for_gensquashfs_become_settings_and_others_are_refused_by_name() {
        let with = |words: &[&str]| request(|r| r["fsops"] = words.into()).squashfs();
        let settings =
            with(&["-c", "zstd", "-X", "level=19", "-b", "1M", "-j", "4", "-q", "--compressor=xz"]).unwrap();
        assert_eq!(settings.to_string(), "block_size = 1048576\ncompressor = \"xz\"\nlevel = 19\n");
        for (words, says) in [
            (&["-comp", "xz"][..], "\"-comp\" is not known"),
            (&["-c"], "-c needs a value"),
            (&["-X", "bcj"], "\"bcj\" is not known"),
            (&["-b", "big"], "no block size"),
        ] {
            let error = with(words).unwrap_err().to_string();
            assert!(error.starts_with("livecd/fsops: ") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_the_key_of_the_spec() {
        for (key, value, says) in [
            ("fstype", "jffs2".into(), "livecd/fstype: \"jffs2\""),
            ("arch", "sparc64".into(), "subarch: no ISO is made for \"sparc64\""),
            (
                "interpreter",
                "/usr/bin/qemu-arm".into(),
                "interpreter: the build is emulated by /usr/bin/qemu-arm",
            ),
            ("extra_partition_kib", 4096.into(), "livecd/iso_extra_partition"),
            ("iso", "/b/x.img".into(), "livecd/iso"),
            ("netboot", serde_json::json!(["pxe"]), "livecd/netboot: \"pxe\" is not known"),
            ("version_stamp", "latest".into(), "version_stamp: \"latest\" is no date"),
        ] as [(&str, serde_json::Value, &str); 7]
        {
            let error = request(|r| r[key] = value).spec().unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
        assert!(
            request(|r| r["version_stamp"] = "20250101".into()).spec().unwrap().contains("20250101T000000Z")
        );
    }
}
