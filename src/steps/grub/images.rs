//! The images that the step gives.

use cache::Blob;

/// What is made so far.
#[derive(Default)]
pub(super) struct Images {
    /// For media, by their names.
    pub(super) medium: Vec<(String, Blob)>,
    /// For the network, by their names in the netboot folder.
    pub(super) network: Vec<(String, Blob)>,
    /// Files of the EFI partition, and their names in the work folder.
    pub(super) partition: Vec<(String, String)>,
}
