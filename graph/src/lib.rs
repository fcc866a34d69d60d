//! What runs when.
//!
//! A graph of derivations is checked before anything runs ([`dag`]). A node whose inputs are all
//! known by content is resolved into an action ([`action`]); its digest is looked up, and only on a
//! miss does it run ([`build`]), its tools inside a [`sandbox`]. If a node that ran again yields the
//! same bytes, everything above it resolves to yesterday's actions and hits: early cutoff is a
//! consequence, not a feature. This crate has not heard of Gentoo, kernels or images.
//!
//! A step says what it is, and makes its outputs; the engine does the rest. `examples/hello.rs` builds such nodes.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use cache::Output;
//! use graph::{Job, Step, StepError};
//!
//! /// Counts the lines of its input.
//! struct Lines;
//!
//! impl Step for Lines {
//!     fn kind(&self) -> &'static str {
//!         "lines"
//!     }
//!
//!     // Raised when the same input would give other bytes.
//!     fn version(&self) -> u32 {
//!         1
//!     }
//!
//!     fn params(&self) -> BTreeMap<String, String> {
//!         BTreeMap::new()
//!     }
//!
//!     fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
//!         let text = job.objects.read(&job.blob("text")?.digest)?;
//!         let lines = text.iter().filter(|byte| **byte == b'\n').count();
//!         let count = job.objects.put(format!("{lines}\n").as_bytes())?;
//!         Ok(BTreeMap::from([("count".to_owned(), count.into())]))
//!     }
//! }
//! # let bench = graph::testing::Bench::new();
//! # let ran = bench.run(&Lines, &[("text", bench.blob(b"a\nb\n"))]).unwrap();
//! # assert_eq!(bench.read(&ran, "count"), b"2\n");
//! ```

pub mod action;
pub mod build;
pub mod cancel;
pub mod dag;
pub mod error;
pub mod event;
pub mod explain;
pub mod name;
pub mod sandbox;
pub mod step;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod tool;
pub mod toolbox;
pub mod workers;

pub use action::Action;
pub use cancel::Cancel;
pub use dag::{Dag, Derivation};
pub use error::{Fault, StepError};
pub use event::Event;
pub use name::{NodeName, OutputRef};
pub use step::{Job, Resolved, Resolving, Step};
pub use tool::{Tool, Tools};
pub use toolbox::Toolbox;
pub use workers::Workers;
