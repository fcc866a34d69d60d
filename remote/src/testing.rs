//! What tests of upstreams need: real servers on loopback, and a proxy before one that misbehaves.
//!
//! Behind the feature `testing`; nothing of it is in the program.
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

mod proxy;
mod servers;

pub use self::proxy::{Act, Call, Proxy};
pub use tonic::Code;

pub use self::servers::{BuildGrid, Casd};
