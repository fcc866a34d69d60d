//! Why a step failed, and whose fault that is.

use std::error::Error;
use std::fmt;

use cache::ingest::IngestError;
use cache::{FileError, StoreError};

use crate::sandbox::SandboxError;
use crate::tool::ToolError;

/// Whose fault an error is; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The action failed.
    Action,
    /// The spec asks for something that cannot be.
    Spec,
    /// The store, the sandbox, a missing tool or the network failed.
    Environment,
}

/// Why a step failed.
///
/// It stands for the error it was made of: it shows that error's message, and goes on with that error's causes.
#[derive(Debug)]
pub struct StepError {
    /// Whose fault it is.
    pub fault: Fault,
    /// What to do next, where the step knows better than the program does.
    pub hint: Option<String>,
    cause: Box<dyn Error + Send + Sync>,
}

impl StepError {
    /// Wraps an error.
    pub fn new(fault: Fault, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { fault, hint: None, cause: cause.into() }
    }

    /// The action failed.
    pub fn action(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Fault::Action, cause)
    }

    /// The spec asks for something that cannot be.
    pub fn spec(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Fault::Spec, cause)
    }

    /// The machine lacks something.
    pub fn environment(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Fault::Environment, cause)
    }

    /// Says what to do next.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Returns the error it was made of.
    pub fn cause(&self) -> &(dyn Error + 'static) {
        &*self.cause
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for StepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

impl From<FileError> for StepError {
    fn from(error: FileError) -> Self {
        Self::environment(error)
    }
}

impl From<IngestError> for StepError {
    fn from(error: IngestError) -> Self {
        Self::environment(error)
    }
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::environment(error)
    }
}

impl From<ToolError> for StepError {
    fn from(error: ToolError) -> Self {
        // A toolbox has what the spec says.
        let is_spec = matches!(error, ToolError::NotInToolbox { .. } | ToolError::NeedsSandbox);
        Self::new(if is_spec { Fault::Spec } else { Fault::Environment }, error)
    }
}

impl From<SandboxError> for StepError {
    fn from(error: SandboxError) -> Self {
        Self::new(if error.is_tools_fault() { Fault::Action } else { Fault::Environment }, error)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use cache::causes;

    use super::*;

    #[test]
    fn an_error_of_a_file_keeps_verb_path_and_cause() {
        let file =
            FileError { what: "write", path: "/out/image".into(), source: io::Error::other("no room") };
        let error = StepError::from(file);
        assert_eq!(causes(&error), ["write /out/image", "no room"]);
        assert_eq!(error.fault, Fault::Environment);
        assert!(error.cause().is::<FileError>());
    }

    #[test]
    fn a_cause_that_is_part_of_the_message_is_not_repeated() {
        let inner = StepError::action("no such level");
        assert_eq!(causes(&StepError::action(inner)), ["no such level"]);
    }
}
