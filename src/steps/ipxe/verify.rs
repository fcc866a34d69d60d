//! What scripts say that have iPXE verify what they load, each file by the signature beside it.
//!
//! A parent script may set `verify`: `yes` boots nothing that is not verified; `try`, which is meant where nobody says, tells what was not
//! verified, and boots; `no` tells nothing. A script that came over plain HTTP can promise no more by itself: whoever wants more has an
//! iPXE that trusts nothing else (`imgtrust --permanent`), to which these scripts are signed files too.

use crate::audit::CODE_SIGNATURE;

/// The beginning: what is wanted, and whether this iPXE can do it. Debian's, and most others', have no such command; one that may not
/// change whom it trusts (`--permanent`) has it.
pub(super) const HEAD: &str = "isset ${verify} || set verify try\n\
    imgtrust && set can_verify yes || set can_verify no\n\
    imgtrust --allow ||\n\n";

/// Why nothing was booted.
pub(super) const REFUSED: &str = "Nothing is booted that is not verified.";

/// The end: where scripts go to whose files are not verified.
pub(super) const TAIL: &str = ":unable\n\
    echo This iPXE cannot verify signatures: ${image} is not verified.\n\
    goto unverified\n\n\
    :bad\n\
    echo ${image} is not verified: its signature is missing, or it is not one that this iPXE trusts.\n\n\
    :unverified\n\
    iseq ${verify} yes && goto failed_verify || goto ${go_on}\n\n";

/// Verifies images that were loaded; the script goes on behind.
pub(super) fn images(label: &str, names: &[String]) -> String {
    let mut text = format!("set go_on boot_{label}\niseq ${{verify}} no && goto ${{go_on}} ||\n");
    text.push_str(&format!("set image {}\niseq ${{can_verify}} yes || goto unable\n", names.join(", ")));
    for name in names {
        text.push_str(&format!("set image {name}\nimgverify {name} {name}{CODE_SIGNATURE} || goto bad\n"));
    }
    text.push_str(&format!(":boot_{label}\n"));
    text
}

/// Renders the netboot folder's first script: what works best with the firmware at hand.
pub(super) fn chooser(title: &str) -> String {
    format!(
        "#!ipxe\n# {title}\n\n{HEAD}\
         # By BIOS, iPXE puts the squashfs into the initrd. By UEFI, not every version can.\n\
         iseq ${{platform}} efi && set script combined.ipxe || set script inject.ipxe\n\
         imgfree\n\
         imgfetch --name chosen ${{script}} || goto failed\n\
         set go_on go_on\n\
         iseq ${{verify}} no && goto ${{go_on}} ||\n\
         set image ${{script}}\n\
         iseq ${{can_verify}} yes || goto unable\n\
         imgverify chosen ${{script}}{CODE_SIGNATURE} || goto bad\n\
         :go_on\n\
         chain chosen || goto failed\n\
         exit\n\n\
         {TAIL}\
         :failed_verify\necho {REFUSED}\ngoto stop\n\n\
         :failed\necho The boot script could not be loaded.\n\n\
         :stop\nshell\n"
    )
}
