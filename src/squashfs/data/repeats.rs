//! Runs of blocks that the image has already.
//!
//! A file may begin like another one and end in another way (a log and its older copy, a library built twice): its blocks
//! are those of the other then. Whether they all are is known with its last; until then none is written, and when they part,
//! what was not written is copied from where it lies.

use std::collections::HashMap;
use std::ops::Range;

use cache::BlobDigest;
use cache::blocks::Block;

/// What is to be done about a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it lies here, behind those of its file that came before.
    Lies(u64),
    /// Write it; before it, these bytes of the image once more.
    Write(Range<u64>),
}

/// The blocks of an image, in the order they lie in.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Each, and where it begins.
    blocks: Vec<(Block, u64)>,
    /// The first that is made of this.
    first: HashMap<BlobDigest, usize>,
    /// Whose block the last one was.
    file: Option<BlobDigest>,
    /// The blocks that those of this file are, so far.
    same: Option<Range<usize>>,
}

impl Repeats {
    /// Takes the next block: of `file`, or of none. The image ends at `end`.
    pub(super) fn next(&mut self, file: Option<BlobDigest>, block: Block, end: u64) -> Next {
        if file.is_none() || file != self.file {
            self.file = file;
            self.same = file.and_then(|_| self.first.get(&block.key)).map(|first| *first..*first);
        }
        // Made of the same by another build of a compressor, its bytes may be others.
        if let Some(same) = &mut self.same
            && let Some((_, start)) = self.blocks.get(same.end).filter(|(lies, _)| *lies == block)
        {
            same.end += 1;
            return Next::Lies(*start);
        }
        let again = self.same.take().unwrap_or_default();
        let start = |block: usize| self.blocks.get(block).map_or(end, |(_, start)| *start);
        let bytes = start(again.start)..start(again.end);
        for number in again {
            let (block, start) = self.blocks[number];
            self.blocks.push((block, end + start - bytes.start));
        }
        self.first.entry(block.key).or_insert(self.blocks.len());
        self.blocks.push((block, end + bytes.end - bytes.start));
        Next::Write(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes files of blocks of one byte; returns the image and where each file begins in it.
    fn image(files: &[&str]) -> (String, Vec<u64>) {
        let (mut repeats, mut image, mut starts) = (Repeats::default(), Vec::new(), Vec::new());
        for (number, blocks) in files.iter().enumerate() {
            let file = (*blocks != "-").then(|| BlobDigest::of(&[number as u8]));
            let mut begins = None;
            for block in blocks.bytes() {
                let made = Block::of(&[block], false, BlobDigest::of(&[block]));
                match repeats.next(file, made, image.len() as u64) {
                    Next::Lies(start) => begins = begins.or(Some(start)),
                    Next::Write(again) => {
                        if !again.is_empty() || begins.is_none() {
                            begins = Some(image.len() as u64);
                        }
                        image.extend_from_within(again.start as usize..again.end as usize);
                        image.push(block);
                    }
                }
            }
            starts.extend(begins);
            let begins = starts[number] as usize;
            assert_eq!(&image[begins..begins + blocks.len()], blocks.as_bytes(), "{files:?}: {image:?}");
        }
        (String::from_utf8(image).unwrap(), starts)
    }

    #[test]
    fn a_file_of_blocks_that_lie_there_is_not_written() {
        assert_eq!(image(&["abc", "abc", "bc", "ab"]), ("abc".into(), vec![0, 0, 1, 0]));
        assert_eq!(image(&["ab", "c", "abc", "x"]), ("abcx".into(), vec![0, 2, 0, 3]), "of two files");
        assert_eq!(image(&["ab", "-", "ab-"]).0, "ab-", "a block of no file");
    }

    #[test]
    fn a_file_that_parts_from_them_is_written_whole() {
        assert_eq!(image(&["abc", "abd"]), ("abcabd".into(), vec![0, 3]));
        assert_eq!(image(&["abc", "abcd"]), ("abcabcd".into(), vec![0, 3]), "at the end of the image");
        assert_eq!(image(&["a", "aaa", "aa"]), ("aaaa".into(), vec![0, 1, 0]));
    }

    #[test]
    fn a_block_of_no_file_is_always_written() {
        assert_eq!(image(&["-", "-"]), ("--".into(), vec![0, 1]));
    }

    #[test]
    fn a_block_of_the_same_content_and_other_bytes_is_written() {
        let (one, other) = (BlobDigest::of(b"one"), BlobDigest::of(b"other"));
        let mut repeats = Repeats::default();
        assert_eq!(repeats.next(Some(one), Block::of(b"short", false, one), 0), Next::Write(0..0));
        assert_eq!(repeats.next(Some(other), Block::of(b"longer", false, one), 5), Next::Write(0..0));
    }

    proptest::proptest! {
        #[test]
        fn every_file_lies_in_one_piece(files in proptest::collection::vec("[ab-]{1,6}", 1..12)) {
            let files: Vec<&str> = files.iter().map(String::as_str).collect();
            image(&files);
        }
    }
}
