//! The lines by which other people's servers and programs boot a set: for who keeps a boot server of their own.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Whose lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// dnsmasq, beside a DHCP server that stays as it is.
    Dnsmasq,
    /// OpenWRT's dnsmasq, which is the DHCP server.
    OpenWrt,
    /// Kea's DHCP server for IPv4.
    Kea,
    /// ISC's DHCP server.
    Isc,
    /// MikroTik's RouterOS 7.
    Mikrotik,
    /// nginx, for the files.
    Nginx,
    /// A machine of QEMU's.
    Qemu,
    /// A machine of libvirt's.
    VirtInstall,
    /// iPXE's command line.
    Ipxe,
    /// GRUB's menu on a machine that is installed already.
    Grub,
}

/// All of them, by the names that people type.
pub const KINDS: [(&str, Kind); 10] = [
    ("dnsmasq", Kind::Dnsmasq),
    ("openwrt", Kind::OpenWrt),
    ("kea", Kind::Kea),
    ("isc", Kind::Isc),
    ("mikrotik", Kind::Mikrotik),
    ("nginx", Kind::Nginx),
    ("qemu", Kind::Qemu),
    ("virt-install", Kind::VirtInstall),
    ("ipxe", Kind::Ipxe),
    ("grub", Kind::Grub),
];

/// A set as somebody serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The address of the machine that serves it.
    pub host: String,
    /// The address of the folder with `boot.ipxe` and the loaders, over HTTP; no slash at its end.
    pub url: String,
    /// The same folder on that machine.
    pub folder: String,
    /// The boot loaders that it has, by their names.
    pub loaders: BTreeSet<String>,
    /// The kernel and the initrd of the set, by their names in it, and the kernel's command line without a medium's own words.
    pub kernel: Option<Kernel>,
}

/// A kernel that is booted by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its name in the folder.
    pub kernel: String,
    /// Its initrd's name in the folder.
    pub initrd: String,
    /// Its command line for the way where the initramfs fetches the squashfs.
    pub command_line: String,
    /// The least memory for that, in MiB.
    pub least_ram_mib: u64,
}

/// What firmware asks with: the number of RFC 4578 and its registry, and the loader for it. Those of UEFI HTTP Boot take an address.
const LOADERS: [(u16, &str, bool); 10] = [
    (0, "undionly.kpxe", false),
    (7, "snponly.efi", false),
    (9, "snponly.efi", false),
    (16, "snponly.efi", true),
    (11, "ipxe-arm64.efi", false),
    (19, "ipxe-arm64.efi", true),
    (27, "ipxe-riscv64.efi", false),
    (28, "ipxe-riscv64.efi", true),
    (39, "ipxe-loong64.efi", false),
    (40, "ipxe-loong64.efi", true),
];

impl Target {
    /// Returns those of the loaders that the set has.
    fn loaders(&self) -> impl Iterator<Item = (u16, &'static str, bool)> {
        LOADERS.into_iter().filter(|(_, loader, _)| self.loaders.contains(*loader))
    }
}

/// Why there are no lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// Which kernel goes with which command line is not known.
    #[error(
        "this set has no manifest, or no way where the initramfs fetches the squashfs: which kernel goes with which command line is not known"
    )]
    NoKernel,
    /// GRUB cannot be told a port.
    #[error("GRUB fetches from port 80 alone, and this is served at {0}")]
    Port(String),
}

/// Writes the lines down.
///
/// # Errors
/// [`RecipeError`].
pub fn lines(kind: Kind, place: &Target) -> Result<String, RecipeError> {
    let Target { host, url, folder, kernel, .. } = place;
    Ok(match kind {
        Kind::Dnsmasq => dnsmasq(place),
        Kind::OpenWrt => open_wrt(place),
        Kind::Kea => kea(place),
        Kind::Isc => isc(place),
        Kind::Mikrotik => mikrotik(place),
        Kind::Nginx => format!(
            "# In a file below /etc/nginx/conf.d/. iPXE needs the length of every file, which nginx says as long as it does not pack.\n\
             server {{\n    listen 80;\n    server_name {host};\n    location / {{\n        root {folder};\n        gzip off;\n        \
             autoindex off;\n    }}\n}}\n"
        ),
        Kind::Qemu
            if place.loaders.contains("ipxe-arm64.efi") && !place.loaders.contains("undionly.kpxe") =>
        {
            format!(
                "qemu-system-aarch64 -M virt -cpu max -m 1024 -bios /usr/share/qemu-efi-aarch64/QEMU_EFI.fd -serial mon:stdio -nographic \\\n    \
             -netdev user,id=n0,bootfile={url}/ipxe-arm64.efi -device virtio-net-pci,netdev=n0,bootindex=0,romfile=\n"
            )
        }
        Kind::Qemu => format!(
            "qemu-system-x86_64 -m 1024 -netdev user,id=n0,bootfile={url}/boot.ipxe -device virtio-net-pci,netdev=n0,bootindex=0\n"
        ),
        Kind::Ipxe => format!("dhcp\nset base {url}\nchain ${{base}}/boot.ipxe\n"),
        Kind::VirtInstall => virt_install(place, kernel.as_ref().ok_or(RecipeError::NoKernel)?),
        Kind::Grub => grub(place, kernel.as_ref().ok_or(RecipeError::NoKernel)?)?,
    })
}

fn dnsmasq(place: &Target) -> String {
    let Target { host, url, folder, .. } = place;
    let mut text = format!(
        "# A file below /etc/dnsmasq.d/, on the machine that has the files. The DHCP server of the network stays as it is.\n\
         port=0\ndhcp-range={host},proxy\nenable-tftp\ntftp-root={folder}\n\
         # iPXE goes on over HTTP.\ndhcp-match=set:ipxe,175\ndhcp-userclass=set:ipxe,iPXE\ndhcp-boot=tag:ipxe,{url}/boot.ipxe\n\
         pxe-prompt=\"\",0\n"
    );
    let services = place.loaders().filter(|(_, _, is_http)| !is_http).map(|(number, loader, _)| {
        let service = match number {
            0 => "X86PC".to_owned(),
            7 => "BC_EFI".to_owned(),
            9 => "X86-64_EFI".to_owned(),
            11 => "ARM64_EFI".to_owned(),
            other => other.to_string(),
        };
        (service, loader)
    });
    for (service, loader) in services {
        let _ = writeln!(text, "pxe-service=tag:!ipxe,{service},\"iPXE\",{loader}");
    }
    text
}

fn open_wrt(place: &Target) -> String {
    let Target { host, url, .. } = place;
    let mut text =
        "# On the router. The loaders are fetched from the machine that has the files.\n".to_owned();
    for (number, loader, is_http) in place.loaders() {
        let file = if is_http { format!("{url}/{loader}") } else { loader.to_owned() };
        let _ = write!(
            text,
            "uci add dhcp match\nuci set dhcp.@match[-1].networkid='arch{number}'\nuci set dhcp.@match[-1].match='93,{number}'\n\
             uci add dhcp boot\nuci set dhcp.@boot[-1].networkid='arch{number}'\nuci set dhcp.@boot[-1].filename='{file}'\n\
             uci set dhcp.@boot[-1].serveraddress='{host}'\nuci set dhcp.@boot[-1].servername='{host}'\n"
        );
    }
    let _ = write!(
        text,
        "uci add dhcp userclass\nuci set dhcp.@userclass[-1].networkid='ipxe'\nuci set dhcp.@userclass[-1].userclass='iPXE'\n\
         uci add dhcp boot\nuci set dhcp.@boot[-1].networkid='ipxe'\nuci set dhcp.@boot[-1].filename='{url}/boot.ipxe'\n\
         uci set dhcp.@boot[-1].serveraddress='{host}'\nuci set dhcp.@boot[-1].servername='{host}'\n\
         uci commit dhcp && service dnsmasq restart\n"
    );
    text
}

fn kea(place: &Target) -> String {
    let Target { host, url, .. } = place;
    let mut classes = vec![serde_json::json!({
        "name": "ipxe", "test": "option[77].hex == 'iPXE'", "next-server": host, "boot-file-name": format!("{url}/boot.ipxe"),
    })];
    for (number, loader, is_http) in place.loaders() {
        let file = if is_http { format!("{url}/{loader}") } else { loader.to_owned() };
        let mut class = serde_json::json!({
            "name": format!("arch-{number}"),
            "test": format!("option[93].hex == 0x{number:04x} and not member('ipxe')"),
            "next-server": host, "boot-file-name": file,
        });
        if is_http {
            class["option-data"] =
                serde_json::json!([{ "name": "vendor-class-identifier", "data": "HTTPClient" }]);
        }
        classes.push(class);
    }
    let classes = serde_json::to_string_pretty(&classes).unwrap_or_default();
    format!(
        "// In \"Dhcp4\" of /etc/kea/kea-dhcp4.conf. A TFTP server at {host} has the loaders.\n\"client-classes\": {classes}\n"
    )
}

fn isc(place: &Target) -> String {
    let Target { host, url, .. } = place;
    let mut text = format!(
        "# In /etc/dhcp/dhcpd.conf. A TFTP server at {host} has the loaders.\n\
         option arch code 93 = unsigned integer 16;\nnext-server {host};\n\
         if exists user-class and option user-class = \"iPXE\" {{\n    filename \"{url}/boot.ipxe\";\n"
    );
    for (number, loader, is_http) in place.loaders() {
        let _ = writeln!(text, "}} elsif option arch = {number} {{");
        if is_http {
            let _ = writeln!(
                text,
                "    option vendor-class-identifier \"HTTPClient\";\n    filename \"{url}/{loader}\";"
            );
        } else {
            let _ = writeln!(text, "    filename \"{loader}\";");
        }
    }
    text.push_str("}\n");
    text
}

fn mikrotik(place: &Target) -> String {
    let Target { host, url, .. } = place;
    let mut text = format!("# RouterOS 7. A TFTP server at {host} has the loaders.\n");
    let _ = writeln!(text, "/ip dhcp-server option add name=boot-ipxe code=67 value=\"'{url}/boot.ipxe'\"");
    let _ = writeln!(text, "/ip dhcp-server option sets add name=boot-ipxe options=boot-ipxe");
    let _ = writeln!(
        text,
        "/ip dhcp-server matcher add name=ipxe server=dhcp1 code=77 value=iPXE option-set=boot-ipxe matching-type=substring"
    );
    for (number, loader, is_http) in place.loaders() {
        let file = if is_http { format!("{url}/{loader}") } else { loader.to_owned() };
        let _ = writeln!(text, "/ip dhcp-server option add name=boot-{number} code=67 value=\"'{file}'\"");
        let _ = writeln!(text, "/ip dhcp-server option sets add name=boot-{number} options=boot-{number}");
        let _ = writeln!(
            text,
            "/ip dhcp-server matcher add name=arch-{number} server=dhcp1 code=93 value=0x{number:04X} option-set=boot-{number}"
        );
    }
    let _ = writeln!(text, "/ip dhcp-server network set [find] next-server={host}");
    text
}

/// Returns a kernel's command line with the addresses of the set in it.
fn command_line(Target { url, .. }: &Target, kernel: &Kernel) -> String {
    kernel.command_line.replace("http://SERVER/FOLDER", url)
}

fn virt_install(place: &Target, kernel: &Kernel) -> String {
    let Kernel { kernel: image, initrd, least_ram_mib, .. } = kernel;
    format!(
        "virt-install --name live --memory {least_ram_mib} --disk none --osinfo detect=on,require=off \\\n    \
         --install kernel={0}/{image},initrd={0}/{initrd},kernel_args=\"{1}\",kernel_args_overwrite=yes\n",
        place.url,
        command_line(place, kernel)
    )
}

fn grub(place: &Target, kernel: &Kernel) -> Result<String, RecipeError> {
    let Kernel { kernel: image, initrd, .. } = kernel;
    let at = place.url.trim_start_matches("http://");
    let (host, path) = at.split_once('/').unwrap_or((at, ""));
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    let (host, port) = host.split_once(':').unwrap_or((host, "80"));
    let device = format!("(http,{host})");
    if port != "80" {
        return Err(RecipeError::Port(port.to_owned()));
    }
    Ok(format!(
        "# /etc/grub.d/40_custom, then update-grub. For a machine whose GRUB has a network: booted over PXE or UEFI.\n\
         menuentry \"live, from the network\" {{\n    insmod http\n    insmod net\n    net_dhcp\n    \
         linux {device}{path}/{image} {}\n    initrd {device}{path}/{initrd}\n}}\n",
        command_line(place, kernel)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Target {
        Target {
            host: "10.0.0.2".to_owned(),
            url: "http://10.0.0.2/a".to_owned(),
            folder: "/srv/netboot".to_owned(),
            loaders: LOADERS.iter().map(|(_, loader, _)| (*loader).to_owned()).collect(),
            kernel: Some(Kernel {
                kernel: "debian.vmlinuz".to_owned(),
                initrd: "debian.initrd".to_owned(),
                command_line: "ip=dhcp root=live:http://SERVER/FOLDER/image.squashfs".to_owned(),
                least_ram_mib: 640,
            }),
        }
    }

    #[test]
    fn each_has_the_address_and_no_place_that_is_left_to_be_filled() {
        for (name, kind) in KINDS {
            let text = lines(kind, &place()).unwrap();
            assert!(
                text.contains("10.0.0.2") && !text.contains("SERVER") && !text.contains("FOLDER"),
                "{name}: {text}"
            );
            assert!(text.ends_with('\n'), "{name}");
            let without = lines(kind, &Target { kernel: None, ..place() });
            let needs_one = matches!(kind, Kind::Grub | Kind::VirtInstall);
            assert_eq!(without.err(), needs_one.then_some(RecipeError::NoKernel), "{name}");
        }
    }

    #[test]
    fn a_command_line_has_the_address_of_the_set() {
        let elsewhere = Target { url: "http://10.0.0.2:8080/a".to_owned(), ..place() };
        assert!(lines(Kind::Grub, &elsewhere).unwrap_err().to_string().contains("port 80 alone"));
        let text = lines(Kind::Grub, &place()).unwrap();
        let line =
            "linux (http,10.0.0.2)/a/debian.vmlinuz ip=dhcp root=live:http://10.0.0.2/a/image.squashfs\n";
        assert!(text.contains(line), "{text}");
    }
}
