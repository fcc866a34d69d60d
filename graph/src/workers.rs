//! Cores elsewhere, which do parts of a step's work.

use std::fmt;

/// Cores elsewhere. Those of a server of the Remote Execution API implement it, and in tests threads of this process.
///
/// What they give is never believed: a step compares it with what it asked for.
pub trait Workers: Send + Sync + fmt::Debug {
    /// Returns how many parts may be under way at once.
    fn lanes(&self) -> usize;

    /// Has a part done: `input` is what the program there reads, and what it writes is returned. Ends soon after `stop` says so.
    ///
    /// # Errors
    /// Why there is nothing; the step does the part itself.
    fn run(&self, input: &[u8], stop: &(dyn Fn() -> bool + Sync)) -> Result<Vec<u8>, String>;

    /// Takes in that what was given was wrong.
    fn gave_wrong(&self, why: &str);
}
