//! catalyst's own specs: `installcd-stage2-minimal.spec` and its like, read as the graph they stand for.
//!
//! [`grammar`] has their form; here is what they mean.

mod grammar;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::grammar::{Fill, Keys, Word, placeholder};
pub use self::grammar::{Values, is_placeholder, render};

use super::configuration::Configuration;
use super::wanted::{Kernel, Wanted, date_of};
use crate::config::{Item, Origin, Source, SpecError, Value};
use crate::formats::initramfs::Family;
use crate::image::Timestamp;

/// Keys of every target, then of livecd-stage1 and livecd-stage2, then of a kernel: `valid_values` of catalyst 4.0 to 4.1.
const COMMON: [&str; 29] = [
    "asflags",
    "binrepo_path",
    "catalyst_use",
    "cbuild",
    "cflags",
    "common_flags",
    "compression_mode",
    "cxxflags",
    "decompressor_search_order",
    "fcflags",
    "fflags",
    "hostuse",
    "install_mask",
    "interpreter",
    "keep_repos",
    "kerncache_path",
    "ldflags",
    "pkgcache_path",
    "portage_confdir",
    "portage_prefix",
    "profile",
    "rel_type",
    "rename_regexp",
    "repos",
    "snapshot_treeish",
    "source_subpath",
    "subarch",
    "target",
    "version_stamp",
];
const STAGE1: [&str; 2] = ["livecd/packages", "livecd/use"];
const STAGE2: [&str; 30] = [
    "boot/kernel",
    "livecd/bootargs",
    "livecd/cdtar",
    "livecd/depclean",
    "livecd/empty",
    "livecd/fsops",
    "livecd/fsscript",
    "livecd/fstype",
    "livecd/gk_mainargs",
    "livecd/iso",
    "livecd/iso_extra_partition",
    "livecd/linuxrc",
    "livecd/modblacklist",
    "livecd/motd",
    "livecd/overlay",
    "livecd/rcadd",
    "livecd/rcdel",
    "livecd/readme",
    "livecd/rm",
    "livecd/root_overlay",
    "livecd/type",
    "livecd/unmerge",
    "livecd/users",
    "livecd/verify",
    "livecd/volid",
    // The target's own.
    "livecd/netboot",
    "livecd/stagegraph",
    "livecd/stagegraph_request",
    "livecd/stagegraph_set",
    "livecd/stagegraph_store",
];
const KERNEL: [&str; 13] = [
    "aliases",
    "config",
    "console",
    "distkernel",
    "dracut_args",
    "extraversion",
    "gk_action",
    "gk_kernargs",
    "initramfs_overlay",
    "packages",
    "softlevel",
    "sources",
    "use",
];
const REQUIRED: [&str; 6] =
    ["profile", "rel_type", "snapshot_treeish", "source_subpath", "subarch", "version_stamp"];

/// The target that makes what livecd-stage2 begins with.
const STAGE1_TARGET: &str = "livecd-stage1";
/// Targets that make a medium; both are run as the second.
const STAGE2_TARGETS: [&str; 2] = ["livecd-stage2", "livecd-stagegraph"];

/// A spec, read.
struct Release {
    /// The words at each key, and where the key stands.
    keys: Keys,
    /// All of it.
    origin: Origin,
}

/// A release spec as a spec of this program.
pub struct Read {
    /// The spec; it extends a built-in one.
    pub item: Item,
    /// Settings to be laid over it: those of `livecd/stagegraph_set`.
    pub set: Vec<String>,
    /// What is asked for and cannot be made.
    pub refused: Option<String>,
}

/// Reads a release spec; `fill` has what stands for placeholders, and `configuration` what catalyst's own says.
///
/// # Errors
/// [`SpecError`], which points into the file.
pub fn read(
    source: &Arc<Source>,
    fill: &BTreeMap<String, String>,
    configuration: &Configuration,
) -> Result<Read, Box<SpecError>> {
    let release = Release::read(source, fill)?;
    let target = release.target()?;
    release.check()?;
    if target.text == STAGE1_TARGET {
        return release.stage1();
    }
    release.stage2(configuration)
}

impl Release {
    fn read(source: &Arc<Source>, fill: &BTreeMap<String, String>) -> Result<Self, Box<SpecError>> {
        let origin = Origin { source: Arc::clone(source), span: 0..0 };
        Ok(Self { keys: grammar::parse(source, &Fill::new(fill))?, origin })
    }

    /// Returns the target, if it is one that makes a live medium. What a spec of another target needs is another matter.
    fn target(&self) -> Result<&Word, Box<SpecError>> {
        if self.words("target").is_empty() {
            return Err(SpecError::at(&self.origin, "the key \"target\" is missing")
                .label("a spec of catalyst needs it"));
        }
        let target = self.one("target")?;
        if target.text == STAGE1_TARGET || STAGE2_TARGETS.contains(&target.text.as_str()) {
            return Ok(target);
        }
        Err(SpecError::at(&target.origin, format!("the target {:?} makes no live medium", target.text))
            .label(format!("{STAGE1_TARGET} or {}", STAGE2_TARGETS[0])))
    }

    /// Refuses what catalyst would refuse, hours before it would.
    fn check(&self) -> Result<(), Box<SpecError>> {
        let missing = |key: &str| {
            SpecError::at(&self.origin, format!("the key {key:?} is missing"))
                .label("a spec of catalyst needs it")
        };
        for key in REQUIRED {
            self.words(key).first().ok_or_else(|| missing(key))?;
        }
        let is_stage1 = self.one("target")?.text == STAGE1_TARGET;
        for key in if is_stage1 { &STAGE1[..1] } else { &["boot/kernel", "livecd/iso"] } {
            self.words(key).first().ok_or_else(|| missing(key))?;
        }
        let kernels: Vec<&str> = self.words("boot/kernel").iter().map(|word| word.text.as_str()).collect();
        for word in self.words("boot/kernel") {
            if !word.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(SpecError::at(
                    &word.origin,
                    format!("{:?} cannot be a kernel's name", word.text),
                )
                .label("letters, digits and underscores: catalyst's scripts lose the settings of others"));
            }
        }
        if let Some(word) = self.words("livecd/verify").first().filter(|word| word.text != "blake2") {
            return Err(SpecError::at(&word.origin, "livecd/verify has one value").label("blake2"));
        }
        let known = |key: &str| {
            let of_kernel = || {
                let (kernel, option) = key.strip_prefix("boot/kernel/")?.rsplit_once('/')?;
                Some(kernels.contains(&kernel) && KERNEL.contains(&option))
            };
            let of_target = if is_stage1 { STAGE1.contains(&key) } else { STAGE2.contains(&key) };
            COMMON.contains(&key) || of_target || (!is_stage1 && of_kernel() == Some(true))
        };
        match self.keys.iter().find(|(key, _)| !known(key)) {
            None => Ok(()),
            Some((key, (origin, _))) => Err(SpecError::at(origin, format!("catalyst has no key {key:?}"))
                .label("unknown to this target")
                .hint("catalyst takes every line with a colon for a key, in a list as well")),
        }
    }

    fn words(&self, key: &str) -> &[Word] {
        self.keys.get(key).map_or(&[], |(_, words)| words)
    }

    fn texts(&self, key: &str) -> Vec<String> {
        self.words(key).iter().map(|word| word.text.clone()).collect()
    }

    /// Returns the one word at a key that is there.
    fn one(&self, key: &str) -> Result<&Word, Box<SpecError>> {
        match self.words(key) {
            [word] => Ok(word),
            [first, ..] => {
                Err(SpecError::at(&first.origin, format!("{key} has several words")).label("one word"))
            }
            [] => Err(SpecError::at(&self.origin, format!("the key {key:?} is missing"))),
        }
    }

    fn optional(&self, key: &str) -> Result<Option<&Word>, Box<SpecError>> {
        if self.words(key).is_empty() { Ok(None) } else { self.one(key).map(Some) }
    }

    /// Returns the settings of the step `catalyst`.
    fn step(&self) -> toml::Table {
        let values = self.keys.iter().map(|(key, (_, words))| {
            let words: Vec<toml::Value> = words.iter().map(|word| word.text.as_str().into()).collect();
            (key.clone(), toml::Value::Array(words))
        });
        toml::Table::from_iter([
            ("step".to_owned(), "catalyst".into()),
            ("values".to_owned(), toml::Table::from_iter(values).into()),
        ])
    }

    /// A graph of one node: the tarball that livecd-stage2 begins with.
    fn stage1(&self) -> Result<Read, Box<SpecError>> {
        let [subarch, stamp] = [self.one("subarch")?, self.one("version_stamp")?];
        let name = format!("{STAGE1_TARGET}-{}-{}", subarch.text, stamp.text);
        let text = |text: &str| toml::Value::from(text);
        let image = toml::Table::from_iter([
            ("name".to_owned(), text(&name)),
            ("title".to_owned(), text("LiveCD")),
            ("label".to_owned(), text("gentoo")),
            ("volume_id".to_owned(), text("none")),
            ("timestamp".to_owned(), text(&date_of(&stamp.text).map_or(stamp.text.clone(), Timestamp::text))),
        ]);
        let nodes = toml::Table::from_iter([("stage1".to_owned(), self.step().into())]);
        let publish = toml::Table::from_iter([(".".to_owned(), vec![text("stage1.files")].into())]);
        let spec = toml::Table::from_iter([
            ("image".to_owned(), image.into()),
            ("node".to_owned(), nodes.into()),
            ("publish".to_owned(), publish.into()),
        ]);
        Ok(Read {
            item: self.item(&spec.to_string())?,
            set: self.texts("livecd/stagegraph_set"),
            refused: None,
        })
    }

    /// The graph over the chroot that livecd-stage2 leaves.
    fn stage2(&self, configuration: &Configuration) -> Result<Read, Box<SpecError>> {
        let set = self.texts("livecd/stagegraph_set");
        let wanted = self.wanted(configuration)?;
        let spec = wanted.spec(self.step(), &set).map_err(|error| {
            let origin = self.words(error.key).first().map_or(&self.origin, |word| &word.origin);
            SpecError::at(origin, error.to_string()).label("cannot be done")
        })?;
        Ok(Read { item: self.item(&spec.to_string())?, set, refused: wanted.refused_iso() })
    }

    fn wanted(&self, configuration: &Configuration) -> Result<Wanted, Box<SpecError>> {
        let stamp = &self.one("version_stamp")?.text;
        let subarch = &self.one("subarch")?.text;
        let profile = &self.one("profile")?.text;
        // default/linux/ARCH/23.0/…, with the repository's name in front of it where it is another one.
        let path = profile.rsplit_once(':').map_or(profile.as_str(), |(_, path)| path);
        let of_profile = || path.strip_prefix("default/linux/")?.split('/').next();
        let arch = configuration.arch(subarch).or_else(of_profile).unwrap_or(subarch);
        let day = date_of(stamp).map(Timestamp::day).unwrap_or_default();
        let volume_id = match self.texts("livecd/volid") {
            words if words.is_empty() => format!("Gentoo-{subarch}-{day}"),
            words => words.join(" "),
        };
        let kernels = self.words("boot/kernel").iter().map(|word| {
            let name = &word.text;
            let key = |option: &str| format!("boot/kernel/{name}/{option}");
            let is_dracut = self.optional(&key("distkernel"))?.is_some_and(|word| word.text == "yes");
            let family = if is_dracut { Family::Dracut } else { Family::Genkernel };
            Ok(Kernel { name: name.clone(), family, consoles: self.texts(&key("console")) })
        });
        let partition = match self.optional("livecd/iso_extra_partition")? {
            Some(word) => Some(word.text.parse().map_err(|_| {
                SpecError::at(&word.origin, format!("{:?} is no number of KiB", word.text))
                    .label("not a number")
            })?),
            None => None,
        };
        let interpreter = self.texts("interpreter").join(" ");
        let fstype = self.optional("livecd/fstype")?.map_or("squashfs", |word| &word.text);
        let netboot = match self.keys.contains_key("livecd/netboot") {
            true => self.texts("livecd/netboot"),
            false => vec!["ipxe".to_owned()],
        };
        Ok(Wanted {
            iso: self.one("livecd/iso")?.text.as_str().into(),
            volume_id,
            arch: arch.to_owned(),
            interpreter: (!interpreter.is_empty()).then_some(interpreter),
            root: None,
            fstype: fstype.to_owned(),
            fsops: self.texts("livecd/fsops"),
            verify: !self.words("livecd/verify").is_empty(),
            extra_partition_kib: partition,
            bootargs: self.texts("livecd/bootargs"),
            kernels: kernels.collect::<Result<_, Box<SpecError>>>()?,
            netboot,
            digests: configuration.digests.clone(),
            digest_format: configuration.digest_format.clone(),
            version_stamp: stamp.clone(),
        })
    }

    /// Makes a generated spec's values point to where they came from.
    fn item(&self, text: &str) -> Result<Item, Box<SpecError>> {
        let name = format!("the graph of {}", self.origin.source.name);
        let generated = Arc::new(Source { name, text: text.to_owned() });
        let mut item = Item::parse(&generated)?;
        self.point(&mut item, &mut Vec::new());
        Ok(item)
    }

    fn point(&self, item: &mut Item, path: &mut Vec<String>) {
        item.origin = self.source_of(path);
        match &mut item.value {
            Value::Table(table) => {
                for (key, item) in table {
                    path.push(key.clone());
                    self.point(item, path);
                    path.pop();
                }
            }
            Value::List(items) => {
                for (number, item) in items.iter_mut().enumerate() {
                    path.push(number.to_string());
                    self.point(item, path);
                    path.pop();
                }
            }
            Value::Text(_) | Value::Integer(_) | Value::Bool(_) => {}
        }
    }

    /// Returns where the value at a path of the generated spec came from.
    fn source_of(&self, path: &[String]) -> Origin {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let key = match path[..] {
            ["node", _, "values", key, ..] => key,
            ["image", "name", ..] => "livecd/iso",
            ["image", "volume_id", ..] => "livecd/volid",
            ["image", "timestamp", ..] => "version_stamp",
            ["image", "bootargs", ..] => "livecd/bootargs",
            ["image", "label", ..] | ["node", "kernel" | "initrd", ..] => "boot/kernel",
            ["node", "squashfs", ..] => "livecd/fsops",
            ["node", "iso", "extra_partition_kib"] => "livecd/iso_extra_partition",
            _ => "target",
        };
        let words = self.words(key);
        let number = path.last().and_then(|last| last.parse::<usize>().ok()).unwrap_or(0);
        let word = words.get(number).or(words.first()).map(|word| word.origin.clone());
        word.or_else(|| Some(self.keys.get(key)?.0.clone())).unwrap_or_else(|| self.origin.clone())
    }
}

/// Reads the values that stand in a table of a spec, and refuses what catalyst would refuse. `filled` puts in what
/// stands for placeholders.
///
/// # Errors
/// [`SpecError`], which points to the key or the word.
pub fn read_values(item: &Item, filled: &dyn Fn(&str) -> String) -> Result<Values, Box<SpecError>> {
    let mut keys = BTreeMap::new();
    for (key, item) in item.entries()? {
        let items = match &item.value {
            Value::List(items) => &items[..],
            _ => std::slice::from_ref(item),
        };
        let mut words = Vec::new();
        for item in items {
            let text = filled(item.as_text()?);
            if let Some((_, name, _)) = placeholder(&text) {
                return Err(SpecError::at(&item.origin, format!("nothing stands for @{name}@"))
                    .label("a placeholder")
                    .hint(format!(
                        "give it: --set {name}=…; or make the root of Debian's packages: step = \"debian\""
                    )));
            }
            words.extend(
                text.split_whitespace()
                    .map(|word| Word { text: word.to_owned(), origin: item.origin.clone() }),
            );
        }
        keys.insert(key.to_owned(), (item.origin.clone(), words));
    }
    let release = Release { keys, origin: item.origin.clone() };
    release.check()?;
    let values: Values = release.keys.keys().map(|key| (key.clone(), release.texts(key))).collect();
    match render(&values) {
        Ok(_) => Ok(values),
        Err(word) => {
            Err(SpecError::at(&item.origin, format!("catalyst's specs cannot hold the word {word:?}"))
                .label("no '#', and no quotes at an end beside a colon"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SpecErrors;

    const SPEC: &str = "\
# A comment: with a colon.
subarch: amd64
target: livecd-stage2
version_stamp: @TIMESTAMP@
rel_type: 23.0-default # the release
profile: default/linux/amd64/23.0/no-multilib
snapshot_treeish: @TREEISH@
source_subpath: %(rel_type)s/livecd-stage1-%(subarch)s-@TIMESTAMP@
livecd/bootargs: dokeymap nodhcp
livecd/fstype: \"squashfs\"
livecd/iso: install-amd64-minimal-@TIMESTAMP@.iso
livecd/volid: Gentoo-amd64-@DATESTAMP@
boot/kernel: gentoo
boot/kernel/gentoo/distkernel: yes
boot/kernel/gentoo/console: ttyS0,115200
livecd/rm:
\t/boot/System* # not needed
\t/etc/*-

livecd/rcdel:
livecd/users: none
boot/kernel/gentoo/dracut_args: -I \"busybox vi\" --x
livecd/empty:
\t/a%%b %(subarch)s
\t\"/c d\"
livecd/motd: /etc/motd
livecd/motd: %(livecd/motd)s/more
";

    fn fill() -> BTreeMap<String, String> {
        [("TIMESTAMP", "20250101T120000Z"), ("TREEISH", "abc")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into()
    }

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { name: "x.spec".to_owned(), text: text.to_owned() })
    }

    fn refused(text: &str) -> String {
        let error = read(&source(text), &fill(), &Configuration::default()).err().unwrap();
        SpecErrors::from(error).render().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_release_spec_is_read_as_catalyst_reads_it() {
        let release = Release::read(&source(SPEC), &fill()).unwrap();
        release.check().unwrap();
        assert_eq!(release.texts("livecd/rm"), ["/boot/System*", "/etc/*-"]);
        assert_eq!(release.texts("source_subpath"), ["23.0-default/livecd-stage1-amd64-20250101T120000Z"]);
        assert_eq!(release.texts("livecd/fstype"), ["squashfs"]);
        // As catalyst has them: quotes inside, percent signs on lines of their own, a key that is put into itself.
        assert_eq!(release.texts("boot/kernel/gentoo/dracut_args"), ["-I", "\"busybox", "vi\"", "--x"]);
        assert_eq!(release.texts("livecd/empty"), ["/a%%b", "%(subarch)s", "\"/c", "d\""]);
        assert_eq!(release.texts("livecd/motd"), ["/etc/motd/more"]);
        assert!(!release.keys.contains_key("livecd/rcdel"), "a key without words is no key");
        assert!(release.keys["livecd/users"].1.is_empty(), "none stands for none");
        let wanted = release.wanted(&Configuration::default()).unwrap();
        assert_eq!((wanted.volume_id.as_str(), wanted.arch.as_str()), ("Gentoo-amd64-20250101", "amd64"));
        assert_eq!(wanted.kernels[0].family, Family::Dracut);
        assert_eq!(wanted.kernels[0].consoles, ["ttyS0,115200"]);
        // What is written for catalyst says the same.
        let values: Values = release.keys.keys().map(|key| (key.clone(), release.texts(key))).collect();
        let again = Release::read(&source(&render(&values).unwrap()), &fill()).unwrap();
        for key in release.keys.keys() {
            assert_eq!(again.texts(key), release.texts(key), "{key}");
        }
        assert_eq!(render(&[("key".to_owned(), vec!["a#b".to_owned()])].into()), Err("a#b".to_owned()));
    }

    #[test]
    fn values_of_the_graph_point_to_where_they_came_from() {
        let read = read(&source(SPEC), &fill(), &Configuration::default()).unwrap();
        let at = |path: &[&str]| {
            let item = path.iter().fold(&read.item, |item, key| item.get(key).unwrap());
            &SPEC[item.origin.span.clone()]
        };
        assert_eq!(at(&["image", "volume_id"]), "Gentoo-amd64-@DATESTAMP@");
        assert_eq!(at(&["image", "timestamp"]), "@TIMESTAMP@");
        assert_eq!(at(&["node", "stage2", "values", "livecd/rm"]), "/boot/System*");
        let Value::List(rm) = &read
            .item
            .get("node")
            .unwrap()
            .get("stage2")
            .unwrap()
            .get("values")
            .unwrap()
            .get("livecd/rm")
            .unwrap()
            .value
        else {
            panic!("not a list");
        };
        assert_eq!(&SPEC[rm[1].origin.span.clone()], "/etc/*-");
        assert_eq!(read.refused, None);
    }

    #[test]
    fn what_is_wrong_is_shown_where_it_stands() {
        for (from, to, says) in [
            ("@TREEISH@", "@REPO_DIR@/@KCONFIG@", "nothing stands for @REPO_DIR@ x.spec:7"),
            ("@TREEISH@", "@REPO_DIR@/@KCONFIG@", "give it: --set REPO_DIR=… --set KCONFIG=…"),
            ("livecd/bootargs", "livecd/botargs", "catalyst has no key \"livecd/botargs\" x.spec:9"),
            ("\t/etc/*-", "\tsys-apps/foo:2", "catalyst has no key \"sys-apps/foo\""),
            ("%(subarch)s", "%(arch)s", "no earlier key is called \"arch\""),
            ("%(subarch)s", "100%", "a percent sign that stands for nothing"),
            ("livecd-stage2\n", "stage3\n", "the target \"stage3\" makes no live medium"),
            ("livecd/iso: install-amd64-minimal-@TIMESTAMP@.iso\n", "", "the key \"livecd/iso\" is missing"),
            ("# A comment: with a colon.", "some words", "these words belong to no key"),
            ("@TIMESTAMP@.iso", "@TIMESTAMP@.img", "does not end in .iso x.spec:11"),
            (
                "Gentoo-amd64-@DATESTAMP@",
                "Gentoo Linux",
                "has a blank in it, and the kernel gentoo comes with dracut",
            ),
            ("rel_type: 23.0-default", "my key: 23.0-default", "\"my key\" is not a key"),
            ("livecd/users:", "livecd/users :", "\"livecd/users \" is not a key"),
            (
                "-@TIMESTAMP@.iso",
                "-%(livecd/bootargs)s.iso",
                "livecd/bootargs has 2 words; one can be put in",
            ),
            ("boot/kernel: gentoo", "boot/kernel: gentoo-dist", "\"gentoo-dist\" cannot be a kernel's name"),
            ("livecd/users: none", "livecd/verify: false", "livecd/verify has one value"),
            ("dokeymap nodhcp", "dokeymap\rnodhcp", "the control character '\\r'"),
        ] {
            let text =
                refused(&SPEC.replacen(from, to, 1)).replace("╭─[", "").replace("[", "").replace("│ ", "");
            assert!(text.contains(says), "{says}: {text}");
        }
    }

    proptest::proptest! {
        /// Whatever stands in a spec: it is refused, or catalyst is told what was read.
        #[test]
        fn what_catalyst_is_told_is_what_was_read(
            lines in proptest::collection::vec(
                "(livecd/rm|livecd/fsops|repos|cflags)?:?[ \t]?[a-z:%#@\"()/*=| A-Z-]{0,12}", 0..6)
        ) {
            let text = format!("{SPEC}{}\n", lines.join("\n"));
            if let Ok(read) = read(&source(&text), &fill(), &Configuration::default()) {
                let values = read.item.get("node").unwrap().get("stage2").unwrap().get("values").unwrap().clone();
                // A word with a colon cannot stand beside a quote at an end.
                let Ok(values) = read_values(&values, &str::to_owned) else { return Ok(()) };
                if let Ok(told) = render(&values) {
                    let again = Release::read(&source(&told), &fill()).unwrap();
                    let again: Values = again.keys.keys().map(|key| (key.clone(), again.texts(key))).collect();
                    proptest::prop_assert_eq!(again, values);
                }
            }
        }
    }

    #[test]
    fn what_catalyst_is_configured_to_do_counts_as_it_does_for_the_target() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("catalyst.conf");
        std::fs::create_dir(dir.path().join("arch")).unwrap();
        std::fs::write(dir.path().join("arch/amd64.toml"), "[amd64.znver3]\nCOMMON_FLAGS = ''\n").unwrap();
        let text =
            format!("sharedir = '{}'\ndigests = ['sha256']\ndigest_format = 'bsd'\n", dir.path().display());
        std::fs::write(&conf, text).unwrap();
        let configuration = Configuration::read(&conf).unwrap();
        let text = SPEC.replace("subarch: amd64", "subarch: znver3").replace("default/linux/amd64/", "mine/");
        let wanted = Release::read(&source(&text), &fill()).unwrap().wanted(&configuration).unwrap();
        assert_eq!((wanted.arch.as_str(), wanted.refused_iso()), ("amd64", None));
        assert_eq!((wanted.digests, wanted.digest_format.as_str()), (vec!["sha256".to_owned()], "bsd"));
    }

    #[test]
    fn of_no_iso_it_says_so() {
        let text = SPEC.replace("default/linux/amd64", "default/linux/sparc");
        assert!(
            read(&source(&text), &fill(), &Configuration::default())
                .unwrap()
                .refused
                .unwrap()
                .starts_with("livecd/iso: install-")
        );
    }
}
