//! What is known on one way through a script: the values of variables, and which conditions hold.
//!
//! What only the machine knows is written as the variable itself, `${name}`. A condition about it holds on one way and
//! does not hold on the other; when a way comes to the same condition again, it keeps to what it took it for.

use std::collections::BTreeMap;

/// Tells whether a part of a text is known to the machine alone.
pub(super) fn is_open(text: &str) -> bool {
    text.contains("${")
}

/// A condition, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Condition {
    /// It holds, or it does not.
    Known(bool),
    /// It is as the script's next command finds it: no two of them are the same.
    Any,
    /// The same text is always the same condition.
    Open {
        text: String,
        /// The variable that has a value where it holds.
        binds: Option<(String, String)>,
        /// Whether it holds where the text does not.
        is_negated: bool,
    },
}

impl Condition {
    /// One that the machine decides, always in the same way.
    pub(super) fn open(text: impl Into<String>) -> Self {
        Self::Open { text: text.into(), binds: None, is_negated: false }
    }

    /// Two texts are the same.
    pub(super) fn equal(a: &str, b: &str) -> Self {
        if !is_open(a) && !is_open(b) {
            return Self::Known(a == b);
        }
        if a == b {
            return Self::Known(true);
        }
        let variable = |text: &str| {
            let name = text.strip_prefix("${")?.strip_suffix('}')?;
            (!is_open(name)).then(|| name.to_owned())
        };
        let binds = match (variable(a), variable(b)) {
            (Some(name), None) if !is_open(b) => Some((name, b.to_owned())),
            (None, Some(name)) if !is_open(a) => Some((name, a.to_owned())),
            _ => None,
        };
        Self::Open { text: format!("{a}={b}"), binds, is_negated: false }
    }

    /// The opposite.
    pub(super) fn not(self) -> Self {
        match self {
            Self::Known(holds) => Self::Known(!holds),
            Self::Any => Self::Any,
            Self::Open { text, binds, is_negated } => Self::Open { text, binds, is_negated: !is_negated },
        }
    }
}

/// What is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Known {
    /// The values of variables.
    pub(super) values: BTreeMap<String, String>,
    /// What was taken to hold, or not to hold.
    taken: BTreeMap<String, bool>,
    /// Bytes of all values and their names.
    bytes: usize,
}

/// Bytes of all variables that are known at once, and of those handed to other menus: no real menu has a hundredth of it.
const MAX_VARIABLES: usize = 256 << 10;
pub(super) const MAX_HANDED: usize = 32 << 20;

/// What is said of a menu that sets more.
pub(super) const MANY_VARIABLES: &str =
    "it sets more variables than are read: not everything in it is judged";

/// Bytes of a variable beside its name and its value.
const NODE: usize = 64;

/// Returns what variables take in memory, about.
fn bytes_of(values: &BTreeMap<String, String>) -> usize {
    values.iter().map(|(name, value)| name.len() + value.len() + NODE).sum()
}

impl Known {
    pub(super) fn of(values: BTreeMap<String, String>) -> Self {
        let bytes = bytes_of(&values);
        Self { values, taken: BTreeMap::new(), bytes }
    }

    /// Returns what it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.taken.keys().map(|text| text.len() + NODE).sum::<usize>()
    }

    /// Gives a variable a value, if there is room for it; else only the machine knows it.
    pub(super) fn set(&mut self, name: &str, value: &str) -> bool {
        if let Some(before) = self.values.remove(name) {
            self.bytes = self.bytes.saturating_sub(name.len() + before.len() + NODE);
        }
        let more = name.len() + value.len() + NODE;
        let has_room = self.bytes + more <= MAX_VARIABLES;
        if has_room {
            self.bytes += more;
            self.values.insert(name.to_owned(), value.to_owned());
        }
        has_room
    }

    /// Forgets variables; returns those.
    pub(super) fn take_out(&mut self, goes: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let gone: Vec<(String, String)> = self.values.extract_if(.., |name, _| goes(name)).collect();
        let bytes: usize = gone.iter().map(|(name, value)| name.len() + value.len() + NODE).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        gone
    }

    /// Returns whether a condition holds on this way, where it is known.
    pub(super) fn holds(&self, condition: &Condition) -> Option<bool> {
        match condition {
            Condition::Known(holds) => Some(*holds),
            Condition::Any => None,
            Condition::Open { text, is_negated, .. } => self.taken.get(text).map(|holds| holds != is_negated),
        }
    }

    /// Takes a condition to hold, or not to.
    pub(super) fn take(&mut self, condition: &Condition, holds: bool) {
        let Condition::Open { text, binds, is_negated } = condition else { return };
        let holds = holds != *is_negated;
        match binds {
            Some((name, value)) if holds => {
                self.set(name, value);
            }
            _ => drop(self.taken.insert(text.clone(), holds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_stays_what_it_was_taken_for() {
        let efi = Condition::equal("${platform}", "efi");
        let (mut holds, mut fails) = (Known::default(), Known::default());
        assert_eq!(holds.holds(&efi), None);
        holds.take(&efi, true);
        fails.take(&efi, false);
        assert_eq!(holds.values.get("platform").map(String::as_str), Some("efi"));
        assert_eq!((fails.holds(&efi), fails.holds(&efi.clone().not())), (Some(false), Some(true)));
        let not = Condition::open("x").not();
        holds.take(&not, true);
        assert_eq!((holds.holds(&not), holds.holds(&Condition::open("x"))), (Some(true), Some(false)));
        assert_eq!(Condition::equal("a", "b"), Condition::Known(false));
        assert_eq!(Condition::equal("x${a}", "x${a}"), Condition::Known(true));
    }
}
