//! Debian's packages: which apt would install, where they come from, what is in them.

pub(super) mod apt;
pub(super) mod deb;

use crate::config::{Fields, Item, SpecError};

/// apt's pattern for the packages that are nobody's dependency, because every system has them.
pub(super) const ESSENTIAL: &str = "?essential";

/// Reads the setting `packages`: names, with `=VERSION` where a version is meant.
pub(super) fn read(fields: &Fields<'_>, others: &[&str]) -> Vec<String> {
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:=~".contains(&byte))
    };
    fields.required("packages");
    let packages: Vec<(&str, &Item)> = fields.texts("packages");
    for (name, item) in &packages {
        if !others.contains(name) && (!is_word(name) || name.starts_with('-')) {
            fields.wrong(
                SpecError::at(&item.origin, format!("{name:?} is not the name of a package"))
                    .label("expected NAME or NAME=VERSION"),
            );
        }
    }
    packages.into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// Reads the setting `architecture`.
pub(super) fn architecture(fields: &Fields<'_>, step: &str) -> String {
    let known = fields.read("architecture", |item| match item.as_text()? {
        "amd64" => Ok("amd64"),
        _ => {
            let error = SpecError::at(&item.origin, format!("the step {step} takes packages for amd64 only"));
            Err(error.label("not amd64"))
        }
    });
    known.unwrap_or("amd64").to_owned()
}
