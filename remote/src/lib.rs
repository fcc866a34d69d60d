//! Upstreams: where results and objects come from that a store does not have, and where they are offered.
//!
//! Two kinds implement [`cache::upstream::Upstream`]: servers of the Remote Execution API, version 2
//! (<https://github.com/bazelbuild/remote-apis>), of which the content store and the action cache are used, and mirrors: plain
//! folders, and the same files on any web server. Nothing that comes from either counts because of where it comes from: results
//! count by their signature, bytes by their digest. This crate alone knows that there is a network; callers block.

mod address;
mod channel;
mod content;
mod counts;
mod examine;
mod execution;
mod function;
mod gate;
mod mirror;
mod offers;
mod probe;
mod reapi;
mod results;
mod settings;
mod sign;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod upstream;

use std::sync::Arc;

pub use self::address::{Address, AddressError, MirrorAddress, ServerAddress};
pub use self::counts::{Counts, Total};
pub use self::examine::{Damage, Examined, examine};
pub use self::execution::{Execution, Program};
pub use self::mirror::begin as begin_mirror;
pub use self::offers::{Offers, Sent};
pub use self::probe::{Probe, Row};
pub use self::settings::{Settings, Tls};
pub use self::sign::{Key, KeyError, Trust, TrustError};
pub use self::upstream::Remote;

/// Returns the folder of a mirror that is one.
pub fn folder(address: &Address) -> Option<&std::path::Path> {
    match address {
        Address::Mirror(MirrorAddress::Folder(folder)) => Some(folder),
        Address::Server(_) | Address::Mirror(MirrorAddress::Web(_)) => None,
    }
}

/// Makes an upstream ready. Nothing is asked of it before somebody needs it.
///
/// # Errors
/// A file that the settings name cannot be used.
pub fn open(address: &Address, settings: &Settings) -> Result<Arc<dyn Remote>, KeyError> {
    Ok(match address {
        Address::Server(server) => Arc::new(reapi::Reapi::new(server, settings)?),
        Address::Mirror(mirror) => Arc::new(mirror::Mirror::new(mirror, settings)),
    })
}
