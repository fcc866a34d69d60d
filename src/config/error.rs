//! Errors that point into a spec.

use std::fmt;

use miette::{Diagnostic, NamedSource, SourceSpan};

use super::origin::Origin;

/// One thing that is wrong with a spec, and where.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct SpecError {
    message: String,
    /// What to do next. The printer of diagnostics would call it "help".
    hint: Option<String>,
    #[source_code]
    source_code: Option<NamedSource<String>>,
    #[label("{label}")]
    span: Option<SourceSpan>,
    label: String,
}

impl SpecError {
    /// An error at a place of a file.
    pub fn at(origin: &Origin, message: impl Into<String>) -> Box<Self> {
        let source = &origin.source;
        Box::new(Self {
            message: message.into(),
            hint: None,
            source_code: Some(NamedSource::new(&source.name, source.text.clone()).with_language("TOML")),
            span: Some(origin.span.clone().into()),
            label: "here".to_owned(),
        })
    }

    /// An error that belongs to no file.
    pub fn nowhere(message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            message: message.into(),
            hint: None,
            source_code: None,
            span: None,
            label: String::new(),
        })
    }

    /// Says what is wrong with the marked place.
    pub fn label(mut self: Box<Self>, label: impl Into<String>) -> Box<Self> {
        self.label = label.into();
        self
    }

    /// Says what to do next.
    pub fn hint(mut self: Box<Self>, hint: impl Into<String>) -> Box<Self> {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the name of the text it points into, and the place there.
    fn place(&self) -> (Option<String>, usize) {
        let name = self.source_code.as_ref().map(|source| source.name().to_owned());
        (name, self.span.map_or(0, |span| span.offset()))
    }

    /// Tells whether another error says the same of the same place. (Settings of a command line have one name, but
    /// texts of their own.)
    fn is_same(&self, other: &Self) -> bool {
        let text = |error: &Self| error.source_code.as_ref().map(|source| source.inner().clone());
        self.message == other.message && self.place() == other.place() && text(self) == text(other)
    }
}

/// Everything that is wrong with a spec, in the order in which it was found.
#[derive(Debug, Default)]
pub struct SpecErrors(Vec<SpecError>);

impl SpecErrors {
    /// Adds an error; the same one is told once.
    pub fn push(&mut self, error: Box<SpecError>) {
        if !self.0.iter().any(|known| known.is_same(&error)) {
            self.0.push(*error);
        }
    }

    /// Adds what went wrong, if something did; returns what went well.
    pub fn check<T, E: Into<SpecErrors>>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(errors) => {
                errors.into().0.into_iter().for_each(|error| self.push(Box::new(error)));
                None
            }
        }
    }

    /// Says what to do next about those that do not say it themselves.
    pub fn with_hint(mut self, hint: &str) -> Self {
        for error in &mut self.0 {
            error.hint.get_or_insert_with(|| hint.to_owned());
        }
        self
    }

    /// Tells whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns `value`, if nothing is wrong.
    ///
    /// # Errors
    /// Something is.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// Writes all errors for people, each with its place in the file and its hint, file by file from top to bottom.
    pub fn render(mut self) -> String {
        self.0.sort_by_key(SpecError::place);
        let render = |error: SpecError| {
            let hint = error.hint.as_ref().map(|hint| format!("  hint: {hint}\n"));
            let text = format!("{:?}", miette::Report::new(error));
            format!("{}\n{}", text.trim_matches('\n'), hint.unwrap_or_default())
        };
        let sum = match self.0.len() {
            0 | 1 => String::new(),
            several => format!("\n{several} errors"),
        };
        self.0.into_iter().map(render).collect::<Vec<_>>().join("\n") + &sum
    }
}

impl From<Box<SpecError>> for SpecErrors {
    fn from(error: Box<SpecError>) -> Self {
        Self(vec![*error])
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&messages.join("; "))
    }
}

impl std::error::Error for SpecErrors {}
