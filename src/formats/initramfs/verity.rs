//! What an initramfs has to have its squashfs checked block by block (dm-verity).

use serde::{Deserialize, Serialize};

use super::files::{Files, Node};
use crate::formats::verity;

/// Where dracut has its hooks: dracut-ng, and those before it.
const HOOKS: [&str; 3] = ["var/lib/dracut/hooks", "usr/lib/dracut/hooks", "lib/dracut/hooks"];

/// Programs that the hook calls, and where they are.
const PROGRAMS: [&str; 2] = ["dmsetup", "losetup"];
const PLACES: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// The kernel's module, which its own list has where it is no module.
const MODULE: &str = "dm-verity.ko";

/// What an initramfs has for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verity {
    /// The folder of dracut's hooks, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<String>,
    /// What it lacks; nothing where it can have its squashfs checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// By what it has its squashfs checked already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<verity::Checks>,
    /// Whether the kernel's own list has the module.
    #[serde(skip)]
    is_built_in: bool,
}

impl Verity {
    /// Tells whether it has nothing to say.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Tells whether a file's text says something of it, by its path once all is unpacked.
    pub(super) fn is_told_by(path: &str) -> bool {
        is_list(path) || path == verity::CHECKS
    }

    /// Takes what a file's text says.
    pub(super) fn take(&mut self, path: &str, text: &str) {
        if is_list(path) {
            self.is_built_in |= text.lines().any(|line| line.ends_with(&format!("/{MODULE}")));
        } else {
            self.checks = verity::Checks::parse(text);
        }
    }

    /// Finds out what an initramfs that was read has; `is_live` tells whether it has dracut's module for live media.
    pub(super) fn judge(&mut self, files: &Files, is_live: bool) {
        let made = |path: &str| files.get(&files.resolve(path)?).map(|made| &made.node);
        let is_folder = |path: &&str| made(path) == Some(&Node::Folder);
        let hooks = HOOKS.iter().copied().find(is_folder).and_then(|path| files.resolve(path));
        let has =
            |name: &str| PLACES.iter().any(|place| made(&format!("{place}/{name}")) == Some(&Node::File));
        let is_module = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or(path);
            name.strip_prefix(MODULE).is_some_and(|end| end.is_empty() || end.starts_with('.'))
        };
        let has_module = self.is_built_in || files.iter().any(|(path, _)| is_module(&path.to_string()));
        let mut lacks = Vec::new();
        if !is_live || hooks.is_none() {
            lacks.push("dracut's module dmsquash-live".to_owned());
        }
        // The kernel makes no folder that no entry makes.
        lacks.extend((!is_folder(&"etc")).then(|| "a folder etc".to_owned()));
        lacks.extend(PROGRAMS.iter().filter(|name| !has(name)).map(|name| (*name).to_owned()));
        lacks.extend((!has_module).then(|| MODULE.to_owned()));
        self.hooks = hooks.map(|path| path.to_string());
        self.lacks = lacks;
    }
}

/// The list of what would be modules, and is in the kernel itself.
fn is_list(path: &str) -> bool {
    path.ends_with("/modules.builtin")
}
