//! The image as a whole: its names, its dates, its boot arguments.

use std::collections::{BTreeMap, BTreeSet};

use cache::Sha256;
use serde::Serialize;

use crate::arch::Arch;
use crate::cmdline::Token;
use crate::config::{Fields, Item, Origin, SpecError, SpecErrors, Value};

/// ISO 9660 has room for this many characters of a volume id.
const VOLUME_ID_MAX: usize = 32;

/// XFS makes no file system below 300 MiB.
pub const LEAST_PARTITION_KIB: i64 = 300 << 10;

/// Stands for [`Image::arch`] in settings of nodes.
pub const TARGET: &str = "target";

/// Whose machines boot an image that does not say so.
const DEFAULT_ARCH: Arch = Arch::Amd64;

/// Stands for the date of the lock.
const OF_LOCK: &str = "lock";

/// The one date of everything in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// Reads `YYYYMMDDTHHMMSSZ`, the form of Gentoo's build dates.
    pub fn parse(text: &str) -> Option<Self> {
        let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
        let time = Self(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp());
        (time.text() == text && u32::try_from(time.0.as_second()).is_ok()).then_some(time)
    }

    /// Reads seconds since 1970, the form of `SOURCE_DATE_EPOCH`.
    pub fn from_epoch(text: &str) -> Option<Self> {
        let seconds: u32 = text.parse().ok()?;
        jiff::Timestamp::from_second(seconds.into()).ok().map(Self)
    }

    /// Reads the form of dates in archives' Release files: `Sun, 29 Nov 2026 00:53:13 UTC`.
    pub fn of_release(text: &str) -> Option<Self> {
        let civil = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S UTC", text).ok()?;
        Some(Self(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()))
    }

    /// Returns it as `YYYYMMDDTHHMMSSZ`.
    pub fn text(self) -> String {
        self.0.strftime("%Y%m%dT%H%M%SZ").to_string()
    }

    /// Returns it as RFC 3339 has dates: `YYYY-MM-DDThh:mm:ssZ`.
    pub fn rfc3339(self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// Returns the day as `YYYYMMDD`.
    pub fn day(self) -> String {
        self.0.strftime("%Y%m%d").to_string()
    }

    /// Puts it in for `@TIMESTAMP@` and `@DATESTAMP@`.
    pub fn fill(self, text: &str) -> String {
        text.replace("@TIMESTAMP@", &self.text()).replace("@DATESTAMP@", &self.day())
    }

    /// Returns it as ISO 9660 has dates: `YYYYMMDDhhmmss` and hundredths.
    pub fn iso9660(self) -> String {
        self.0.strftime("%Y%m%d%H%M%S00").to_string()
    }

    /// Returns it in seconds since 1970.
    pub fn epoch(self) -> u32 {
        // Both ways of making one checked it.
        u32::try_from(self.0.as_second()).unwrap_or(u32::MAX)
    }
}

/// What a spec says of the image as a whole.
#[derive(Debug, Clone)]
pub struct Image {
    /// The stem of every published name: `install-amd64-minimal-20260101T000000Z`.
    pub name: String,
    /// What menus call the system; graphs without menus need none.
    pub title: Option<String>,
    /// The name of the kernel and of the initrd on the ISO and in the netboot folder.
    pub label: Option<String>,
    /// The ISO's volume id, by which the initramfs finds it.
    pub volume_id: Option<String>,
    /// Whose machines boot it: boot loaders and packages are for this one.
    pub arch: Arch,
    /// The one date.
    pub timestamp: Timestamp,
    /// Kernel arguments in front of all others.
    pub bootargs: Vec<Token>,
    /// Consoles that menus offer.
    pub consoles: Vec<Token>,
    /// The kernels that are meant, by label, where a boot folder has several and does not say.
    pub kernels: BTreeMap<String, NamedKernel>,
    /// The hash of the lock that the image is made with, if there is one.
    pub lock: Option<Sha256>,
    /// The spec as it was understood, for the manifest.
    pub spec: serde_json::Value,
    /// Where all this is written.
    origin: Origin,
}

/// A kernel that a spec names, and its initrds in the order in which they are loaded; paths begin in the boot folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedKernel {
    /// The kernel.
    pub kernel: String,
    /// Its initrds; none where they are to be found.
    pub initrds: Vec<String>,
}

/// Tells whether a text can stand in file names, menus and scripts as it is.
pub fn is_plain_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(['.', '-']) && text.chars().all(is_plain)
}

/// Tells whether a character can stand in such a name.
pub fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-+".contains(c)
}

impl Image {
    /// Reads `[image]`, with what tables named after the steps of `kinds` lay over it; notes what is wrong in `errors`.
    /// What it returns then is of no use but to find more that is wrong.
    /// `of_lock` is the date that `timestamp = "lock"` stands for, or why it stands for none.
    pub(crate) fn read(
        item: &Item,
        kinds: &BTreeSet<&str>,
        of_lock: Result<Timestamp, String>,
        errors: &mut SpecErrors,
    ) -> Option<Self> {
        let mut merged = item.clone();
        for name in kinds {
            let Value::Table(table) = &mut merged.value else { break };
            if let Some(own) = table.remove(*name) {
                merged = errors.check(own.set_in(merged))?;
            }
        }
        let fields = errors.check(Fields::of(&merged, "[image]"))?;
        let timestamp = fields.required("timestamp").and_then(|item| {
            fields.check(item.as_text().and_then(|text| match (text, of_lock) {
                (OF_LOCK, of_lock) => {
                    of_lock.map_err(|why| SpecError::at(&item.origin, why).label("from the lock"))
                }
                _ => Timestamp::parse(text).ok_or_else(|| {
                    SpecError::at(&item.origin, "this is not a date")
                        .label("expected YYYYMMDDTHHMMSSZ, in UTC, 1970 to 2105, or \"lock\"")
                }),
            }))
        });
        let timestamp = timestamp.unwrap_or_default();
        let arch = fields.read("arch", |item| {
            let name = item.as_text()?;
            Arch::named(name).ok_or_else(|| {
                let known = Arch::names().collect::<Vec<_>>().join(", ");
                SpecError::at(&item.origin, format!("{name:?} is no architecture"))
                    .label(format!("expected one of {known}"))
            })
        });
        let arch = arch.unwrap_or(DEFAULT_ARCH);
        let filled = |key, check: fn(&str) -> Option<(String, &'static str)>| {
            let item = fields.get(key)?;
            // What is there and no text is not missing.
            let Some(text) = fields.check(item.as_text()) else { return Some(String::new()) };
            let text = timestamp.fill(text).replace("@ARCH@", arch.name());
            if let Some((why, label)) = check(&text) {
                fields.wrong(SpecError::at(&item.origin, why).label(label));
            }
            Some(text)
        };
        fields.required("name");
        let image = Self {
            name: filled("name", check_name).unwrap_or_default(),
            title: filled("title", check_title),
            label: filled("label", check_label),
            volume_id: filled(
                "volume_id",
                if kinds.contains("iso") { check_label_id } else { check_volume_id },
            ),
            arch,
            timestamp,
            bootargs: fields.read("bootargs", tokens).unwrap_or_default(),
            consoles: fields.read("consoles", tokens).unwrap_or_default(),
            kernels: named_kernels(&fields),
            lock: None,
            spec: serde_json::Value::Null,
            origin: merged.origin.clone(),
        };
        errors.check(fields.finish());
        Some(image)
    }

    /// Returns `value`, or notes that what `fields` are of needs it.
    fn needed(&self, fields: &Fields<'_>, key: &str, value: &Option<String>) -> String {
        if value.is_none() {
            let error = SpecError::at(&self.origin, format!("[image] needs {key:?}"));
            fields.wrong(error.label("it is missing here").hint(format!("{} uses it", fields.what())));
        }
        value.clone().unwrap_or_default()
    }

    /// Returns the title, for a step that needs one.
    pub fn title(&self, fields: &Fields<'_>) -> String {
        self.needed(fields, "title", &self.title)
    }

    /// Returns the label, for a step that needs one.
    pub fn label(&self, fields: &Fields<'_>) -> String {
        self.needed(fields, "label", &self.label)
    }

    /// Returns the volume id, for a step that needs one.
    pub fn volume_id(&self, fields: &Fields<'_>) -> String {
        self.needed(fields, "volume_id", &self.volume_id)
    }

    /// Returns the ISO's published name.
    pub fn iso_name(&self) -> String {
        format!("{}.iso", self.name)
    }
}

/// Reads the table `kernels`.
fn named_kernels(fields: &Fields<'_>) -> BTreeMap<String, NamedKernel> {
    let mut kernels = BTreeMap::new();
    for (label, item) in fields.entries("kernels") {
        let Some(own) = fields.check(Fields::of(item, &format!("[image.kernels.{label}]"))) else { continue };
        if let Some((why, right)) = check_label(label) {
            own.wrong(SpecError::at(&item.origin, why).label(right));
        }
        let initrds = own.read("initrd", |item| match item.as_list() {
            Ok(all) => all.iter().map(|item| item.as_text().map(str::to_owned)).collect(),
            Err(_) => Ok(vec![item.as_text()?.to_owned()]),
        });
        let named = NamedKernel {
            kernel: own.required_text("kernel").unwrap_or_default().to_owned(),
            initrds: initrds.unwrap_or_default(),
        };
        fields.check(own.finish());
        kernels.insert(label.to_owned(), named);
    }
    kernels
}

/// Tells what is wrong with a volume id, and what was expected.
fn check_volume_id(id: &str) -> Option<(String, &'static str)> {
    if id.len() > VOLUME_ID_MAX {
        let why = format!("the volume id {id:?} has {} characters; ISO 9660 holds {VOLUME_ID_MAX}", id.len());
        return Some((why, "too long"));
    }
    let is_good = id.split(' ').all(is_plain_name);
    let why = || format!("{id:?} cannot be a volume id");
    (!is_good).then(|| (why(), "letters, digits, '.', '_', '+' and '-', and single blanks between them"))
}

/// As [`check_volume_id`], of one that an initramfs may look for.
fn check_label_id(id: &str) -> Option<(String, &'static str)> {
    check_volume_id(id).or_else(|| {
        let why = || format!("the volume id {id:?} cannot be found by an initramfs");
        id.contains(' ').then(|| (why(), "letters, digits, '.', '_', '+' and '-' only"))
    })
}

/// As [`check_volume_id`], of the stem of published names.
fn check_name(name: &str) -> Option<(String, &'static str)> {
    let is_good = is_plain_name(name) && name.len() <= 200 && !name.contains(".tar");
    let label = "letters, digits, '.', '_', '+' and '-' only; no \".tar\", 200 characters";
    (!is_good).then(|| (format!("{name:?} cannot be the stem of published names"), label))
}

/// As [`check_volume_id`], of the file name of kernel and initrd.
fn check_label(label: &str) -> Option<(String, &'static str)> {
    let is_good = is_plain_name(label) && label.len() <= 64;
    (!is_good).then(|| (format!("{label:?} cannot be a kernel's file name"), "not a name"))
}

/// As [`check_volume_id`], of what menus call the system.
fn check_title(title: &str) -> Option<(String, &'static str)> {
    let is_good =
        !title.is_empty() && title.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\'');
    (!is_good).then(|| ("a menu cannot show this title".to_owned(), "printable ASCII without quotes"))
}

/// Reads a list of words for a kernel's command line.
///
/// # Errors
/// It is no list, or one of them cannot stand there.
pub fn tokens(item: &Item) -> Result<Vec<Token>, Box<SpecError>> {
    let token = |item: &Item| {
        Token::new(item.as_text()?)
            .map_err(|error| SpecError::at(&item.origin, error.to_string()).label("not one word"))
    };
    item.as_list()?.iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_has_one_form_and_drives_all_others() {
        let time = Timestamp::parse("20260102T030405Z").unwrap();
        assert_eq!(time.epoch(), 1_767_323_045);
        assert_eq!(Timestamp::from_epoch("1767323045"), Some(time));
        assert_eq!(Timestamp::of_release("Fri, 02 Jan 2026 03:04:05 UTC"), Some(time));
        assert_eq!((time.day().as_str(), time.iso9660().as_str()), ("20260102", "2026010203040500"));
        for bad in
            ["", "2026-01-02", "20260102T030405", "20261302T030405Z", "19691231T235959Z", "21100101T000000Z"]
        {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }
}
