//! The ports of servers.

/// The ports of DHCP servers, of boot servers (PXE), and of TFTP.
pub(crate) const DHCP: u16 = 67;
pub(crate) const BOOT_SERVER: u16 = 4011;
pub(crate) const TFTP: u16 = 69;

/// The port at which machines hear DHCP servers.
pub(crate) const CLIENT: u16 = 68;

/// The port of NFS, and where it is if that is taken: by the kernel's own server, as a rule. Whoever runs from a root over NFS looks for
/// it there again when this is started again.
pub(crate) const NFS: u16 = 2049;
pub(crate) const OTHER_NFS: u16 = 20049;
