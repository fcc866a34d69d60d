//! What package managers say is installed in a root: dpkg's list and Portage's folders.

use super::control::field;

/// Where dpkg lists the packages of a root (`deb-control(5)`).
pub const DPKG: &str = "var/lib/dpkg/status";
/// Where Portage has a folder for each.
const PORTAGE: &str = "var/db/pkg/";

/// A package in dpkg's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deb<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its architecture, or `all`.
    pub architecture: &'a str,
    /// Who looks after it: a name, and an address in angle brackets.
    pub maintainer: Option<&'a str>,
    /// The source package it was made of, and its version where that is another one: `NAME (VERSION)`.
    pub source: Option<&'a str>,
    /// Where it is at home.
    pub homepage: Option<&'a str>,
}

/// Returns the packages of dpkg's list whose files are there: those that were removed, and have settings left, are not among them.
pub fn of_dpkg(status: &str) -> impl Iterator<Item = Deb<'_>> {
    status.split("\n\n").filter_map(|stanza| {
        // want, flag, status: "install ok installed". What is unpacked and waits to be set up is there.
        let is_there = field(stanza, "Status").is_none_or(|status| {
            !matches!(status.rsplit(' ').next(), Some("not-installed" | "config-files"))
        });
        is_there.then_some(())?;
        Some(Deb {
            name: field(stanza, "Package")?,
            version: field(stanza, "Version")?,
            architecture: field(stanza, "Architecture").unwrap_or("all"),
            maintainer: field(stanza, "Maintainer"),
            source: field(stanza, "Source"),
            homepage: field(stanza, "Homepage"),
        })
    })
}

/// Returns category and name, and version, of the package whose folder of Portage's a path is: `CATEGORY/NAME-VERSION` behind `var/db/pkg/`.
/// Paths below such a folder are none, nor are packages that were being merged when Portage was ended.
pub fn of_portage(path: &str) -> Option<(String, &str)> {
    let (category, full) = path.strip_prefix(PORTAGE)?.split_once('/')?;
    if full.contains('/') || full.starts_with('-') {
        return None;
    }
    let (name, version) = split_version(full)?;
    Some((format!("{category}/{name}"), version))
}

/// Splits `foo-bar-1.2-r3` into name and version, as PMS 3.2 has them: a version begins with a digit, and a revision
/// belongs to it.
fn split_version(full: &str) -> Option<(&str, &str)> {
    let (before, last) = full.rsplit_once('-')?;
    let is_revision = last
        .strip_prefix('r')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    let name = if is_revision { before.rsplit_once('-')?.0 } else { before };
    let version = &full[name.len() + 1..];
    version.starts_with(|c: char| c.is_ascii_digit()).then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_removed_is_not_installed() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2\nMaintainer: A <a@x>\n\n\
            Package: b\nStatus: deinstall ok config-files\nVersion: 1\n\n\
            Package: c\nStatus: install ok unpacked\nVersion: 3\nSource: d (2)\n\nPackage: no-version\n";
        let names: Vec<_> = of_dpkg(status).map(|deb| (deb.name, deb.version, deb.architecture)).collect();
        assert_eq!(names, [("a", "1:2", "amd64"), ("c", "3", "all")]);
        assert_eq!(of_dpkg(status).next().and_then(|deb| deb.maintainer), Some("A <a@x>"));
        assert_eq!(of_dpkg(status).nth(1).and_then(|deb| deb.source), Some("d (2)"));
    }

    #[test]
    fn a_version_begins_with_a_digit_and_has_its_revision() {
        let split = |path| of_portage(path).map(|(name, version)| (name, version.to_owned()));
        let is = |name: &str, version: &str| Some((name.to_owned(), version.to_owned()));
        assert_eq!(split("var/db/pkg/sys-apps/util-linux-2.41-r1"), is("sys-apps/util-linux", "2.41-r1"));
        assert_eq!(split("var/db/pkg/app-misc/foo-2bar-1.0"), is("app-misc/foo-2bar", "1.0"));
        assert_eq!(split("var/db/pkg/a/openssh-9.9_p2-r1"), is("a/openssh", "9.9_p2-r1"));
        assert_eq!(split("var/db/pkg/a/font-adobe-100dpi-1.0.4-r2"), is("a/font-adobe-100dpi", "1.0.4-r2"));
        assert_eq!(split("var/db/pkg/a/nothing"), None);
        assert_eq!(split("var/db/pkg/a/-MERGING-b-1"), None);
        assert_eq!(split("var/db/pkg/a/b-1/CONTENTS"), None);
        assert_eq!(split("var/db/pkg/a"), None);
    }
}
