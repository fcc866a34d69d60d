//! How the sectors of a volume are laid out (ECMA-119, 6.1 and 8.1).

/// Bytes of a sector; volumes with other block sizes are not live media.
pub(super) const SECTOR: u64 = 2048;

/// The sector of the first volume descriptor.
pub(super) const FIRST_DESCRIPTOR: u64 = 16;

/// Descriptors that are looked at.
pub(super) const MAX_DESCRIPTORS: u64 = 64;
