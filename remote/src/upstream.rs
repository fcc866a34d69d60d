//! What every kind of upstream here is, beside an upstream of a store.

use cache::upstream::Upstream;

use crate::counts::Counts;

/// An upstream, and what is known about its use in this process.
pub trait Remote: Upstream {
    /// Returns what was asked of it until now.
    fn counts(&self) -> &Counts;

    /// Asks it something cheap now, instead of when it is first needed.
    ///
    /// # Errors
    /// Why it cannot be used.
    fn greet(&self) -> Result<(), String>;

    /// Returns why it was given up, for a while or for good, if it was.
    fn failure(&self) -> Option<String>;
}
