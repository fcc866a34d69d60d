//! Numbers in little-endian order at a place of some bytes; nothing where the bytes end before.

/// Returns the number of two bytes at `at`.
pub(super) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Returns the number of four bytes at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Returns the number of eight bytes at `at`.
pub(super) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_up_to_the_end_and_not_beyond() {
        let bytes = [1, 0, 2, 0, 0, 0, 0, 0, 3];
        assert_eq!(
            (half(&bytes, 0), word(&bytes, 2), long(&bytes, 1)),
            (Some(1), Some(2), Some(3 << 56 | 2 << 8))
        );
        assert_eq!(
            (half(&bytes, 8), word(&bytes, 6), long(&bytes, 2), half(&bytes, usize::MAX)),
            (None, None, None, None)
        );
    }
}
