//! Linux kernel images, told by their content.
//!
//! x86: the boot protocol's header (`Documentation/arch/x86/boot.rst`); arm64 and RISC-V: the image headers
//! of `Documentation/arch/arm64/booting.rst` and `…/riscv/boot-image-header.rst`.

/// The machine a kernel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// bzImage, 32 or 64 bit.
    X86,
    /// Image.
    Arm64,
    /// Image.
    Riscv,
}

/// What a kernel image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The machine it is for.
    pub machine: Machine,
    /// The release, as `uname -r` gives it, where the image says.
    pub release: Option<String>,
}

/// How much of a file is enough to tell.
pub const HEAD: usize = 64 * 1024;

/// Where x86's header has `HdrS`, the place of the version text, and what that place counts from.
const X86_MAGIC: usize = 0x202;
const X86_VERSION: usize = 0x20e;
const X86_VERSION_BASE: usize = 0x200;

/// Reads the start of a file; `None` where it is no kernel.
pub fn detect(head: &[u8]) -> Option<Kernel> {
    if head.get(X86_MAGIC..X86_MAGIC + 4) == Some(b"HdrS") {
        let place = head.get(X86_VERSION..X86_VERSION + 2)?.try_into().ok().map(u16::from_le_bytes)?;
        let text = (place != 0).then(|| head.get(usize::from(place) + X86_VERSION_BASE..)).flatten();
        let release = text.and_then(|text| {
            let end = text.iter().position(|b| *b == 0 || *b == b' ')?;
            String::from_utf8(text[..end].to_vec()).ok().filter(|release| !release.is_empty())
        });
        return Some(Kernel { machine: Machine::X86, release });
    }
    match head.get(0x38..0x3c)? {
        b"ARM\x64" => Some(Kernel { machine: Machine::Arm64, release: None }),
        b"RSC\x05" => Some(Kernel { machine: Machine::Riscv, release: None }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_of_an_x86_kernel_is_read_from_its_header() {
        let mut head = vec![0; 0x3000];
        head[X86_MAGIC..X86_MAGIC + 4].copy_from_slice(b"HdrS");
        head[X86_VERSION..X86_VERSION + 2].copy_from_slice(&0x1000u16.to_le_bytes());
        head[0x1200..0x1210].copy_from_slice(b"6.1.0-9-x (x) #1");
        let kernel = detect(&head).unwrap();
        assert_eq!(kernel, Kernel { machine: Machine::X86, release: Some("6.1.0-9-x".to_owned()) });
        head[X86_VERSION..X86_VERSION + 2].copy_from_slice(&0xffffu16.to_le_bytes());
        assert_eq!(detect(&head).unwrap().release, None);
    }

    #[test]
    fn other_files_are_no_kernels() {
        assert_eq!(detect(b""), None);
        assert_eq!(detect(&[0; 0x400]), None);
        assert_eq!(detect(&[0xff; 70_000]), None);
    }
}
