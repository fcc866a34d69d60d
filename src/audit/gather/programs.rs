//! Programs of UEFI: boot loaders and kernels, and who signed them.

use std::collections::BTreeMap;
use std::io::Read;

use trust::authenticode::{ImageSignature, Vendor};

use super::super::facts::{Kind, Part};
use super::super::loaders::is_program;
use super::super::programs::{ProgramFacts, ProgramSignature};
use super::Gatherer;
use crate::formats::authenticode::{self, Image, Unread};

/// What a program says to firmware that verifies it, or what is wrong with it.
type Said = Result<Image, Unread>;

impl Gatherer<'_> {
    /// Reads the programs of the ISO, and takes what was learnt of the set's; a kernel whose bytes are in the set was read there.
    pub(super) fn read_programs(&mut self, parts: &BTreeMap<String, Part>) -> Vec<ProgramFacts> {
        let mut found = Vec::new();
        for esp in &self.esps {
            for (path, file) in esp.files.iter().filter(|(path, _)| is_program(path)) {
                let said = if file.size == file.start.len() as u64 {
                    authenticode::read(&file.start[..], file.size).ok().flatten()
                } else {
                    let why = format!("it has {} bytes, which no boot loader has", file.size);
                    Some(Err(Unread { why, is_changed: false }))
                };
                found.extend(said.map(|said| facts(esp.shown(path), true, false, said)));
            }
        }
        let iso = self.iso;
        for (path, file) in &iso.files {
            let name = format!("/{path}");
            let kernel = self.iso_parts.get(&name).filter(|part| part.kind == Kind::Kernel);
            if kernel.is_none() && !is_program(&name) {
                continue;
            }
            let same = |part: &&Part| {
                let digest = kernel.and_then(Part::digest);
                digest.is_some() && part.digest() == digest && part.image.is_some()
            };
            let said = match parts.values().find(same) {
                Some(same) => same.image.clone(),
                None => match authenticode::read(iso.reader(file).take(file.size()), file.size()) {
                    Ok(said) => said,
                    Err(error) => {
                        self.unreadable.push((name, error.to_string()));
                        continue;
                    }
                },
            };
            found.extend(said.map(|said| facts(name, true, kernel.is_some(), said)));
        }
        for part in parts.values() {
            let said = part.image.clone();
            found.extend(said.map(|said| facts(part.name.clone(), false, part.kind == Kind::Kernel, said)));
        }
        found
    }
}

fn facts(file: String, on_iso: bool, is_kernel: bool, said: Said) -> ProgramFacts {
    let (signatures, vendor) = match said {
        Err(why) => (Err(why), None),
        Ok(Image { sha256, signatures, vendor }) => {
            let judged = signatures.iter().map(|bytes| {
                let signature = ImageSignature::parse(bytes)?;
                let judged = signature.judge(&sha256);
                Ok(ProgramSignature { signature, judged })
            });
            (Ok(judged.collect()), vendor.map(|bytes| Vendor::parse(&bytes)))
        }
    };
    ProgramFacts { file, on_iso, is_kernel, signatures, vendor }
}
