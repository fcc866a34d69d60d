//! Makes the spec of a netboot set out of an ISO that somebody published.
//!
//! Kernel, initrd and squashfs are taken as they are. The image's own arguments, the consoles and the title are those of
//! the ISO's menu, so that a machine booted from the network is told what one booted from the ISO is told.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::audit::{EntryFacts, MenuFacts, is_of_the_way, iso_menus};
use crate::cmdline::Token;
use crate::formats::iso9660::{Iso, IsoError};
use crate::image::is_plain_name;

/// Why no spec can be made.
#[derive(Debug, thiserror::Error)]
pub enum MenuError {
    /// The ISO.
    #[error(transparent)]
    Iso(#[from] IsoError),
    /// It has no menu.
    #[error("{0} has no menu that boots Linux; looked for grub.cfg, isolinux.cfg and syslinux.cfg")]
    NoMenu(PathBuf),
}

/// A spec, and what of the ISO's menu it could not take over.
pub(super) struct Made {
    pub(super) text: String,
    pub(super) remarks: Vec<String>,
}

/// Returns the text of a spec that extends `netboot` and takes the ISO at `path`.
///
/// # Errors
/// [`MenuError`].
pub(super) fn spec(path: &Path) -> Result<Made, MenuError> {
    let iso = Iso::open(path)?;
    let menus = iso_menus(&iso);
    let entries = || {
        menus
            .iter()
            .flat_map(|menu| menu.entries.iter().map(move |entry| (menu, entry)))
            .filter(|(_, e)| !e.is_memtest)
    };
    // What is booted where nobody chooses, in the first menu that boots anything.
    let first = entries().next().ok_or_else(|| MenuError::NoMenu(path.to_owned()))?;
    let is_default =
        |(menu, entry): &(&MenuFacts, &EntryFacts)| entry.is_default && std::ptr::eq(*menu, first.0);
    let (menu, first) = entries().find(is_default).unwrap_or(first);
    let mut remarks = Vec::new();
    // A word that no boot loader could be told, as one with a variable of GRUB's, was made for the medium.
    let mut token = |entry: &EntryFacts, menu: &MenuFacts, word: &str| match Token::new(word) {
        Ok(token) => Some(token.to_string()),
        Err(error) => {
            let remark = format!("{}:{}: left out: {error}", menu.file, entry.line);
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
            None
        }
    };
    let own = first.words.iter().filter(|word| !is_of_the_way(word) || *word == "nodhcp");
    let bootargs: Vec<String> = own.filter_map(|word| token(first, menu, word)).collect();
    let mut consoles = BTreeSet::new();
    for (menu, entry) in entries() {
        let named = entry.words.iter().filter_map(|word| word.strip_prefix("console="));
        consoles.extend(named.filter_map(|console| token(entry, menu, console)));
    }
    let kernels: BTreeSet<&str> = entries().filter_map(|(_, entry)| entry.kernel.as_deref()).collect();
    let label = match kernels.first().map(|kernel| kernel.rsplit('/').next().unwrap_or(kernel)) {
        Some(name) if is_plain_name(name) => name,
        _ => "linux",
    };
    let image = toml::Table::from_iter([
        ("name".to_owned(), "netboot".into()),
        ("title".to_owned(), title(first).into()),
        ("label".to_owned(), label.into()),
        // It is in no file of a netboot set.
        ("timestamp".to_owned(), "19700101T000000Z".into()),
        ("bootargs".to_owned(), bootargs.into()),
        ("consoles".to_owned(), consoles.into_iter().collect::<Vec<_>>().into()),
    ]);
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let import = toml::Table::from_iter([("path".to_owned(), path.to_string_lossy().into_owned().into())]);
    let node = toml::Table::from_iter([("stage2".to_owned(), import.into())]);
    let spec = toml::Table::from_iter([
        ("extends".to_owned(), "netboot".into()),
        ("image".to_owned(), image.into()),
        ("node".to_owned(), node.into()),
    ]);
    Ok(Made { text: spec.to_string(), remarks })
}

/// Returns what the menu calls the system: "Boot LiveCD (kernel: gentoo)" is about LiveCD.
fn title(entry: &EntryFacts) -> String {
    let title = entry.title.strip_prefix("Boot ").unwrap_or(&entry.title);
    let title = title.split(" (").next().unwrap_or(title).trim();
    let plain: String = title.chars().filter(|c| c.is_ascii_alphanumeric() || " ._+-".contains(*c)).collect();
    if plain.is_empty() { "Live system".to_owned() } else { plain }
}
