//! `stagegraph plan`.

use clap::{Args, ValueEnum};

use super::args::{SpecArgs, finder};
use super::failure::{Failure, print};
use crate::plan;
use crate::spec::Spec;

#[derive(Debug, Args)]
pub(super) struct Plan {
    /// The spec: a name, a path with a slash in it, or a .spec file of catalyst
    #[arg(value_name = "SPEC")]
    name: String,
    #[command(flatten)]
    spec: SpecArgs,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Dot,
    Json,
    Svg,
}

impl Plan {
    pub(super) fn run(self) -> Result<u8, Failure> {
        let spec = Spec::load(&finder(), &self.name, &self.spec.overrides())?;
        let text = match self.format {
            Format::Text => plan::text(&spec),
            Format::Dot => plan::dot(&spec),
            Format::Json => plan::json(&spec),
            Format::Svg => plan::svg(&spec, &|_| None),
        };
        print(text.as_bytes())
    }
}
