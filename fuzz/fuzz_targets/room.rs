//! What machines of a room send: DHCP messages, requests over TFTP, calls of NFS, paths.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use serve::{BootServer, Packet, Site, answer_dhcp, answer_nfs, parse_tftp};

fuzz_target!(|bytes: &[u8]| {
    let site = Site::default();
    if let Some(packet) = Packet::read(bytes) {
        let _ = packet.write();
        let place = BootServer { server: Ipv4Addr::LOCALHOST, http: 80 };
        for is_boot_server in [false, true] {
            if let Some(outcome) = answer_dhcp(&packet, place, &site, is_boot_server, |_| None) {
                assert!(outcome.reply.is_none(), "there is nothing to boot");
            }
        }
    }
    if let Ok(request) = parse_tftp(bytes) {
        assert!(site.find_loader(&request.file).is_none(), "there is no file");
    }
    let _ = answer_nfs(&site, bytes);
    if let Ok(path) = std::str::from_utf8(bytes) {
        let _ = site.find(path);
    }
});
