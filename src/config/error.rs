//! Errors that point into a spec.

use miette::{Diagnostic, NamedSource, SourceSpan};

use super::origin::Origin;

/// What is wrong with a spec, and where.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct SpecError {
    message: String,
    #[help]
    help: Option<String>,
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
            help: None,
            source_code: Some(NamedSource::new(&source.name, source.text.clone()).with_language("TOML")),
            span: Some(origin.span.clone().into()),
            label: "here".to_owned(),
        })
    }

    /// An error that belongs to no file.
    pub fn nowhere(message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            message: message.into(),
            help: None,
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
    pub fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }
}
