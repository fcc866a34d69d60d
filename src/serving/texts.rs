//! What programs read that look for something to boot: `.treeinfo`, a stream, the latest image.

use std::collections::BTreeMap;

use serde_json::json;
use serve::BASE;

use crate::arch::Arch;
use crate::manifest::{FileFacts, Manifest};

/// Returns what others call the architecture of a set.
fn arch_of(manifest: &Manifest) -> &'static str {
    let archs = manifest.kernels.iter().flat_map(|kernel| &kernel.archs);
    archs.copied().next().unwrap_or(Arch::Amd64).machine()
}

/// The files of a set that programs ask for.
struct Files<'a> {
    kernel: (&'a String, &'a FileFacts),
    initrd: (&'a String, &'a FileFacts),
    root: (&'a String, &'a FileFacts),
    iso: Option<(&'a String, &'a FileFacts)>,
}

impl<'a> Files<'a> {
    /// Finds them by their digests: the first kernel, below the folder with the network's files.
    fn of(manifest: &'a Manifest, folder: &str) -> Option<Self> {
        let find = |digest| {
            let is_it =
                |(path, facts): &(&String, &FileFacts)| facts.blake3 == digest && path.starts_with(folder);
            manifest.files.iter().find(is_it)
        };
        let first = manifest.kernels.first()?;
        Some(Self {
            kernel: find(first.kernel.digest)?,
            initrd: find(first.initrd.digest)?,
            root: find(manifest.squashfs.blake3)?,
            iso: manifest.files.get_key_value(&manifest.image.name),
        })
    }
}

/// Returns the texts for a set, by their addresses without a slash in front; [`BASE`] stands for the server.
pub(super) fn texts(manifest: &Manifest, name: &str, id: &str, folder: &str) -> BTreeMap<String, String> {
    let Some(files) = Files::of(manifest, folder) else { return BTreeMap::new() };
    let mut texts = BTreeMap::from([
        (format!("{name}/.treeinfo"), treeinfo(manifest, &files)),
        (format!("streams/{name}.json"), stream(manifest, &files, name, id)),
    ]);
    if let Some((path, FileFacts { size, .. })) = files.iso {
        // As the files `latest-….txt` of Gentoo's mirrors are written.
        let image = &manifest.image;
        let text =
            format!("# Latest as of {}\n# ts={}\n{name}/@{id}/{path} {size}\n", image.timestamp, image.epoch);
        texts.insert(format!("latest-{name}.txt"), text);
    }
    texts
}

/// As virt-install reads it (`virtinst/install/urldetect.py`; productmd's format 1.2): paths are below the set.
fn treeinfo(manifest: &Manifest, files: &Files<'_>) -> String {
    let (image, arch) = (&manifest.image, arch_of(manifest));
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let mut text = format!(
        "[general]\nfamily = {title}\nname = {title} {version}\nversion = {version}\narch = {arch}\nplatforms = {arch}\n\
         \n[images-{arch}]\nkernel = {}\ninitrd = {}\n",
        files.kernel.0,
        files.initrd.0,
        title = plain(&image.title),
        version = image.timestamp,
    );
    if let Some((iso, _)) = files.iso {
        text.push_str(&format!("boot.iso = {iso}\n"));
    }
    text.push_str("\n[checksums]\n");
    for (path, facts) in [Some(files.kernel), Some(files.initrd), files.iso].into_iter().flatten() {
        text.push_str(&format!("{path} = sha256:{}\n", facts.sha256));
    }
    text
}

/// As Fedora CoreOS writes its streams (<https://docs.fedoraproject.org/en-US/fedora-coreos/stream-metadata/>).
fn stream(manifest: &Manifest, files: &Files<'_>, name: &str, id: &str) -> String {
    let artifact = |(path, facts): (&String, &FileFacts)| json!({ "location": format!("{BASE}/{name}/@{id}/{path}"), "sha256": facts.sha256.to_string() });
    let mut formats = json!({
        "pxe": {
            "kernel": artifact(files.kernel),
            "initramfs": artifact(files.initrd),
            "rootfs": artifact(files.root),
        }
    });
    if let Some(iso) = files.iso {
        formats["iso"] = json!({ "disk": artifact(iso) });
    }
    let image = &manifest.image;
    let stream = json!({
        "stream": name,
        "metadata": { "last-modified": image.timestamp, "generator": manifest.generator },
        "architectures": {
            arch_of(manifest): { "artifacts": { "metal": { "release": image.timestamp, "formats": formats } } }
        },
    });
    format!("{stream:#}\n")
}
