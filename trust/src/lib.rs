//! Who signed what.
//!
//! This crate knows keys, signatures and bytes; what an image is made of, and which of its files need a signature, it has not heard
//! of. It verifies what others signed. It reads no private key: programs of the user's make signatures, with keys that they hold.

pub mod authenticode;
pub mod cms;
pub mod dsse;
pub mod openpgp;
pub mod sign;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
