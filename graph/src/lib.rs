//! What runs when.
//!
//! A graph of derivations is checked before anything runs ([`dag`]). A node whose inputs are all
//! known by content is resolved into an action ([`action`]); its digest is looked up, and only on a
//! miss does it run ([`build`]), its tools inside a [`sandbox`]. If a node that ran again yields the
//! same bytes, everything above it resolves to yesterday's actions and hits: early cutoff is a
//! consequence, not a feature. This crate has not heard of Gentoo, kernels or images.

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

pub use action::Action;
pub use cancel::Cancel;
pub use dag::{Dag, Derivation};
pub use error::{Fault, StepError};
pub use event::Event;
pub use name::{NodeName, OutputRef};
pub use step::{Job, Resolved, Resolving, Step};
pub use tool::{Tool, Tools};
