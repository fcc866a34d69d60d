//! Who a tool is outside of its sandbox.
//!
//! Where the caller is root, the sandbox has a user namespace in which root is an id that nobody else has, and in which the caller's
//! own id does not exist: whatever asks for root's id (`/proc/sys`, files of root's) finds a stranger, even where the tool has all
//! capabilities inside. All other ids are the same inside and outside.

use std::fs;

/// The id that root is outside: none of those that systemd's and Debian's tables give to anybody (systemd's `UIDS-GIDS`).
const PREFERRED: u32 = 0x7000_5347;

/// What root must not be outside: root itself, and the id that stands for unknown ones.
const NOBODY: u32 = 65_534;

/// An id, and the maps that make root of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// What root is outside.
    pub(super) id: u32,
    /// The content of `uid_map`.
    pub(super) users: String,
    /// The content of `gid_map`.
    pub(super) groups: String,
}

impl Identity {
    /// Finds the identity for tools of this process's, who is root; nothing where root is all there is (in a container of a
    /// single id).
    pub(super) fn of_root() -> Option<Self> {
        let read =
            |kind: &str| fs::read_to_string(format!("/proc/self/{kind}_map")).ok().map(|text| extents(&text));
        Self::of(&read("uid")?, &read("gid")?)
    }

    fn of(users: &[(u32, u32)], groups: &[(u32, u32)]) -> Option<Self> {
        let has = |extents: &[(u32, u32)], id: u32| {
            extents.iter().any(|(start, count)| id >= *start && id - start < *count)
        };
        let is_free = |id: &u32| *id != 0 && *id != NOBODY && has(users, *id) && has(groups, *id);
        // In a container there may be few: the last of them.
        let ends = users.iter().flat_map(|(start, count)| {
            let last = start.saturating_add(count.saturating_sub(1));
            [last, last.saturating_sub(1), last.saturating_sub(2)]
        });
        let id = std::iter::once(PREFERRED).chain(ends).find(is_free)?;
        Some(Self { id, users: map(users, id), groups: map(groups, id) })
    }
}

/// Reads the ids that there are here out of a map: where each run starts, and how long it is.
fn extents(text: &str) -> Vec<(u32, u32)> {
    let lines = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let (start, _, count) = (numbers.next()?.ok()?, numbers.next()?, numbers.next()?.ok()?);
        Some((start, count))
    });
    lines.collect()
}

/// Returns a map in which root is `id`, root's own id is missing, and all others are themselves.
fn map(extents: &[(u32, u32)], id: u32) -> String {
    let mut lines = vec![format!("0 {id} 1")];
    for (start, count) in extents {
        let end = u64::from(*start) + u64::from(*count);
        let mut from = u64::from(*start);
        for cut in [0, u64::from(id)] {
            if (from..end).contains(&cut) {
                if cut > from {
                    lines.push(format!("{from} {from} {}", cut - from));
                }
                from = cut + 1;
            }
        }
        if end > from {
            lines.push(format!("{from} {from} {}", end - from));
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_a_stranger_outside_and_everybody_else_is_himself() {
        let all = extents("         0          0 4294967295\n");
        let identity = Identity::of(&all, &all).unwrap();
        assert_eq!(identity.id, PREFERRED);
        assert_eq!(
            identity.users,
            format!(
                "0 {PREFERRED} 1\n1 1 {}\n{} {1} {}\n",
                PREFERRED - 1,
                PREFERRED + 1,
                u32::MAX - PREFERRED - 1
            )
            .replace("{1}", &(PREFERRED + 1).to_string())
        );
        // A container of 65,536 ids: the last one stands for unknown ones.
        let few = extents("0 100000 65535\n");
        assert_eq!(Identity::of(&few, &few).unwrap().users, "0 65533 1\n1 1 65532\n65534 65534 1\n");
        let one = extents("0 1000 1\n");
        assert_eq!(Identity::of(&one, &one), None);
        let apart = extents("0 1000 1\n1 100000 65536\n");
        assert_eq!(Identity::of(&apart, &apart).unwrap().users, "0 65536 1\n1 1 65535\n");
    }
}
