//! The check of what firmware with Secure Boot verifies: who signed which program, and whether the next one's signer is known to it.

use std::collections::BTreeSet;

use trust::authenticode::{ImageJudgement, Vendor};

use super::select::{count, listed};
use crate::audit::facts::Facts;
use crate::audit::programs::ProgramFacts;
use crate::audit::report::{Check, Outcome};
use crate::formats::authenticode::Unread;

const AGAIN: &str = "take it from its package again, or have it signed again";

pub(super) fn secure_boot(check: &Check, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::new(check);
    let mut signers = BTreeSet::new();
    for program in &facts.programs {
        outcome.looked();
        judge(program, &mut outcome);
        signers.extend(program.good().map(|signature| signature.signature.signer()));
    }
    let mut shims = 0;
    for on_iso in [true, false] {
        let own: Vec<&ProgramFacts> =
            facts.programs.iter().filter(|program| program.on_iso == on_iso).collect();
        for shim in own.iter().filter(|program| program.vendor.is_some()) {
            shims += 1;
            judge_shim(shim, &own, &mut outcome);
        }
    }
    let signed = facts.programs.iter().filter(|program| program.good().next().is_some()).count();
    let unread = facts.programs.iter().filter(|program| program.signatures.is_err()).count();
    let by = listed(signers.iter().map(String::as_str));
    let ok = match (signed, shims) {
        (0, _) if unread > 0 => format!(
            "nothing that could be read is signed; {}",
            count(unread, "program was not", "programs were not")
        ),
        (0, _) => "nothing is signed: machines with Secure Boot do not start it".to_owned(),
        _ => {
            let with =
                if shims == 0 { String::new() } else { format!("; with {}", count(shims, "shim", "shims")) };
            format!("{} signed, by {by}{with}", count(signed, "program is", "programs are"))
        }
    };
    outcome.says(ok, "there are no programs of UEFI")
}

/// Judges a program by itself.
fn judge(program: &ProgramFacts, outcome: &mut Outcome) {
    match &program.signatures {
        Err(Unread { why, is_changed: true }) => {
            outcome.differs(&program.file, format!("was signed, and changed since: {why}"), AGAIN);
        }
        Err(Unread { why, .. }) => {
            let what = format!("is not looked at for signatures: {why}");
            outcome.warns(&program.file, what, "verify it with sbverify");
        }
        Ok(signatures) => {
            for signature in signatures {
                match signature {
                    Err(why) => outcome.warns(
                        &program.file,
                        format!("has a signature that cannot be read: {why}"),
                        AGAIN,
                    ),
                    Ok(signature) => match &signature.judged {
                        ImageJudgement::Good => {}
                        ImageJudgement::Bad(why) => {
                            outcome.differs(&program.file, format!("has a bad signature: {why}"), AGAIN);
                        }
                        ImageJudgement::Unknown(why) => {
                            let what = format!("has a signature that is not verified here: {why}");
                            outcome.warns(&program.file, what, "verify it with sbverify");
                        }
                    },
                }
            }
        }
    }
}

/// Judges what a shim starts: the boot loader beside it, and kernels.
fn judge_shim(shim: &ProgramFacts, all: &[&ProgramFacts], outcome: &mut Outcome) {
    let vendor = match &shim.vendor {
        Some(Ok(vendor)) => vendor,
        Some(Err(why)) => {
            outcome.warns(&shim.file, format!("is a shim, and whom it trusts cannot be read: {why}"), AGAIN);
            return;
        }
        None => return,
    };
    if !shim.good().any(|signature| signature.signature.is_known_to_firmware()) {
        let by = signers_of(shim).map(|by| format!("{by} alone, for whom Microsoft does not vouch"));
        let by = by.unwrap_or_else(|| "nobody".to_owned());
        outcome.warns(
            &shim.file,
            format!("is a shim that is signed by {by}: firmware with Secure Boot does not start it as it is delivered"),
            "take a shim that Microsoft signed (shim-signed), or enrol its signer in each machine's firmware",
        );
    }
    let folder = folder_of(&shim.file);
    let is_next = |program: &&&ProgramFacts| {
        let name = program.file.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        folder_of(&program.file).eq_ignore_ascii_case(folder)
            && name.starts_with("grub")
            && !program.is_kernel
    };
    let mut nexts = all.iter().filter(is_next).peekable();
    if nexts.peek().is_none() {
        let what = "is a shim without a boot loader beside it, as grubx64.efi";
        outcome.warns(&shim.file, what, "put the signed GRUB beside it");
    }
    for next in nexts {
        judge_behind(shim, vendor, next, outcome);
    }
    for kernel in all.iter().filter(|program| program.is_kernel) {
        judge_behind(shim, vendor, kernel, outcome);
    }
}

fn judge_behind(shim: &ProgramFacts, vendor: &Vendor, program: &ProgramFacts, outcome: &mut Outcome) {
    let known = program.good().any(|signature| signature.signature.is_known_to(vendor));
    if known || program.signatures.is_err() {
        return;
    }
    let by = signers_of(program).unwrap_or_else(|| "nobody".to_owned());
    outcome.warns(
        &program.file,
        format!(
            "is signed by {by}; {} knows {} alone: Secure Boot refuses it",
            shim.file,
            vendor.names().join(", ")
        ),
        "have it signed by a key that the shim knows, or enrol its signer's key in each machine (MokManager)",
    );
}

/// Returns the names of those whose signatures of a program are good; nothing where there are none.
fn signers_of(program: &ProgramFacts) -> Option<String> {
    let names: BTreeSet<String> = program.good().map(|signature| signature.signature.signer()).collect();
    (!names.is_empty()).then(|| listed(names.iter().map(String::as_str)))
}

fn folder_of(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}
