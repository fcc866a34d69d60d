//! Exit codes, errors and output, as every verb has them.

use std::error::Error;

use cache::causes;
use cache::{FileError, StoreError};
use graph::Fault;

use crate::config::SpecErrors;
use crate::hints;
use crate::publish::PublishError;
use crate::report::shown;

/// All went well.
pub(super) const DONE: u8 = 0;
/// An action failed, or an audit found a difference.
pub(super) const FAILED: u8 = 1;
/// The spec or the command line is wrong.
pub(super) const WRONG: u8 = 2;
/// The store, the sandbox or the network failed.
pub(super) const ENVIRONMENT: u8 = 3;

/// Why the program ends without having done what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) code: u8,
    /// What is wrong, with its causes.
    pub(super) message: String,
    /// What to do next.
    pub(super) hint: Option<String>,
}

impl Failure {
    /// The command line, or what it names, is wrong.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self { code: WRONG, message: message.into(), hint: None }
    }

    /// The store, the sandbox or the network failed.
    pub(super) fn environment(message: impl Into<String>) -> Self {
        Self { code: ENVIRONMENT, message: message.into(), hint: None }
    }

    /// An error, with its causes and what to do about it.
    pub(super) fn of(code: u8, error: &(dyn Error + 'static)) -> Self {
        Self { code, message: causes(error).join(": "), hint: hints::of(error) }
    }

    /// Says what to do next.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Prints it.
    pub(super) fn print(&self) {
        complain(&self.text());
    }

    /// Returns what is printed of it.
    pub(super) fn text(&self) -> String {
        let hint = self.hint.iter().map(|hint| format!("\n  hint: {hint}"));
        std::iter::once(format!("error: {}", self.message.trim())).chain(hint).collect()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::of(ENVIRONMENT, &error)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::of(ENVIRONMENT, &error)
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        Self::of(if error.is_specs_fault() { WRONG } else { ENVIRONMENT }, &error)
    }
}

impl From<SpecErrors> for Failure {
    fn from(errors: SpecErrors) -> Self {
        Self::wrong(errors.render())
    }
}

/// Returns the exit code for a node's failure.
pub(super) fn code_of(fault: Fault) -> u8 {
    match fault {
        Fault::Action => FAILED,
        Fault::Spec => WRONG,
        Fault::Environment => ENVIRONMENT,
    }
}

/// Says that a signal ended the build; returns the exit code a shell expects then.
pub(super) fn stopped(signal: u8, what: &str) -> u8 {
    complain(&format!("error: stopped; {what}"));
    128u8.saturating_add(signal)
}

/// Says what was asked for and could not be made, where all else was; returns the exit code.
pub(super) fn refused(what: Option<&str>) -> u8 {
    match what {
        None => DONE,
        Some(what) => {
            complain(&format!("error: {what}"));
            FAILED
        }
    }
}

/// Prints an error; where nobody can read it, the exit code still tells.
pub(super) fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Says something that came from elsewhere: nothing in it moves or asks the terminal.
pub(super) fn note(text: &str) {
    complain(&format!("note: {}", shown(text)));
}

/// Prints a whole text; a reader that went away (`| head`) is no failure.
pub(super) fn print(text: &[u8]) -> Result<u8, Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::environment(error.to_string())),
        _ => Ok(DONE),
    }
}
