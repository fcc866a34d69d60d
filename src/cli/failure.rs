//! Exit codes, errors and output, as every verb has them.

use crate::config::SpecError;
use crate::publish::PublishError;

/// All went well.
pub(super) const DONE: u8 = 0;
/// An action failed, or an audit found a difference.
pub(super) const FAILED: u8 = 1;
/// The spec or the command line is wrong.
pub(super) const WRONG: u8 = 2;
/// The store, the sandbox or the network failed.
pub(super) const ENVIRONMENT: u8 = 3;

/// A message and the exit code it stands for.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn environment(message: impl Into<String>) -> Self {
        Self { code: ENVIRONMENT, message: message.into() }
    }
}

impl From<cache::StoreError> for Failure {
    fn from(error: cache::StoreError) -> Self {
        Self::environment(with_causes(&error))
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        let code = if error.is_specs_fault() { WRONG } else { ENVIRONMENT };
        Self { code, message: with_causes(&error) }
    }
}

/// Writes an error with what caused it.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some libraries repeat their cause.
        if !message.ends_with(&text) {
            message.push_str(&format!(": {text}"));
        }
        next = cause.source();
    }
    message
}

impl From<Box<SpecError>> for Failure {
    fn from(error: Box<SpecError>) -> Self {
        Self { code: WRONG, message: format!("{:?}", miette::Report::new(*error)) }
    }
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

/// Prints a whole text; a reader that went away (`| head`) is no failure.
pub(super) fn print(text: &[u8]) -> Result<u8, Failure> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::environment(error.to_string())),
        _ => Ok(DONE),
    }
}
