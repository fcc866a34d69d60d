//! `debian`: a live root made of Debian packages, with Debian's kernel and a dracut initramfs.
//!
//! It goes in two halves. What the machine's own apt sources resolve the packages to is looked up first,
//! without the network; names, versions and hashes are part of the key. The packages are then fetched,
//! each checked against its SHA-256, and mmdebstrap makes the root of nothing but them, in a sandbox
//! without a network. The root stays in the tar that mmdebstrap writes; its files are read from there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cache::file::OnFile;
use cache::ingest::Tar;
use cache::{Bytes, Object, Output};
use graph::sandbox::{Foreign, Invocation};
use graph::tool::{Tool, ToolSpec};
use graph::{Job, Resolved, Resolving, Step, StepError};
use serde::Serialize;

use super::emulation;
use super::import::boot_files;
use super::kind::{Inputs, Kind, Made, folder, identity};
use super::packages::{self, ESSENTIAL, Fetched, Wanted};
use crate::arch::Arch;
use crate::config::{Fields, Package, SpecError};
use crate::image::Image;

/// Gives `root`, `boot` (kernel, initrd, config) and `packages`, the list of packages as JSON.
pub(super) const KIND: Kind =
    Kind { name: "debian", inputs: Inputs::Named { required: &[], optional: &["tools"] }, make };

/// The files that make a Debian root a live system, and the script that puts them there.
const RECIPE: [(&str, &str); 14] = [
    ("customize.sh", include_str!("debian/customize.sh")),
    ("root/etc/dracut.conf.d/90-live.conf", include_str!("debian/root/etc/dracut.conf.d/90-live.conf")),
    ("root/etc/fstab", include_str!("debian/root/etc/fstab")),
    ("root/etc/hostname", include_str!("debian/root/etc/hostname")),
    ("root/etc/hosts", include_str!("debian/root/etc/hosts")),
    ("root/etc/motd", include_str!("debian/root/etc/motd")),
    ("root/etc/ssh/sshd_config.d/live.conf", include_str!("debian/root/etc/ssh/sshd_config.d/live.conf")),
    (
        "root/etc/systemd/journald.conf.d/volatile.conf",
        include_str!("debian/root/etc/systemd/journald.conf.d/volatile.conf"),
    ),
    (
        "root/etc/systemd/network/80-wired.network",
        include_str!("debian/root/etc/systemd/network/80-wired.network"),
    ),
    (
        "root/etc/systemd/resolved.conf.d/quiet.conf",
        include_str!("debian/root/etc/systemd/resolved.conf.d/quiet.conf"),
    ),
    (
        "root/etc/systemd/system/getty@.service.d/autologin.conf",
        include_str!("debian/root/etc/systemd/system/getty@.service.d/autologin.conf"),
    ),
    (
        "root/etc/systemd/system/serial-getty@.service.d/autologin.conf",
        include_str!("debian/root/etc/systemd/system/serial-getty@.service.d/autologin.conf"),
    ),
    (
        "root/etc/systemd/system/ssh-hostkeys.service",
        include_str!("debian/root/etc/systemd/system/ssh-hostkeys.service"),
    ),
    (
        "root/etc/systemd/system/ssh.service.d/hostkeys.conf",
        include_str!("debian/root/etc/systemd/system/ssh.service.d/hostkeys.conf"),
    ),
];

/// Programs of the host that mmdebstrap and the recipe start.
const PROGRAMS: [&str; 55] = [
    "/usr/lib/apt/apt-helper",
    "/usr/lib/apt/methods/copy",
    "/usr/lib/apt/methods/file",
    "/usr/lib/apt/methods/store",
    "apt-cache",
    "apt-config",
    "apt-get",
    "awk",
    "basename",
    "cat",
    "chmod",
    "chroot",
    "cmp",
    "cp",
    "cut",
    "date",
    "diff",
    "dirname",
    "dpkg",
    "dpkg-deb",
    "dpkg-divert",
    "dpkg-query",
    "dpkg-split",
    "dpkg-statoverride",
    "dpkg-trigger",
    "env",
    "find",
    "grep",
    "head",
    "install",
    "ldconfig",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mktemp",
    "mmtarfilter",
    "mount",
    "mv",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sh",
    "sort",
    "start-stop-daemon",
    "stat",
    "tar",
    "test",
    "touch",
    "tr",
    "true",
    "umount",
    "unshare",
    "wc",
];

/// Data of those programs; folders whose names begin so count as well.
const DATA: [&str; 5] = [
    "/usr/lib/apt",
    "/usr/share/dpkg",
    "/usr/share/mmdebstrap",
    "/usr/lib/locale/C.utf8",
    "/usr/share/zoneinfo/UTC",
];
const DATA_STARTS: [(&str, &str); 2] = [("/usr/share", "perl"), ("/usr/lib", "python3.")];

const PACKAGE: &str = "mmdebstrap";

/// What packs the initramfs where dracut itself is emulated, which takes five times as long for it.
const ZSTD: &str = "zstd";

#[derive(Serialize)]
struct Debian {
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    suite: Option<String>,
    packages: Vec<String>,
    /// Paths that are not unpacked, in dpkg's patterns.
    exclude_paths: Vec<String>,
    /// The digest of the files and the script above.
    recipe: String,
    epoch: u32,
    /// The program that runs those of the packages, where this machine does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    emulator: Option<String>,
    #[serde(skip)]
    wanted: Wanted,
}

/// Reads which packages are meant.
pub(super) fn wanted(fields: &Fields<'_>, image: &Image) -> Wanted {
    Wanted::read(fields, [image.arch, image.arch], &[ESSENTIAL])
}

fn make(fields: &Fields<'_>, image: &Image) -> Option<Made> {
    let wanted = wanted(fields, image);
    let exclude = fields.texts("exclude_paths");
    for (path, item) in &exclude {
        if !path.starts_with('/') || path.contains(['\n', ' ']) {
            fields.wrong(
                SpecError::at(&item.origin, format!("{path:?} is not a pattern of dpkg's"))
                    .label("expected an absolute path, with * for anything"),
            );
        }
    }
    let mut recipe = cache::digest::BlobHasher::default();
    for (path, text) in RECIPE {
        recipe.update(format!("{} {path} {} ", path.len(), text.len()).as_bytes());
        recipe.update(text.as_bytes());
    }
    let step = Debian {
        architecture: wanted.architecture().to_owned(),
        suite: wanted.suite().map(str::to_owned),
        packages: wanted.names().filter(|name| *name != ESSENTIAL).map(str::to_owned).collect(),
        emulator: emulation::emulator(fields, wanted.arch()),
        wanted,
        exclude_paths: exclude.into_iter().map(|(path, _)| path.to_owned()).collect(),
        recipe: recipe.finish().to_string(),
        epoch: image.timestamp.epoch(),
    };
    Some(Made::new(step, &["root", "boot/", "packages"]))
}

impl Debian {
    /// Returns how programs of the packages run here; nothing where the machine does it by itself.
    fn foreign(&self, job: &Job<'_>, tool: &Tool, folder: &Path) -> Result<Option<Foreign>, StepError> {
        let Some(emulator) = &self.emulator else { return Ok(None) };
        let place = match job.toolbox() {
            Some(toolbox) => emulation::lay_out(job, toolbox.root(), emulator, folder)?,
            None => {
                // One of the tool's programs, pinned with it.
                let inside = Path::new("/usr/bin").join(emulator);
                let outside = tool.outside(&inside).unwrap_or(inside);
                fs::canonicalize(&outside).on_file("find", &outside)?
            }
        };
        Ok(emulation::foreign(self.wanted.arch(), place))
    }

    /// Builds mmdebstrap's command line.
    fn mmdebstrap_args(&self) -> Vec<OsString> {
        let hooks = "/usr/share/mmdebstrap/hooks/merged-usr";
        let mut args: Vec<String> = [
            "--mode=root",
            "--verbose",
            "--variant=essential",
            "--format=tar",
            "--aptopt=APT::Install-Recommends \"false\"",
            "--aptopt=APT::Sandbox::User \"root\"",
            "--skip=cleanup/apt",
            "--skip=check/qemu",
            "--customize-hook=/bin/sh /build/in/recipe/customize.sh \"$1\"",
        ]
        .map(str::to_owned)
        .to_vec();
        args.push(format!("--setup-hook={hooks}/setup00.sh"));
        args.push(format!("--essential-hook={hooks}/essential00.sh"));
        args.push(format!("--architectures={}", self.architecture));
        args.push(format!("--include={}", self.packages.join(" ")));
        args.extend(self.exclude_paths.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
        args.push("--dpkgopt=path-include=/usr/share/doc/*/copyright".to_owned());
        // No suite: a flat repository has none, and a name would narrow the set of essential packages.
        args.extend(["", "root.tar", "deb [trusted=yes] copy:/build/in/pool ./"].map(str::to_owned));
        args.into_iter().map(OsString::from).collect()
    }

    /// Writes what the tools read: packages and their index, the recipe, the few files of `/etc`.
    fn prepare(&self, job: &Job<'_>, packages: &[Fetched], top: &Path) -> io::Result<()> {
        let pool = top.join("pool");
        fs::create_dir(&pool)?;
        let mut index = String::new();
        for fetched in packages {
            let (file, Package { size, sha256, .. }) = (fetched.file_name(), &fetched.package);
            let object = job.objects.object_path(&fetched.blob);
            let place = pool.join(&file);
            // The folder is mounted read-only, so a link to the object does no harm.
            fs::hard_link(&object, &place).or_else(|_| fs::copy(&object, &place).map(drop))?;
            index.push_str(&format!(
                "{}\nFilename: ./{file}\nSize: {size}\nSHA256: {sha256}\n\n",
                fetched.control.trim_end(),
            ));
        }
        fs::write(pool.join("Packages"), index)?;
        for (path, text) in RECIPE {
            let place = top.join("recipe").join(path);
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(place, text)?;
        }
        fs::write(
            top.join("passwd"),
            "root:x:0:0:root:/root:/bin/sh\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n\
             nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
        )?;
        fs::write(top.join("group"), "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")?;
        fs::create_dir(top.join("dpkg"))
    }
}

/// What mmdebstrap says when it begins something (`info` in its source), and what that is.
const PHASES: [(&str, &str); 5] = [
    ("I: extracting archives", "unpacking the essential packages"),
    ("I: installing essential packages", "configuring the essential packages"),
    ("I: installing remaining packages", "installing the packages"),
    ("I: running --customize-hook", "making the live system"),
    ("I: creating tarball", "packing the root"),
];

/// How the line begins by which the recipe says why it failed.
const FAILED: &str = "stagegraph: ";

/// Tells what mmdebstrap begins with a line that it prints.
fn phase(line: &str) -> Option<&'static str> {
    PHASES.into_iter().find_map(|(start, doing)| line.starts_with(start).then_some(doing))
}

/// Returns the data files of mmdebstrap and all it starts, as this machine has them.
fn data_files() -> Result<Vec<String>, StepError> {
    let mut data: Vec<String> = DATA.iter().map(|path| (*path).to_owned()).collect();
    let libraries = Arch::of_machine().multiarch().map(|triplet| format!("/usr/lib/{triplet}"));
    let starts = DATA_STARTS.into_iter().chain(libraries.iter().map(|folder| (folder.as_str(), "perl")));
    for (folder, start) in starts {
        for entry in fs::read_dir(folder).on_file("list", folder)? {
            let name = entry.on_file("list", folder)?.file_name();
            if name.to_string_lossy().starts_with(start) {
                data.push(format!("{folder}/{}", name.to_string_lossy()));
            }
        }
    }
    data.sort();
    Ok(data)
}

impl Step for Debian {
    identity!(version 2);

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        // A toolbox has what its packages have.
        let data = if resolving.has_toolbox { Vec::new() } else { data_files()? };
        let data: Vec<&str> = data.iter().map(String::as_str).collect();
        let emulated = self.emulator.iter().flat_map(|emulator| [emulator.as_str(), ZSTD]);
        let programs: Vec<&str> = PROGRAMS.into_iter().chain(emulated).collect();
        let package = match self.emulator {
            Some(_) => format!("{PACKAGE} qemu-user-static {ZSTD}"),
            None => PACKAGE.to_owned(),
        };
        let spec = ToolSpec {
            name: "mmdebstrap",
            programs: &programs,
            data: &data,
            data_places: &[],
            package: &package,
        };
        let mut resolved = Resolved::with_tools(resolving, &[spec])?;
        let Resolved { sources, found, .. } = self.wanted.pin(resolving)?;
        (resolved.sources, resolved.found) = (sources, found);
        Ok(resolved)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        if !job.action.sandboxed {
            return Err(StepError::environment("the step debian runs in a sandbox or not at all")
                .with_hint("build without --sandbox=off, or import a root that somebody else made"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(StepError::environment("the step debian makes files of other owners: only root can")
                .with_hint("run as root, or import a root that somebody else made (step = \"import\")"));
        }
        job.remark("this root is made of Debian's packages, not by catalyst");
        let packages = self.wanted.fetch(job)?;
        let inputs = job.objects.work_dir()?;
        job.progress("unpacking the package lists", 0, None);
        self.prepare(job, &packages, inputs.path()).on_file("fill", inputs.path())?;
        let work = job.objects.work_dir()?;
        fs::create_dir(work.path().join("tmp")).on_file("make", work.path().join("tmp"))?;
        let given = |name: &str| inputs.path().join(name);
        let environment = [
            ("SOURCE_DATE_EPOCH", self.epoch.to_string()),
            ("TMPDIR", "/build/tmp".to_owned()),
            ("HOME", "/root".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            // The kernel's package is not to make an initramfs: the recipe does, once, and with its own settings.
            ("INITRD", "No".to_owned()),
            ("EMULATED", if self.emulator.is_some() { "yes".to_owned() } else { String::new() }),
        ];
        let tool = job.tool("mmdebstrap")?;
        let invocation = Invocation {
            tool,
            args: self.mmdebstrap_args(),
            env: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            inputs: BTreeMap::from([
                ("pool".to_owned(), given("pool")),
                ("recipe".to_owned(), given("recipe")),
            ]),
            mounts: BTreeMap::from([
                (PathBuf::from("/etc/passwd"), given("passwd")),
                (PathBuf::from("/etc/group"), given("group")),
                (PathBuf::from("/var/lib/dpkg"), given("dpkg")),
            ]),
            work: work.path(),
            privileged: true,
            foreign: self.foreign(job, tool, inputs.path())?,
        };
        let failed = Mutex::new(None);
        let each = |line: &str| {
            if let Some(why) = line.strip_prefix(FAILED) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
            }
            phase(line)
        };
        job.run_in_phases(&invocation, &each).map_err(|error| {
            // In a word, where the recipe has one; the tool's last lines are about something else then.
            let why = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
            why.map_or(error, |why| {
                StepError::action(why).with_hint("the packages are packages of this node in the spec")
            })
        })?;
        let path = work.path().join("root.tar");
        job.progress("reading the root", 0, None);
        let tar = fs::File::open(&path).map_err(|error| {
            StepError::action(format!("mmdebstrap ended well but left no root.tar: {error}"))
        })?;
        let input = io::BufReader::with_capacity(1 << 20, tar);
        let Tar { tree, slices, .. } = cache::ingest::tar(input, io::sink()).map_err(StepError::action)?;
        let index = job.objects.put(&slices.encode())?.digest;
        let pack = job.objects.adopt(&path)?.digest;
        let bytes = Bytes::Pack { pack, index };
        let digest = job.objects.put_tree(&tree)?;
        let boot =
            boot_files(job.objects, &job.objects.open_tree(&digest, &bytes)?, Some(b"boot"), &mut |text| {
                job.remark(text)
            })?;
        Ok(BTreeMap::from([
            ("root".to_owned(), Output { object: Object::Tree(digest), bytes }),
            ("boot".to_owned(), folder(job.objects, boot)?),
            ("packages".to_owned(), job.objects.put(&packages::listing(&packages))?.into()),
        ]))
    }
}
