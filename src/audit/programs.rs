//! Programs of UEFI and who signed them, as an audit knows them.

use trust::authenticode::{ImageJudgement, ImageSignature, Vendor};

use crate::formats::authenticode::Unread;

/// A signature inside a program, and whether it is of that program.
#[derive(Debug, Clone)]
pub struct ProgramSignature {
    /// The signature.
    pub signature: ImageSignature,
    /// Whether it is.
    pub judged: ImageJudgement,
}

/// A program of UEFI: a boot loader or a kernel.
#[derive(Debug, Clone)]
pub struct ProgramFacts {
    /// Its file.
    pub file: String,
    /// Whether it is on the ISO.
    pub on_iso: bool,
    /// Whether it is a kernel.
    pub is_kernel: bool,
    /// Its signatures, each as far as it could be read; or why none can be.
    pub signatures: Result<Vec<Result<ProgramSignature, String>>, Unread>,
    /// Whom it trusts, where it is a shim.
    pub vendor: Option<Result<Vendor, String>>,
}

impl ProgramFacts {
    /// Returns the signatures that are its own.
    pub fn good(&self) -> impl Iterator<Item = &ProgramSignature> {
        let all = self.signatures.iter().flatten().flatten();
        all.filter(|signature| signature.judged == ImageJudgement::Good)
    }
}
