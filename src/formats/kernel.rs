//! Linux kernel images, told by their content.
//!
//! x86: the boot protocol's header (`Documentation/arch/x86/boot.rst`); arm64 and RISC-V: the image headers of
//! `Documentation/arch/arm64/booting.rst` and `…/riscv/boot-image-header.rst`; packed EFI programs: `drivers/firmware/efi/
//! libstub/zboot-header.S`; LoongArch: `arch/loongarch/kernel/head.S`; ARM: `arch/arm/boot/compressed/head.S`; s390: the first
//! words of `arch/s390/boot/head.S`. Unified kernel images: the Unified Kernel Image specification of the UAPI group.

use std::io::{self, Read};

use memchr::memmem;

use super::compression::Compression;
use super::little::{half, word};
use super::program::{self, Pe, Section};
use crate::arch::{self, Arch};

/// How a kernel is packed for its boot loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// bzImage, of PCs.
    BzImage,
    /// Image, of arm64, RISC-V and LoongArch; a zImage of ARM; an image of s390.
    Image,
    /// An Image, compressed as a whole: the boot loader unpacks it.
    Packed(Compression),
    /// An EFI program that unpacks itself: where in it the compressed Image is, and how it is compressed.
    Zboot(u64, Option<Compression>),
    /// A unified kernel image, an EFI program with kernel, initrd and command line in it: where the kernel's release stands.
    Unified(Option<(u64, u64)>),
    /// An ELF program, as PowerPC, SPARC, HPPA and MIPS start it.
    Elf,
}

/// What a kernel image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// How it is packed.
    pub format: Format,
    /// The architectures it may be for: one, none where that is not known, two where a PC's kernel does not say.
    pub archs: Vec<Arch>,
    /// The release, as `uname -r` gives it, where the first bytes say.
    pub release: Option<String>,
    /// Bytes that the file must have, where the first bytes say: a shorter one is cut off.
    pub least_size: u64,
    /// Whether what is packed in it is known to end in the middle.
    pub is_cut: bool,
}

/// What is found in a kernel behind its first bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inside {
    /// The release.
    pub release: Option<String>,
    /// Whether what is packed in it ends in the middle.
    pub is_cut: bool,
}

/// How much of a file is enough to tell.
pub const HEAD: usize = 64 * 1024;

/// Bytes that are read for the release: kernels have a tenth of them.
const MAX_KERNEL: u64 = 512 << 20;

/// What the kernel prints first; its release comes next.
const BANNER: &[u8] = b"Linux version ";

/// The longest release: `__NEW_UTS_LEN`.
const MAX_RELEASE: usize = 64;

/// Where x86's header has its length in sectors, the length of what follows in 16 bytes, `HdrS`, the version of the protocol, the place of the version text (and what that place counts
/// from), and the flags that say whether the kernel is for 64 bits, which are there since protocol 2.12.
const X86_SETUP_SECTORS: usize = 0x1f1;
const X86_PARAGRAPHS: usize = 0x1f4;
const X86_MAGIC: usize = 0x202;
const X86_PROTOCOL: usize = 0x206;
const X86_VERSION: usize = 0x20e;
const X86_VERSION_BASE: usize = 0x200;
const X86_FLAGS: usize = 0x236;
const X86_FLAGS_SINCE: u16 = 0x20c;

/// Where Image has its magic number, and the number of those that are EFI programs.
const IMAGE_MAGIC: usize = 0x38;
const LINUX_PE_MAGIC: [u8; 4] = [0xcd, 0x23, 0x82, 0x81];

/// Where a zImage of ARM has its magic number; behind it stand where it begins and ends.
const ARM_MAGIC: usize = 0x24;
const ARM: [u8; 4] = [0x18, 0x28, 0x6f, 0x01];

/// Reads the start of a file; `None` where it is no kernel, or an ELF program, which may be anything.
pub fn detect(head: &[u8]) -> Option<Kernel> {
    if head.get(X86_MAGIC..X86_MAGIC + 4) == Some(b"HdrS") {
        return x86(head);
    }
    if let Some(kernel) = unified(head) {
        return Some(kernel);
    }
    if let Some(arch) = bare(head) {
        let least_size = image_size(head);
        return Some(Kernel {
            format: Format::Image,
            archs: vec![arch],
            release: None,
            least_size,
            is_cut: false,
        });
    }
    if head.get(4..8) == Some(b"zimg") && head.starts_with(b"MZ") {
        let name = head.get(24..56)?.split(|byte| *byte == 0).next()?;
        let named = |compression: &Compression| compression.name().as_bytes() == name;
        let compression = Compression::ALL.into_iter().find(named);
        let archs = program::pe(head).and_then(|pe| pe.arch).into_iter().collect();
        let (offset, length) = (u64::from(word(head, 8)?), u64::from(word(head, 12)?));
        let format = Format::Zboot(offset, compression);
        return Some(Kernel { format, archs, release: None, least_size: offset + length, is_cut: false });
    }
    if let Some(compression) = Compression::detect(head) {
        let mut start = [0; IMAGE_MAGIC + 4];
        compression.decoder(head).ok()?.read_exact(&mut start).ok()?;
        let arch = bare(&start)?;
        let format = Format::Packed(compression);
        return Some(Kernel { format, archs: vec![arch], release: None, least_size: 0, is_cut: false });
    }
    None
}

/// Reads the start of a file that somebody says is a kernel: ELF programs are then, too.
pub fn detect_named(head: &[u8]) -> Option<Kernel> {
    detect(head).or_else(|| {
        let elf = program::elf(head).filter(|elf| elf.is_program)?;
        let archs = elf.arch.into_iter().collect();
        let least_size = program::elf_end(head).unwrap_or(0);
        Some(Kernel { format: Format::Elf, archs, release: None, least_size, is_cut: false })
    })
}

fn x86(head: &[u8]) -> Option<Kernel> {
    let place = half(head, X86_VERSION)?;
    let text = (place != 0).then(|| head.get(usize::from(place) + X86_VERSION_BASE..)).flatten();
    let release = text.and_then(|text| {
        let end = text.iter().position(|b| *b == 0 || *b == b' ')?;
        String::from_utf8(text[..end].to_vec()).ok().filter(|release| !release.is_empty())
    });
    let archs = match half(head, X86_FLAGS) {
        _ if half(head, X86_PROTOCOL)? < X86_FLAGS_SINCE => vec![Arch::Amd64, Arch::X86],
        Some(flags) if flags & 1 != 0 => vec![Arch::Amd64],
        _ => vec![Arch::X86],
    };
    let setup = u64::from(*head.get(X86_SETUP_SECTORS)?);
    // Zero stands for four, for boot loaders of the nineties.
    let setup = 512 * (1 + if setup == 0 { 4 } else { setup });
    let paragraphs = word(head, X86_PARAGRAPHS)?;
    let least_size = setup + 16 * u64::from(paragraphs);
    Some(Kernel { format: Format::BzImage, archs, release, least_size, is_cut: false })
}

/// Reads a unified kernel image: systemd-stub with the kernel in a section.
fn unified(head: &[u8]) -> Option<Kernel> {
    let Pe { arch, sections, .. } = program::pe(head)?;
    let section = |name: &str| sections.iter().find(|section| section.name == name);
    section(".linux")?;
    let least_size = end_of(&sections);
    let release = section(".uname").map(|section| (section.offset, section.length));
    let format = Format::Unified(release);
    Some(Kernel { format, archs: arch.into_iter().collect(), release: None, least_size, is_cut: false })
}

fn end_of(sections: &[Section]) -> u64 {
    sections.iter().map(|section| section.offset + section.length).max().unwrap_or(0)
}

/// Returns the bytes that an Image must have: as an EFI program, those of its sections; ARM's header says where it ends.
fn image_size(head: &[u8]) -> u64 {
    if let Some(pe) = program::pe(head) {
        return end_of(&pe.sections);
    }
    let arm = || word(head, ARM_MAGIC + 8)?.checked_sub(word(head, ARM_MAGIC + 4)?);
    let is_arm = head.get(ARM_MAGIC..ARM_MAGIC + 4) == Some(&ARM);
    if is_arm { arm().unwrap_or(0).into() } else { 0 }
}

/// Returns for which architecture an Image is that is not compressed.
fn bare(head: &[u8]) -> Option<Arch> {
    match head.get(IMAGE_MAGIC..IMAGE_MAGIC + 4)? {
        b"ARM\x64" => return Some(Arch::Arm64),
        b"RSC\x05" => return Some(Arch::Riscv),
        magic if *magic == LINUX_PE_MAGIC && head.starts_with(b"MZ") && head.get(4..8) != Some(b"zimg") => {
            return program::pe(head).and_then(|pe| pe.arch);
        }
        _ => {}
    }
    if head.get(ARM_MAGIC..ARM_MAGIC + 4) == Some(&ARM) {
        return Some(Arch::Arm);
    }
    head.starts_with(&[0, 8, 0, 0, 0x80, 0, 2, 0]).then_some(Arch::S390)
}

impl Kernel {
    /// Tells whether machines of which `is_so` holds may start it, as far as it says.
    pub fn may_be(&self, is_so: fn(Arch) -> bool) -> bool {
        arch::may_be(&self.archs, is_so)
    }

    /// Tells whether [`Kernel::look_inside`] may find something that the first bytes do not tell.
    pub fn hides_more(&self) -> bool {
        self.release.is_none() && self.format != Format::BzImage
    }

    /// Returns what is wrong with a kernel whose file has so many bytes.
    pub fn damage(&self, size: u64) -> Option<String> {
        if size < self.least_size {
            let least = self.least_size;
            return Some(format!("is cut off: by its header it has {least} bytes, and there are {size}"));
        }
        self.is_cut.then(|| "is cut off: what is packed in it ends in the middle".to_owned())
    }

    /// Adds what was found inside.
    pub fn learn(&mut self, inside: Inside) {
        self.release = self.release.take().or(inside.release);
        self.is_cut |= inside.is_cut;
    }

    /// Reads a kernel for its release, from its first byte on, and one that is compressed as a whole to its end.
    ///
    /// # Errors
    /// Reading failed. What cannot be unpacked has no release.
    pub fn look_inside(&self, mut input: impl Read) -> io::Result<Inside> {
        let skip = |input: &mut dyn Read, bytes: u64| io::copy(&mut input.take(bytes), &mut io::sink());
        let release = match &self.format {
            Format::BzImage => self.release.clone(),
            Format::Image | Format::Elf => banner(&mut input)?,
            Format::Unified(None) | Format::Zboot(_, None) => None,
            Format::Unified(Some((offset, length))) => {
                skip(&mut input, *offset)?;
                let mut text = Vec::new();
                input.take((*length).min(MAX_RELEASE as u64)).read_to_end(&mut text)?;
                release(&text)
            }
            Format::Packed(compression) => return Ok(unpacked(*compression, &mut input)),
            Format::Zboot(offset, Some(compression)) => {
                skip(&mut input, *offset)?;
                // Its length is in its header.
                unpacked(*compression, &mut input).release
            }
        };
        Ok(Inside { release, is_cut: false })
    }
}

fn unpacked(compression: Compression, input: &mut dyn Read) -> Inside {
    let Ok(mut decoder) = compression.decoder(io::BufReader::new(input)) else { return Inside::default() };
    let Ok(release) = banner(&mut decoder) else { return Inside { release: None, is_cut: true } };
    let rest = io::copy(&mut decoder.take(MAX_KERNEL), &mut io::sink());
    Inside { release, is_cut: rest.is_err() }
}

/// Finds the kernel's first words, and the release in them.
fn banner(input: &mut dyn Read) -> io::Result<Option<String>> {
    let mut input = input.take(MAX_KERNEL);
    let mut buffer = vec![0; 1 << 18];
    let mut kept = 0;
    loop {
        let read = input.read(&mut buffer[kept..])?;
        let filled = kept + read;
        let is_end = read == 0;
        let mut at = 0;
        while let Some(found) = memmem::find(&buffer[at..filled], BANNER) {
            let text = &buffer[at + found + BANNER.len()..filled];
            if text.len() <= MAX_RELEASE && !is_end {
                break;
            }
            if let Some(release) = release(text) {
                return Ok(Some(release));
            }
            at += found + 1;
        }
        if is_end {
            return Ok(None);
        }
        // What may be the start of it goes to the front.
        let from = filled.saturating_sub(BANNER.len() + MAX_RELEASE);
        buffer.copy_within(from..filled, 0);
        kept = filled - from;
    }
}

/// Returns the release that a text begins with: it begins with a digit, and ends at a blank or a zero.
fn release(text: &[u8]) -> Option<String> {
    let end = text.iter().position(|byte| !byte.is_ascii_graphic()).unwrap_or(text.len());
    let release = String::from_utf8(text[..end].to_vec()).ok()?;
    (end <= MAX_RELEASE && release.starts_with(|first: char| first.is_ascii_digit())).then_some(release)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::program::tests::pe_program;
    use super::*;

    /// Returns an Image: its magic number, and its first words far behind.
    fn image(magic: &[u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0; 700_000];
        bytes[IMAGE_MAGIC..IMAGE_MAGIC + 4].copy_from_slice(magic);
        bytes.extend_from_slice(b"LiLinux version %s\0Linux version 6.12.4-gentoo (root@host) #1 SMP\0");
        bytes.extend_from_slice(&[0; 100]);
        bytes
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn told(bytes: &[u8]) -> (Vec<Arch>, Option<String>) {
        let kernel = detect_named(&bytes[..bytes.len().min(HEAD)]).unwrap();
        let inside = kernel.look_inside(bytes).unwrap();
        assert!(!inside.is_cut);
        (kernel.archs, inside.release)
    }

    #[test]
    fn the_release_of_an_x86_kernel_is_read_from_its_header() {
        let mut head = vec![0; 0x3000];
        head[X86_MAGIC..X86_MAGIC + 4].copy_from_slice(b"HdrS");
        head[X86_VERSION..X86_VERSION + 2].copy_from_slice(&0x1000u16.to_le_bytes());
        head[0x1200..0x1210].copy_from_slice(b"6.1.0-9-x (x) #1");
        let kernel = detect(&head).unwrap();
        assert_eq!(kernel.release.as_deref(), Some("6.1.0-9-x"));
        assert_eq!(kernel.archs, [Arch::Amd64, Arch::X86]);
        // Since protocol 2.12 it says whether it is for 64 bits.
        head[X86_PROTOCOL..X86_PROTOCOL + 2].copy_from_slice(&0x20fu16.to_le_bytes());
        assert_eq!(detect(&head).unwrap().archs, [Arch::X86]);
        head[X86_FLAGS] = 1;
        assert_eq!(detect(&head).unwrap().archs, [Arch::Amd64]);
        head[X86_VERSION..X86_VERSION + 2].copy_from_slice(&0xffffu16.to_le_bytes());
        assert_eq!(detect(&head).unwrap().release, None);
    }

    #[test]
    fn kernels_of_all_kinds_say_whose_they_are_and_their_release() {
        let release = Some("6.12.4-gentoo".to_owned());
        let arm64 = image(b"ARM\x64");
        assert_eq!(told(&arm64), (vec![Arch::Arm64], release.clone()));
        assert_eq!(told(&image(b"RSC\x05")), (vec![Arch::Riscv], release.clone()));
        assert_eq!(told(&gzipped(&arm64)), (vec![Arch::Arm64], release.clone()));

        let mut zboot = pe_program(0x6264, &[]);
        zboot[4..8].copy_from_slice(b"zimg");
        zboot[8..12].copy_from_slice(&0x400u32.to_le_bytes());
        zboot[24..28].copy_from_slice(b"gzip");
        zboot[IMAGE_MAGIC..IMAGE_MAGIC + 4].copy_from_slice(&LINUX_PE_MAGIC);
        zboot.extend_from_slice(&gzipped(&arm64));
        assert_eq!(told(&zboot), (vec![Arch::Loong], release.clone()));

        let unified = pe_program(0x8664, &[(".linux", b"MZ"), (".uname", b"6.12.4-gentoo\0\0")]);
        assert_eq!(told(&unified), (vec![Arch::Amd64], release.clone()));

        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x15\0".to_vec();
        elf.extend_from_slice(&arm64);
        elf[IMAGE_MAGIC + 20] = 0;
        assert_eq!(detect(&elf), None);
        assert_eq!(told(&elf), (vec![Arch::Ppc64le], release));
    }

    #[test]
    fn kernels_that_are_cut_off_say_so() {
        let arm64 = image(b"ARM\x64");
        let packed = gzipped(&arm64);
        let cut = &packed[..packed.len() - 40];
        let mut kernel = detect(cut).unwrap();
        kernel.learn(kernel.look_inside(cut).unwrap());
        assert!(kernel.damage(cut.len() as u64).unwrap().contains("ends in the middle"));

        let mut efi = pe_program(0xaa64, &[(".text", &[0x90; 5000])]);
        efi[IMAGE_MAGIC..IMAGE_MAGIC + 4].copy_from_slice(b"ARM\x64");
        let kernel = detect(&efi).unwrap();
        assert_eq!((kernel.damage(efi.len() as u64), kernel.archs), (None, vec![Arch::Arm64]));
        assert!(detect(&efi).unwrap().damage(2000).is_some());

        let mut arm = vec![0; 1000];
        arm[ARM_MAGIC..ARM_MAGIC + 4].copy_from_slice(&ARM);
        arm[ARM_MAGIC + 8..ARM_MAGIC + 12].copy_from_slice(&1000u32.to_le_bytes());
        assert!(detect(&arm).unwrap().damage(1000).is_none() && detect(&arm).unwrap().damage(999).is_some());
    }

    #[test]
    fn first_words_are_found_wherever_blocks_end() {
        for before in (0..300).chain((1 << 18) - 200..(1 << 18) + 200) {
            let mut bytes = vec![b'L'; before];
            bytes.extend_from_slice(b"Linux version 6.1.2 (x)");
            assert_eq!(banner(&mut &bytes[..]).unwrap().as_deref(), Some("6.1.2"), "{before}");
        }
        assert_eq!(banner(&mut &b"Linux version x"[..]).unwrap(), None);
    }

    #[test]
    fn other_files_are_no_kernels() {
        assert_eq!(detect(b""), None);
        assert_eq!(detect(&[0; 0x400]), None);
        assert_eq!(detect(&[0xff; 70_000]), None);
        assert_eq!(detect(&gzipped(&[b'a'; 5000])), None);
        assert_eq!(detect(&pe_program(0x8664, &[(".text", b"x")])), None);
    }
}
