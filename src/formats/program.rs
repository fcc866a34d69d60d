//! Programs as firmware, boot loaders and kernels start them: whose they are, told by their first bytes.

use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, LittleEndian as LE, ReadRef, elf, pe};

use crate::arch::Arch;

/// An ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elf {
    /// Whose it is; nothing where the number is unknown.
    pub arch: Option<Arch>,
    /// Whether it can be started: a program, no object file and no kernel module.
    pub is_program: bool,
}

/// Bytes of an ELF header that are enough to tell.
pub const ELF_HEAD: usize = 20;

/// Reads the start of an ELF file; `None` for any other.
pub fn elf(head: &[u8]) -> Option<Elf> {
    let head = head.first_chunk::<ELF_HEAD>().filter(|head| head.starts_with(&elf::ELFMAG))?;
    // e_ident has the byte order; e_type and e_machine, behind it, are alike in both classes.
    let little = match elf::DataEncoding(head[5]) {
        elf::ELFDATA2LSB => true,
        elf::ELFDATA2MSB => false,
        _ => return None,
    };
    let word = |at: usize| {
        let bytes = [head[at], head[at + 1]];
        if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    };
    let kind = elf::FileType(word(16));
    Some(Elf { arch: Arch::of_elf(word(18), little), is_program: matches!(kind, elf::ET_EXEC | elf::ET_DYN) })
}

/// Returns how long an ELF program must be for what it loads to be in it, by its first bytes.
pub fn elf_end(head: &[u8]) -> Option<u64> {
    fn end<H: FileHeader<Endian = Endianness>>(head: &[u8]) -> Option<u64> {
        let header = H::parse(head).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, head).ok()?;
        let ends = segments.iter().map(|segment| {
            let (offset, length) = (segment.p_offset(endian).into(), segment.p_filesz(endian).into());
            offset.saturating_add(length)
        });
        ends.max()
    }
    match head.get(4).map(|class| elf::FileClass(*class))? {
        elf::ELFCLASS64 => end::<elf::FileHeader64<Endianness>>(head),
        elf::ELFCLASS32 => end::<elf::FileHeader32<Endianness>>(head),
        _ => None,
    }
}

/// A section of a PE program: where in the file it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its first byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// A PE program, as UEFI starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pe {
    /// Whose it is; nothing where the number is unknown.
    pub arch: Option<Arch>,
    /// Its sections.
    pub sections: Vec<Section>,
    /// Whether it says that it has more of them.
    pub is_cut: bool,
}

/// Reads the start of a PE program; `None` for any other file.
pub fn pe(head: &[u8]) -> Option<Pe> {
    let dos = pe::ImageDosHeader::parse(head).ok()?;
    let offset = u64::from(dos.nt_headers_offset());
    if head.read_at::<object::U32<LE>>(offset).ok()?.get(LE) != pe::IMAGE_NT_SIGNATURE {
        return None;
    }
    let header = head.read_at::<pe::ImageFileHeader>(offset + 4).ok()?;
    let at = offset + 4 + size_of::<pe::ImageFileHeader>() as u64;
    let at = at + u64::from(header.size_of_optional_header.get(LE));
    let number = usize::from(header.number_of_sections.get(LE));
    let table = head.read_slice_at::<pe::ImageSectionHeader>(at, number).unwrap_or_default();
    let sections = table.iter().map(|section| {
        let (raw, used) = (section.size_of_raw_data.get(LE), section.virtual_size.get(LE));
        Section {
            name: String::from_utf8_lossy(section.raw_name()).into_owned(),
            offset: section.pointer_to_raw_data.get(LE).into(),
            // What is in the file is padded.
            length: if used == 0 { raw } else { raw.min(used) }.into(),
        }
    });
    let is_cut = table.len() < number;
    Some(Pe { arch: Arch::of_pe(header.machine.get(LE).0), sections: sections.collect(), is_cut })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a PE program with these sections, one behind the other.
    pub(crate) fn pe_program(machine: u16, sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
        bytes[0x86] = sections.len() as u8;
        for (number, (name, content)) in sections.iter().enumerate() {
            let (at, offset) = (0x98 + number * 40, bytes.len() as u32);
            bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
            for (field, value) in [(8, content.len() as u32), (16, content.len() as u32), (20, offset)] {
                bytes[at + field..at + field + 4].copy_from_slice(&value.to_le_bytes());
            }
            bytes.extend_from_slice(content);
        }
        bytes
    }

    #[test]
    fn elf_files_tell_whose_they_are_in_both_orders() {
        let mut head = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0";
        assert_eq!(elf(&head), Some(Elf { arch: Some(Arch::Amd64), is_program: true }));
        head[16] = 1;
        assert_eq!(elf(&head).map(|elf| elf.is_program), Some(false));
        let big = *b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16";
        assert_eq!(elf(&big), Some(Elf { arch: Some(Arch::S390), is_program: true }));
        for other in [&head[..19], b"\x7fELF\x02\x07aaaaaaaaaaaaaaaaaa", b"", b"MZ"] {
            assert_eq!(elf(other), None);
        }
    }

    #[test]
    fn pe_programs_tell_whose_they_are_and_what_they_hold() {
        let program = pe_program(0xaa64, &[(".linux", b"kernel"), (".uname", b"6.6.1")]);
        let found = pe(&program).unwrap();
        assert_eq!(found.arch, Some(Arch::Arm64));
        let names: Vec<_> = found.sections.iter().map(|s| (s.name.as_str(), s.offset, s.length)).collect();
        assert_eq!(names, [(".linux", 0x400, 6), (".uname", 0x406, 5)]);
        for other in [&program[..0x90], b"MZ", b"", &[0; 4096]] {
            assert_eq!(pe(other), None);
        }
    }

    #[test]
    fn this_program_is_for_this_machine() {
        let head = std::fs::read("/proc/self/exe").unwrap();
        let expected = Arch::of_elf(if cfg!(target_arch = "x86_64") { 62 } else { 183 }, true);
        assert_eq!(elf(&head).unwrap().arch, expected);
    }
}
