//! The hash tree of the ISO's squashfs, where an initrd has that squashfs checked by one.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::AtomicBool;

use super::super::facts::{Kind, Part, span_of};
use super::super::pass::{self, Span, TreeFacts, Wanted};
use super::super::place::Place;
use super::super::set::Set;
use crate::formats::iso9660::Iso;
use crate::formats::verity;

/// How much of an initrd's end is looked at: what has the squashfs checked is the last of it.
const TAIL: u64 = 64 << 10;

fn names_it(tail: &[u8]) -> bool {
    tail.windows(verity::CHECKS.len()).any(|window| window == verity::CHECKS.as_bytes())
}

/// Returns where on the ISO its squashfs is.
fn squashfs(iso: &Iso, iso_parts: &BTreeMap<String, Part>) -> Option<Span> {
    let part = iso_parts.values().find(|part| part.kind == Kind::Squashfs)?;
    Some(span_of(&iso.file(part.name.trim_start_matches('/'))?.extents))
}

/// Returns where the squashfs is if its hash tree is wanted: the end of an initrd says so.
pub(super) fn wanted(
    iso: &Iso,
    iso_parts: &BTreeMap<String, Part>,
    set: &Set,
    parts: &BTreeMap<String, Part>,
) -> Option<Span> {
    let is_initrd = |part: &&Part| part.kind == Kind::Initramfs;
    let on_iso = iso_parts.values().filter(is_initrd).any(|part| {
        let Some(file) = iso.file(part.name.trim_start_matches('/')) else { return false };
        let Some((start, length)) = file.extents.last().copied() else { return false };
        let taken = length.min(TAIL);
        let mut tail = Vec::new();
        let read = iso.window(start + length - taken).take(taken).read_to_end(&mut tail);
        read.is_ok() && names_it(&tail)
    });
    let in_set = || {
        parts.values().filter(is_initrd).any(|part| {
            let taken = part.size.min(TAIL);
            let mut tail = vec![0; usize::try_from(taken).unwrap_or_default()];
            let place = set.files.get(&part.name).and_then(|place| place.open_at().ok());
            place.is_some_and(|file| file.read_exact_at(&mut tail, part.size - taken).is_ok())
                && names_it(&tail)
        })
    };
    if on_iso || in_set() { squashfs(iso, iso_parts) } else { None }
}

/// Returns the tree, where an initrd turned out to have the squashfs checked and nobody had thought of it.
pub(super) fn made_late(
    iso: &Iso,
    iso_place: &Place,
    iso_parts: &BTreeMap<String, Part>,
    parts: &BTreeMap<String, Part>,
) -> Option<TreeFacts> {
    let checks = |part: &Part| part.contents().is_some_and(|walk| walk.initramfs.verity.checks.is_some());
    if !iso_parts.values().chain(parts.values()).any(checks) {
        return None;
    }
    let wanted = Wanted { tree: squashfs(iso, iso_parts), ..Wanted::default() };
    let mut read = pass::read_all(&[(iso_place.clone(), wanted)], &AtomicBool::default());
    read.pop()?.ok()?.tree
}
