//! Squashfs images: whether an image can be what it says it is.

mod superblock;
mod tables;

pub use self::superblock::{MAGIC, SUPERBLOCK, Superblock, other_image, superblock};
pub use self::tables::tables;
