//! The scripts that lead a machine's iPXE to a set's own script.
//!
//! They are rendered for who asks, with the address by which it reached this server: iPXE before 2024 does not tell a script where it came
//! from. The syntax is that of <https://ipxe.org/cmd>.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;

use crate::site::Set;

/// What iPXE tells of its machine, by the settings of <https://ipxe.org/cfg>.
const TELLS: &str = "mem=${smbios/17.12.2:hexraw}&more=${smbios/17.28.4:hexraw}&mac=${mac:hexhyp}&platform=${platform}\
                     &product=${product:uristring}&serial=${serial:uristring}";

/// What a machine has told of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its MAC, with colons.
    pub mac: Option<String>,
    /// `pcbios` or `efi`.
    pub platform: Option<String>,
    /// Memory of its first module, in MiB: at least that much it has.
    pub memory_mib: Option<u64>,
    /// The name of the product.
    pub product: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
}

/// Characters of a text that somebody else says of a machine, at most.
const LONGEST: usize = 80;

impl Machine {
    /// Reads a query.
    pub(crate) fn of_query(query: &str) -> Self {
        let mut machine = Self::default();
        let (mut size, mut extended) = (None, None);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            let text = || {
                Some(value.chars().filter(|c| !c.is_control()).take(LONGEST).collect())
                    .filter(|t: &String| !t.is_empty())
            };
            match name {
                "mac" => machine.mac = mac(&value),
                "platform" => machine.platform = text(),
                "product" => machine.product = text(),
                "serial" => machine.serial = text(),
                "mem" => size = little_endian(&value),
                "more" => extended = little_endian(&value),
                _ => {}
            }
        }
        machine.memory_mib = memory(size, extended);
        machine
    }
}

/// Reads a MAC with hyphens or colons; returns it with colons, in lower case.
pub fn mac(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(['-', ':']).collect();
    let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    (parts.len() == 6 && parts.iter().all(is_byte)).then(|| parts.join(":").to_ascii_lowercase())
}

/// Reads a number as SMBIOS has it, in hex digits: the least byte first.
fn little_endian(hex: &str) -> Option<u64> {
    if hex.is_empty() || hex.len() > 8 || !hex.len().is_multiple_of(2) || !hex.is_ascii() {
        return None;
    }
    let byte = |at: usize| u64::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    (0..hex.len()).step_by(2).rev().try_fold(0, |sum, at| Some(sum << 8 | byte(at)?))
}

/// Returns the size of a memory module in MiB: SMBIOS's structure 17, the fields `Size` and `Extended Size`
/// (<https://www.dmtf.org/standards/smbios>).
fn memory(size: Option<u64>, extended: Option<u64>) -> Option<u64> {
    match size? {
        // None is there, or it is not known.
        0 | 0xffff => None,
        0x7fff => extended.map(|mib| mib & 0x7fff_ffff).filter(|mib| *mib > 0),
        // In KiB.
        size if size & 0x8000 != 0 => Some((size & 0x7fff) / 1024),
        size => Some(size),
    }
}

/// A text that iPXE shows as it is: without what it would expand.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && *c != '$').collect()
}

/// Leads to one of the sets.
pub(crate) fn menu(base: &str, sets: &[Arc<Set>]) -> String {
    if let [only] = sets {
        return start(base, only);
    }
    if sets.is_empty() {
        return "#!ipxe\n\necho Nothing is served.\nshell\n".to_owned();
    }
    let mut script = "#!ipxe\n\n".to_owned();
    // Where but one fits the machine, there is nothing to pick.
    let archs: BTreeSet<&String> = sets.iter().flat_map(|set| &set.archs).collect();
    for arch in archs {
        let mut fit = sets.iter().filter(|set| set.archs.is_empty() || set.archs.contains(arch));
        if let (Some(only), None) = (fit.next(), fit.next()) {
            script.push_str(&format!(
                "iseq ${{buildarch}} {arch} && chain {base}/{}/boot.ipxe ||\n",
                only.name
            ));
        }
    }
    script.push_str("menu stagegraph\n");
    for set in sets {
        let item = format!("item {} {}", set.name, plain(&set.title));
        match &set.archs[..] {
            [] => script.push_str(&format!("{item}\n")),
            archs => {
                for arch in archs {
                    script.push_str(&format!("iseq ${{buildarch}} {arch} && {item} ||\n"));
                }
            }
        }
    }
    script.push_str("choose --timeout 30000 set || shell\n");
    script.push_str(&format!("chain {base}/${{set}}/boot.ipxe || shell\n"));
    script
}

/// Leads to the newest build of a set, whose addresses stay what they are.
pub(crate) fn start(base: &str, set: &Set) -> String {
    let there = format!("{base}/{}/@{}", set.name, set.id);
    format!("#!ipxe\n# {}\n\nchain {there}/way.ipxe?{TELLS} || shell\n", plain(&set.title))
}

/// Returns an address as a client of NFS takes it: one of IPv6 in brackets.
pub fn nfs_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// What a script needs to know of this server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here<'a> {
    /// Its address, as the machine reached it, without a slash at its end.
    pub(crate) base: &'a str,
    /// Words that go behind the kernel's command line, where the set's script takes them.
    pub(crate) append: &'a str,
    /// Where it has NFS.
    pub(crate) nfs: Option<SocketAddr>,
}

/// Leads to the way that fits a machine.
pub(crate) fn way(here: &Here<'_>, set: &Set, machine: &Machine) -> String {
    let Here { base, append, nfs } = *here;
    let below = format!("{}/@{}/{}", set.name, set.id, set.folder);
    let folder = format!("{base}/{below}");
    let Some(way) = set.way(machine.platform.as_deref(), machine.memory_mib, nfs.is_some()) else {
        return format!("#!ipxe\n\necho {} has no way to boot over the network.\nshell\n", plain(&set.title));
    };
    let mut script = format!("#!ipxe\n# {}: {}\n\n", plain(&set.title), way.name);
    if let Some(has) = machine.memory_mib.filter(|has| *has < way.least_ram_mib) {
        script.push_str(&format!(
            "echo This machine has {has} MiB of memory, as far as its firmware tells; {} needs {}.\n",
            way.name, way.least_ram_mib
        ));
        script.push_str("prompt --timeout 20000 Press a key to try it all the same. ||\n");
    }
    if !append.is_empty() {
        script.push_str(&format!("set cmdline {}\n", plain(append)));
    }
    script.push_str(&format!("set base {}\n", folder.trim_end_matches('/')));
    if let Some(nfs) = nfs.filter(|_| way.nfs) {
        let (port, host) = (nfs.port(), nfs_host(nfs.ip()));
        script.push_str(&format!("set nfs {host}:/{}\n", below.trim_end_matches('/')));
        script.push_str(&format!("set nfsopts vers=3,tcp,port={port},mountport={port}\n"));
    }
    script.push_str(&format!("chain {folder}{} || shell\n", way.script));
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::set;

    #[test]
    fn a_machine_is_what_its_ipxe_tells() {
        let machine = Machine::of_query(
            "mem=8002&more=&mac=52-54-00-AB-cd-01&platform=efi&product=Standard%20PC&serial=%0a%3Cb%3E&x",
        );
        assert_eq!(
            machine,
            Machine {
                mac: Some("52:54:00:ab:cd:01".to_owned()),
                platform: Some("efi".to_owned()),
                memory_mib: Some(640),
                product: Some("Standard PC".to_owned()),
                serial: Some("<b>".to_owned()),
            }
        );
        let memory = |query: &str| Machine::of_query(query).memory_mib;
        for (query, mib) in [
            ("mem=ff7f&more=00800000", Some(32768)),
            ("mem=ff7f", None),
            ("mem=0000", None),
            ("mem=ffff", None),
            ("mem=0084", Some(1)),
            ("mem=", None),
            ("mem=800", None),
            ("mem=zz02", None),
            ("mem=\u{e9}\u{e9}", None),
            ("", None),
        ] {
            assert_eq!(memory(query), mib, "{query}");
        }
        for wrong in ["", "52-54", "52-54-00-ab-cd-0", "52-54-00-ab-cd-<>", "52:54:00:ab:cd:01:02"] {
            assert_eq!(mac(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_machine_is_led_to_what_runs_on_it() {
        let of = |name: &str, archs: &[&str]| {
            Arc::new(Set { archs: archs.iter().map(ToString::to_string).collect(), ..set(name, "11") })
        };
        let sets = [of("pc", &["x86_64", "i386"]), of("old", &["i386"]), of("arm", &["arm64"])];
        let text = menu("http://h", &sets);
        for line in [
            "iseq ${buildarch} arm64 && chain http://h/arm/boot.ipxe ||\n",
            "iseq ${buildarch} x86_64 && chain http://h/pc/boot.ipxe ||\n",
            "iseq ${buildarch} i386 && item old The set old ||\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("i386 && chain"), "{text}");
    }

    #[test]
    fn scripts_lead_to_the_build_that_is_the_newest_now() {
        let set = Arc::new(set("a", "11"));
        let base = "http://10.0.0.1";
        let script = menu(base, &[Arc::clone(&set)]);
        assert!(
            script.starts_with("#!ipxe\n") && script.contains("chain http://10.0.0.1/a/@11/way.ipxe?mem=${"),
            "{script}"
        );
        let two = menu(base, &[Arc::clone(&set), set.clone()]);
        assert!(
            two.contains("item a The set a\n") && two.contains("chain http://10.0.0.1/${set}/boot.ipxe"),
            "{two}"
        );
        let machine =
            |memory_mib| Machine { platform: Some("efi".to_owned()), memory_mib, ..Machine::default() };
        let mut here = Here { base, append: "console=ttyS0", nfs: None };
        let rich = way(&here, &set, &machine(Some(2048)));
        assert_eq!(
            rich,
            "#!ipxe\n# The set a: netboot-uefi\n\nset cmdline console=ttyS0\nset base http://10.0.0.1/a/@11/netboot\n\
             chain http://10.0.0.1/a/@11/netboot/boot.ipxe || shell\n"
        );
        assert!(way(&here, &set, &machine(Some(700))).contains("/http.ipxe"));
        let poor = way(&here, &set, &machine(Some(256)));
        assert!(poor.contains("has 256 MiB of memory") && poor.contains("needs 640"), "{poor}");
        here.nfs = Some("10.0.0.1:2049".parse().unwrap());
        let over_nfs = way(&here, &set, &machine(Some(256)));
        let told = "set nfs 10.0.0.1:/a/@11/netboot\nset nfsopts vers=3,tcp,port=2049,mountport=2049\n\
                    chain http://10.0.0.1/a/@11/netboot/nfs.ipxe";
        assert!(over_nfs.contains(told) && !over_nfs.contains("needs"), "{over_nfs}");
        assert!(!way(&here, &set, &machine(Some(700))).contains("set nfs"));
    }

    #[test]
    fn titles_are_shown_and_not_expanded() {
        let set = Set { title: "a ${b}\nshell".to_owned(), ..set("a", "11") };
        let script = start("http://x", &set);
        assert!(script.contains("# a {b}shell\n"), "{script}");
    }
}
