//! An xz encoder that is used again: what it allocates and clears for a block is a fifteenth of the time of a block.
//!
//! liblzma takes a stream that is set up once more with the same settings as it is; the safe bindings make a new one each
//! time.
#![allow(unsafe_code)]

use std::io::Read;
use std::mem::MaybeUninit;
use std::ptr;

use liblzma_sys as sys;

use super::row::{Encode, Kind, Row};

pub(super) const ROW: Row = Row {
    kind: Kind::Xz,
    name: "xz",
    id: 4,
    levels: 0..=9,
    default: 6,
    metadata: 9,
    // A dictionary of one block and no filters are the defaults.
    options: |_| None,
    libraries: "liblzma-sys 0.4.9",
    undo: |packed, length| {
        let mut block = Vec::with_capacity(length + 1);
        let mut reader = xz2::bufread::XzDecoder::new(packed).take(length as u64 + 1);
        reader.read_to_end(&mut block).ok()?;
        (block.len() == length).then_some(block)
    },
    context: |level, block_size| Some(Box::new(Encoder::new(level.unsigned_abs(), block_size)?)),
};

/// An encoder at a level, for blocks of one size.
struct Encoder {
    stream: sys::lzma_stream,
    options: Box<sys::lzma_options_lzma>,
    out: Vec<u8>,
}

impl Encoder {
    /// Makes an encoder whose dictionary is one block, as the kernel's decoder expects; `None` where there is no memory, or
    /// no such level.
    fn new(level: u32, block_size: u32) -> Option<Self> {
        let mut options = Box::new(MaybeUninit::<sys::lzma_options_lzma>::zeroed());
        // SAFETY: the pointer is to zeroed memory of the right type, which the function fills in.
        if unsafe { sys::lzma_lzma_preset(options.as_mut_ptr(), level) } != 0 {
            return None;
        }
        // SAFETY: all fields are integers and pointers, for which zeros are valid, and the preset was set.
        let mut options = unsafe { options.assume_init() };
        // Below 8 KiB metadata gains nothing from more, and the kernel allocates what the superblock says.
        options.dict_size = block_size.max(8192);
        // SAFETY: LZMA_STREAM_INIT of lzma/base.h is all zeros.
        let stream = unsafe { MaybeUninit::zeroed().assume_init() };
        Some(Self { stream, options, out: Vec::new() })
    }
}

impl Encode for Encoder {
    /// Makes one xz stream with a CRC-32.
    fn encode(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        let filters = [
            sys::lzma_filter {
                id: sys::LZMA_FILTER_LZMA2,
                options: ptr::from_mut(&mut *self.options).cast(),
            },
            sys::lzma_filter { id: sys::LZMA_VLI_UNKNOWN, options: ptr::null_mut() },
        ];
        // SAFETY: the stream is zeroed or was set up before; the filters end as they must and live through the call, and
        // the options they point to through the use of the stream.
        let ready =
            unsafe { sys::lzma_stream_encoder(&mut self.stream, filters.as_ptr(), sys::LZMA_CHECK_CRC32) };
        if ready != sys::LZMA_OK {
            return None;
        }
        // SAFETY: it computes a number.
        self.out.resize(unsafe { sys::lzma_stream_buffer_bound(block.len()) }, 0);
        self.stream.next_in = block.as_ptr();
        self.stream.avail_in = block.len();
        self.stream.next_out = self.out.as_mut_ptr();
        self.stream.avail_out = self.out.len();
        // SAFETY: input and output are borrowed until the call returns, with their lengths.
        let ended = unsafe { sys::lzma_code(&mut self.stream, sys::LZMA_FINISH) };
        let length = self.out.len() - self.stream.avail_out;
        (self.stream.next_in, self.stream.next_out) = (ptr::null(), ptr::null_mut());
        (ended == sys::LZMA_STREAM_END).then(|| self.out[..length].to_vec())
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the stream is zeroed or was set up; nothing uses it afterwards.
        unsafe { sys::lzma_end(&mut self.stream) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn each_block_is_a_stream_of_its_own_and_does_not_depend_on_the_one_before() {
        let mut used = Encoder::new(6, 131_072).unwrap();
        for block in [b"one ".repeat(3000), b"another ".repeat(16_000), vec![7], b"one ".repeat(3000)] {
            let encoded = used.encode(&block).unwrap();
            assert_eq!(encoded, Encoder::new(6, 131_072).unwrap().encode(&block).unwrap());
            let mut decoded = Vec::new();
            xz2::read::XzDecoder::new(&encoded[..]).read_to_end(&mut decoded).unwrap();
            assert!(decoded == block);
        }
        assert!(Encoder::new(99, 131_072).is_none());
    }
}
