//! What is run, and with what.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::foreign::Foreign;
use crate::tool::Tool;

/// One run of a tool.
pub struct Invocation<'a> {
    /// The program, what it may start and what it may read.
    pub tool: &'a Tool,
    /// Its arguments, without the program's own name.
    pub args: Vec<OsString>,
    /// The whole environment, but for `PATH`, `HOME`, `TMPDIR`, `LC_ALL` and `TZ`, which are fixed.
    pub env: BTreeMap<String, String>,
    /// Files and folders it may read, by their name below `in/`.
    pub inputs: BTreeMap<String, PathBuf>,
    /// Files and folders it finds at absolute paths, read-only, such as an `/etc/passwd`.
    pub mounts: BTreeMap<PathBuf, PathBuf>,
    /// The work folder: its current one, and the only one it may write to.
    pub work: &'a Path,
    /// Whether it needs root's powers inside (mounting, changing owners).
    pub privileged: bool,
    /// Programs of another machine that it starts; only root can have such a sandbox.
    pub foreign: Option<Foreign>,
}
