//! Giving up all files but those that are served, for good, where the kernel can (Landlock).

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus,
};

/// The newest rules that are asked for; a kernel with older ones keeps those that it knows.
const RULES: ABI = ABI::V5;

/// Lets this thread, and those that it begins, read below these folders, and do nothing else with any file: what is open stays open.
/// Tells whether the kernel sees to it; one that cannot is no reason not to serve.
///
/// # Errors
/// The kernel refused rules that it knows.
pub fn confine(folders: &[PathBuf]) -> Result<bool, RulesetError> {
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(RULES))?.create()?;
    // A folder that cannot be opened cannot be read either.
    for folder in folders.iter().filter_map(|folder| PathFd::new(folder).ok()) {
        ruleset = ruleset.add_rule(PathBeneath::new(folder, AccessFs::ReadFile | AccessFs::ReadDir))?;
    }
    Ok(ruleset.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::testing::Folder;

    #[test]
    fn only_what_is_served_can_be_read() {
        let (served, other) = (Folder::new(), Folder::new());
        for folder in [&served, &other] {
            std::fs::write(folder.join("file"), "text").unwrap();
        }
        let folders = vec![served.join("."), other.join("nothing")];
        // The rules are those of a thread, and of what it begins.
        let read = std::thread::scope(|scope| {
            let read = scope.spawn(|| {
                let is_confined = confine(&folders).unwrap();
                let can = |path: PathBuf| std::fs::read(path).is_ok();
                let can_write = std::fs::write(served.join("new"), "x").is_ok();
                (is_confined, can(served.join("file")), can(other.join("file")), can_write)
            });
            read.join().unwrap()
        });
        match read {
            (true, ..) => assert_eq!(read, (true, true, false, false)),
            (false, ..) => assert_eq!(read, (false, true, true, true), "this kernel has no Landlock"),
        }
    }
}
