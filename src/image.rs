//! The image as a whole: its names, its dates, its boot arguments.

use std::collections::BTreeSet;

use crate::cmdline::Token;
use crate::config::{Fields, Item, SpecError, Value};

/// ISO 9660 has room for this many characters of a volume id.
const VOLUME_ID_MAX: usize = 32;

/// XFS makes no file system below 300 MiB.
pub const LEAST_PARTITION_KIB: i64 = 300 << 10;

/// The one date of everything in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// Returns it as `YYYYMMDDTHHMMSSZ`.
    pub fn text(self) -> String {
        self.0.strftime("%Y%m%dT%H%M%SZ").to_string()
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
    /// What menus call the system.
    pub title: String,
    /// The name of the kernel and of the initrd on the ISO and in the netboot folder.
    pub label: String,
    /// The ISO's volume id, by which the initramfs finds it.
    pub volume_id: String,
    /// The one date.
    pub timestamp: Timestamp,
    /// Kernel arguments in front of all others.
    pub bootargs: Vec<Token>,
    /// Consoles that menus offer.
    pub consoles: Vec<Token>,
}

/// Tells whether a text can stand in file names, menus and scripts as it is.
pub fn is_plain_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte))
}

impl Image {
    /// Reads `[image]`; tables in it named after a step count where a node runs that step.
    pub(crate) fn read<'a>(
        item: &Item,
        steps: impl Iterator<Item = &'a str>,
        kinds: &BTreeSet<&str>,
    ) -> Result<Self, Box<SpecError>> {
        let mut merged = item.clone();
        for name in steps {
            let Value::Table(table) = &mut merged.value else { break };
            let Some(own) = table.remove(name) else { continue };
            if kinds.contains(name) {
                merged = own.overlaid_on(merged)?;
            }
        }
        let fields = Fields::of(&merged, "[image]")?;
        let item = fields.required("timestamp")?;
        let timestamp = Timestamp::parse(item.as_text()?).ok_or_else(|| {
            SpecError::at(&item.origin, "this is not a date")
                .label("expected YYYYMMDDTHHMMSSZ, in UTC, 1970 to 2105")
        })?;
        let filled = |key: &'static str| {
            let text = fields.required_text(key)?;
            Ok::<_, Box<SpecError>>(timestamp.fill(text))
        };
        let image = Self {
            name: filled("name")?,
            title: filled("title")?,
            label: filled("label")?,
            volume_id: filled("volume_id")?,
            timestamp,
            bootargs: fields.get("bootargs").map_or(Ok(Vec::new()), tokens)?,
            consoles: fields.get("consoles").map_or(Ok(Vec::new()), tokens)?,
        };
        image.check(&fields)?;
        fields.finish()?;
        Ok(image)
    }

    fn check(&self, fields: &Fields<'_>) -> Result<(), Box<SpecError>> {
        let wrong = |key: &'static str, why: String, label: &str| {
            let origin = &fields.required(key)?.origin;
            Err(SpecError::at(origin, why).label(label))
        };
        if self.volume_id.len() > VOLUME_ID_MAX {
            let (id, length) = (&self.volume_id, self.volume_id.len());
            let why = format!("the volume id {id:?} has {length} characters; ISO 9660 holds {VOLUME_ID_MAX}");
            return wrong("volume_id", why, "too long");
        }
        if !is_plain_name(&self.volume_id) {
            let why = format!("the volume id {:?} cannot be found by an initramfs", self.volume_id);
            return wrong("volume_id", why, "letters, digits, '.', '_', '+' and '-' only");
        }
        if !is_plain_name(&self.name) || self.name.len() > 200 || self.name.contains(".tar") {
            let why = format!("{:?} cannot be the stem of published names", self.name);
            return wrong(
                "name",
                why,
                "letters, digits, '.', '_', '+' and '-' only; no \".tar\", 200 characters",
            );
        }
        if !is_plain_name(&self.label) || self.label.len() > 64 {
            return wrong("label", format!("{:?} cannot be a kernel's file name", self.label), "not a name");
        }
        if self.title.is_empty()
            || !self.title.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\'')
        {
            return wrong(
                "title",
                "a menu cannot show this title".to_owned(),
                "printable ASCII without quotes",
            );
        }
        Ok(())
    }

    /// Returns the ISO's published name.
    pub fn iso_name(&self) -> String {
        format!("{}.iso", self.name)
    }
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
        assert_eq!((time.day().as_str(), time.iso9660().as_str()), ("20260102", "2026010203040500"));
        for bad in
            ["", "2026-01-02", "20260102T030405", "20261302T030405Z", "19691231T235959Z", "21100101T000000Z"]
        {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }
}
