//! stagegraph: a content-addressed build graph for live media.

pub mod squashfs;
