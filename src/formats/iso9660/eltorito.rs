//! El Torito: what an ISO offers the firmware to start.
//!
//! "El Torito" Bootable CD-ROM Format Specification 1.0, and UEFI's platform number (UEFI 2.10, 13.3.2.1).

use super::volume::{FIRST_DESCRIPTOR, MAX_DESCRIPTORS, SECTOR};

/// Boot images that are looked at: real catalogs have two.
const MAX_IMAGES: usize = 32;

/// The firmware a boot image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// 80x86: BIOS.
    Bios,
    /// UEFI.
    Uefi,
    /// Something else, by its number.
    Other(u8),
}

impl Platform {
    fn of(number: u8) -> Self {
        match number {
            0 => Platform::Bios,
            0xef => Platform::Uefi,
            other => Platform::Other(other),
        }
    }
}

/// A boot image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootImage {
    /// Whom it is for.
    pub platform: Platform,
    /// Where it starts, in bytes.
    pub start: u64,
    /// Whether the catalog says that it can be booted.
    pub bootable: bool,
}

/// Reads the boot catalog of an image of `size` bytes; `bytes` reads so many from a place of it. The inner error says what
/// is wrong with the catalog.
pub(super) fn read<E>(
    size: u64,
    bytes: impl Fn(u64, u64) -> Result<Vec<u8>, E>,
) -> Result<Result<Vec<BootImage>, &'static str>, E> {
    for sector in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
        let Ok(descriptor) = bytes(sector * SECTOR, SECTOR) else { break };
        if &descriptor[1..6] != b"CD001" || descriptor[0] == 255 {
            break;
        }
        if descriptor[0] == 0 && descriptor[7..].starts_with(b"EL TORITO SPECIFICATION") {
            let place = descriptor[0x47..0x4b].try_into().map(u32::from_le_bytes).unwrap_or_default();
            let place = u64::from(place) * SECTOR;
            if place + SECTOR > size {
                return Ok(Err("its boot catalog lies beyond its end"));
            }
            return Ok(parse(&bytes(place, SECTOR)?));
        }
    }
    Ok(Ok(Vec::new()))
}

/// Reads a catalog: a validation entry, the default entry, sections.
fn parse(catalog: &[u8]) -> Result<Vec<BootImage>, &'static str> {
    let (entries, _) = catalog.as_chunks::<32>();
    let [validation, default, rest @ ..] = entries else { return Err("its boot catalog is cut off") };
    let sum = validation.as_chunks::<2>().0.iter().map(|word| u16::from_le_bytes(*word));
    if validation[0] != 1 || validation[30..] != [0x55, 0xaa] || sum.fold(0, u16::wrapping_add) != 0 {
        return Err("the checksum of its boot catalog is wrong");
    }
    let image = |platform, entry: &[u8; 32]| {
        let start = u32::from_le_bytes([entry[8], entry[9], entry[10], entry[11]]);
        BootImage { platform, start: u64::from(start) * SECTOR, bootable: entry[0] == 0x88 }
    };
    let mut images = vec![image(Platform::of(validation[1]), default)];
    let mut rest = rest.iter();
    // 0x90 opens a section, 0x91 the last one.
    while let Some(header) = rest.next().filter(|header| matches!(header[0], 0x90 | 0x91)) {
        let platform = Platform::of(header[1]);
        let count = usize::from(u16::from_le_bytes([header[2], header[3]]));
        images.extend(rest.by_ref().take(count.min(MAX_IMAGES)).map(|entry| image(platform, entry)));
        if header[0] == 0x91 || images.len() > MAX_IMAGES {
            break;
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Vec<u8> {
        let mut catalog = vec![0; 2048];
        catalog[0] = 1;
        catalog[30..32].copy_from_slice(&[0x55, 0xaa]);
        let sum = 1u16.wrapping_add(0xaa55);
        catalog[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
        catalog[32] = 0x88;
        catalog[40] = 50;
        catalog[64..68].copy_from_slice(&[0x91, 0xef, 1, 0]);
        catalog[96] = 0x88;
        catalog[104] = 60;
        catalog
    }

    #[test]
    fn a_catalog_for_bios_and_uefi_is_read() {
        let image = |platform, sector| BootImage { platform, start: sector * SECTOR, bootable: true };
        assert_eq!(parse(&catalog()).unwrap(), [image(Platform::Bios, 50), image(Platform::Uefi, 60)]);
    }

    #[test]
    fn a_damaged_catalog_is_refused() {
        let mut damaged = catalog();
        damaged[5] ^= 1;
        assert!(parse(&damaged).is_err());
        assert!(parse(&[]).is_err());
    }
}
