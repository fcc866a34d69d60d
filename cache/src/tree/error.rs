//! Why something is no tree.

use crate::name::{NameError, RelPath};

/// Why entries do not make a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The same path twice.
    #[error("{0} is there twice")]
    Twice(RelPath),
    /// Something lies below a path that is not a folder.
    #[error("{0} lies below something that is not a folder")]
    NotInFolder(RelPath),
    /// A hard link to nothing, or to a folder.
    #[error("{path} is a hard link to {to}, which is not a file of this tree")]
    DanglingLink {
        /// The link.
        path: RelPath,
        /// What it names.
        to: RelPath,
    },
    /// Permission bits beyond `0o7777`.
    #[error("{0} has mode bits beyond 07777")]
    Mode(RelPath),
}

/// Why bytes are not a tree's canonical encoding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early, or go on.
    #[error("the encoding of a tree is cut off or has bytes too many")]
    Length,
    /// Another format or another version.
    #[error("this is not the encoding of a tree of this version")]
    Magic,
    /// Extended attributes out of order, or one twice.
    #[error("the encoding of a tree has extended attributes out of order")]
    Xattrs,
    /// A path in it is not one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The entries do not make a tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A tree, but not written in the one way that gives its digest.
    #[error("the encoding of a tree is not the canonical one at {0}")]
    NotCanonical(RelPath),
}
