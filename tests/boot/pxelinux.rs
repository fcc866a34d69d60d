//! PXELINUX's menus: what PXELINUX boots by itself, in QEMU, against what the product says that it boots.

use std::path::Path;
use std::time::Duration;

use stagegraph::formats::menus::{Handed, parse_pxelinux};

use crate::vm::{Firmware, Vm};

/// How long PXELINUX may take to start a kernel of a few bytes.
const ASKED: Duration = Duration::from_secs(120);

/// Menus whose reading is not plain from the documentation.
const MENUS: [&str; 15] = [
    "APPEND everywhere\nDEFAULT b\nLABEL a\nKERNEL k\nAPPEND own\nLABEL b\nLINUX k2\nINITRD i\n",
    "DEFAULT a\nAPPEND everywhere\nLABEL a\nKERNEL k\nAPPEND own  of\tit a=\"b c\"\nLABEL b\nKERNEL k2\n",
    "APPEND everywhere\nLABEL a\nKERNEL k\nAPPEND -\nDEFAULT a\n",
    "DEFAULT a\nLABEL a\nKERNEL k\nINITRD i,j\nAPPEND x\n",
    "DEFAULT a\nLABEL a\nKERNEL k\nINITRD j\nAPPEND initrd=i x\n",
    "DEFAULT a\nLABEL a\nKERNEL k\nAPPEND first\nLABEL a\nKERNEL k2\nAPPEND second\n",
    "DEFAULT a\nLABEL a\nKERNEL k\nLABEL b\nKERNEL k2\nDEFAULT b\n",
    "DEFAULT k2 one two\nAPPEND everywhere\nLABEL a\nKERNEL k\n",
    "DEFAULT b\r\nLABEL a\r\nKERNEL k\r\nLABEL b\r\nKERNEL k2\r\nAPPEND x\r\n",
    "DEFAULT a\nLABEL a\nTEXT HELP\nKERNEL k2\nENDTEXT\nKERNEL k\nAPPEND one\nAPPEND two\n",
    "DEFAULT k\nLABEL k\nAPPEND of the label\n# APPEND no\n",
    "DEFAULT a\nLABEL a\nKERNEL k more\nAPPEND x # y\n",
    "PROMPT 1\nTIMEOUT 1\nDEFAULT a\nONTIMEOUT b\nLABEL a\nKERNEL k\nLABEL b\nKERNEL k2\nAPPEND x\n",
    "DEFAULT my live\nLABEL my live\nKERNEL k\nAPPEND own\n",
    "UI menu.c32\nTIMEOUT 1\nDEFAULT a\nLABEL a\nKERNEL k\nLABEL b\nKERNEL k2\nMENU DEFAULT\nAPPEND y\n",
];

/// A kernel for PCs that writes its command line on the serial line, between `<` and `>`, and starts the machine anew.
fn kernel() -> Vec<u8> {
    /// In real mode: reads where the line is from its header, and writes it byte by byte.
    const CODE: [u8; 66] = [
        0x66, 0xa1, 0x28, 0x02, 0x66, 0x89, 0xc3, 0x66, 0xc1, 0xe8, 0x04, 0x8e, 0xc0, 0x83, 0xe3, 0x0f, 0xb0,
        0x3c, 0xe8, 0x1e, 0x00, 0x26, 0x8a, 0x07, 0x43, 0x08, 0xc0, 0x74, 0x05, 0xe8, 0x13, 0x00, 0xeb, 0xf3,
        0xb0, 0x3e, 0xe8, 0x0c, 0x00, 0xb0, 0x0a, 0xe8, 0x07, 0x00, 0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd,
        0x88, 0xc4, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0x88, 0xe0, 0xba, 0xf8, 0x03,
    ];
    let mut bytes = vec![0; 0x600];
    bytes[0x1f1] = 1;
    bytes[0x1f4] = 0x20;
    bytes[0x1fe..0x202].copy_from_slice(&[0x55, 0xaa, 0xeb, 0x3e]);
    bytes[0x202..0x208].copy_from_slice(b"HdrS\x03\x02");
    bytes[0x211] = 1;
    bytes[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
    bytes[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes());
    bytes[0x240..0x240 + CODE.len()].copy_from_slice(&CODE);
    bytes[0x240 + CODE.len()..0x242 + CODE.len()].copy_from_slice(&[0xee, 0xc3]);
    bytes
}

/// The kernel, the initrds and the words that the menu boots by itself.
fn ours(text: &str) -> String {
    let menu = parse_pxelinux(text, &Handed::new());
    let entry = menu.entries.iter().find(|entry| entry.is_default);
    let Some(entry) = entry else { return format!("nothing: {menu:?}") };
    let initrds: Vec<&str> = entry.initrds.iter().map(|loaded| loaded.file.form.as_str()).collect();
    format!("{} [{}] {}", entry.kernel.form, initrds.join(","), entry.words.join(" "))
}

/// The same, of the line that a kernel gets.
fn theirs(line: &str) -> String {
    let (mut kernel, mut initrds, mut words) = ("", "", Vec::new());
    for word in line.split_ascii_whitespace() {
        match word.split_once('=') {
            Some(("BOOT_IMAGE", name)) => kernel = name,
            Some(("initrd", names)) => initrds = names,
            _ => words.push(word),
        }
    }
    format!("{kernel} [{initrds}] {}", words.join(" "))
}

#[test]
fn pxelinux_boots_what_the_product_says_of_the_same_menus() {
    let folder = tempfile::tempdir().unwrap();
    let modules = ["/usr/lib/syslinux/modules/bios", "/usr/share/syslinux"].into_iter();
    let modules = modules.map(Path::new).find(|folder| folder.exists()).expect("syslinux is installed");
    for module in ["ldlinux.c32", "menu.c32", "libutil.c32"] {
        std::fs::copy(modules.join(module), folder.path().join(module)).unwrap();
    }
    std::fs::copy("/usr/lib/PXELINUX/pxelinux.0", folder.path().join("pxelinux.0")).unwrap();
    for name in ["k", "k2"] {
        std::fs::write(folder.path().join(name), kernel()).unwrap();
    }
    for name in ["i", "j"] {
        std::fs::write(folder.path().join(name), "an initrd that nobody reads").unwrap();
    }
    std::fs::create_dir(folder.path().join("pxelinux.cfg")).unwrap();
    let mut wrong = Vec::new();
    for menu in MENUS {
        std::fs::write(folder.path().join("pxelinux.cfg/default"), menu).unwrap();
        let net = format!("user,id=net,tftp={},bootfile=pxelinux.0", folder.path().display());
        let devices = ["-netdev", &net, "-device", "e1000,netdev=net,bootindex=0"];
        let mut vm = Vm::start(Firmware::BiosWithScreen, 64, &devices);
        vm.wait_for("<", ASKED);
        let line = vm.wait_for(">", ASKED);
        let (ours, theirs) = (ours(menu), theirs(line.trim_end_matches('>')));
        if ours != theirs {
            wrong.push(format!("{menu}: PXELINUX boots {theirs:?}, not {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
