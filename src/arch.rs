//! Architectures: what each is called in the formats that name one, and the boot loaders for it. No other module names one.

mod loaders;
mod names;

pub use self::loaders::{Firmware, Loader, Platform};
pub use self::names::{Arch, may_be, one_of};
