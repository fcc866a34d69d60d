//! The audit: published bytes against published bytes.
//!
//! It reads an ISO and a netboot set as a user would download them, whoever made them, and knows nothing of how they
//! were built: its readers share no state with the writers. [`gather`] finds out, the checks judge.

mod checks;
mod facts;
mod gather;
mod loaders;
mod pass;
mod place;
mod programs;
mod release;
mod report;
mod set;
mod signatures;
mod sniff;
mod walk;

use std::io;

pub use self::checks::{CHECKS, is_check, is_of_the_way};
pub use self::facts::{CodeSignatureFacts, EntryFacts, Facts, Found, Kind, MenuFacts, SignatureFacts};
pub use self::gather::{GatherError, folder_menus, gather, iso_menus, may_be_menu};
pub use self::loaders::LoaderFacts;
pub use self::place::Place;
pub use self::release::{ReleaseError, verify};
pub use self::report::{Check, FileLine, Finding, Memory, Outcome, Report, SCHEMA, Verdict};
pub use self::set::{Set, SetError};
pub use self::signatures::{CODE_SIGNATURE, Trusted};
pub use self::sniff::{CODE_HEAD, takes_code_signature};
pub use self::walk::{Inside, Walk};
use crate::formats::iso9660::IsoError;

/// Audits an ISO against a netboot set; `trusted` says whose signatures count.
///
/// # Errors
/// [`GatherError`]: one of them could not be read. An ISO that is damaged is a finding, not an error.
pub fn audit(iso_name: &str, iso: &Place, set: Set, trusted: &Trusted) -> Result<Report, GatherError> {
    let shown = set.shown.clone();
    match gather(iso_name, iso, set, trusted) {
        Ok(facts) => Ok(checks::judge(&facts)),
        Err(GatherError::Iso(error)) if is_damage(&error) => {
            Ok(checks::unusable_iso(iso_name, &shown, &error))
        }
        Err(error) => Err(error),
    }
}

/// Tells whether an ISO is to blame itself, and not what it was read from.
fn is_damage(error: &IsoError) -> bool {
    match error {
        IsoError::NotAnIso { .. } | IsoError::Damaged { .. } => true,
        IsoError::Read { source, .. } => source.kind() == io::ErrorKind::UnexpectedEof,
    }
}
