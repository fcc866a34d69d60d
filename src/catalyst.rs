//! catalyst, Gentoo's release tool: what it asks of this program, and what this program asks of it.
//!
//! Its target livecd-stagegraph makes the root, the kernels and the files of the medium, as catalyst always does, and
//! hands over a [`Request`]. A release spec can be built from this side as well: [`read_spec`] reads it, and the step
//! `catalyst` runs catalyst for it. Both ways lead to one graph: [`Wanted::spec`].

mod configuration;
mod error;
mod fsops;
mod release;
mod request;
mod wanted;

pub use self::configuration::{CONF, Configuration};
pub use self::release::{Values, is_placeholder, read as read_spec, read_values, render};
pub use self::request::{Request, RequestError, RequestOutput, RequestResult, SCHEMA};
pub use self::wanted::{Kernel, Wanted, WantedError};

/// The target, as it is installed into catalyst.
pub const TARGET: &str = include_str!("../packaging/catalyst/livecd_stagegraph.py");

/// Where the target goes, below the folder that holds catalyst's Python package.
pub const TARGET_PATH: &str = "catalyst/targets/livecd_stagegraph.py";
