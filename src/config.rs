//! The language of specs: TOML values that know their place, read key by key. Has not heard of steps or images.

mod error;
mod fields;
mod lock;
mod mirror;
mod origin;
mod package;
mod value;

pub use self::error::{SpecError, SpecErrors};
pub use self::fields::{Archive, Fields, Packing};
pub use self::lock::{Lock, Locked};
pub use self::mirror::Mirror;
pub use self::origin::{Origin, Source};
pub use self::package::Package;
pub use self::value::{Item, Table, Value};
