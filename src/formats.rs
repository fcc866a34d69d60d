//! Readers of the formats that live media are made of.

pub mod compression;
pub mod cpio;
pub mod initramfs;
pub mod iso9660;
pub mod kernel;
