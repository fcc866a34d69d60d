//! What scripts say that have iPXE verify what they load, each file by the signature beside it.
//!
//! A parent script may set `verify`: `yes` boots nothing that is not verified; `try`, which is meant where nobody says, tells what was not
//! verified, and boots; `no` tells nothing; any other word is `yes`. A script that came over plain HTTP can promise no more by itself:
//! whoever wants more has an iPXE that trusts nothing else (`imgtrust --permanent`), to which these scripts are signed files too. Whom
//! that one trusts is never asked by `imgtrust`, which would change it.

use crate::audit::CODE_SIGNATURE;

/// The beginning: what is wanted.
pub(super) const HEAD: &str = "isset ${verify} || set verify try\n\n";

/// Why nothing was booted.
pub(super) const REFUSED: &str = "Nothing is booted that is not verified.";

/// The end: where scripts go to whose files are not verified. Debian's iPXE, and most others, have no such command, and say so
/// themselves.
pub(super) const TAIL: &str = ":unverified\n\
    echo ${image} is not verified: its signature is missing, is not one that this iPXE trusts, or it cannot verify any.\n\
    iseq ${verify} try && goto ${go_on} || goto failed_verify\n\n\
    :unchecked\n\
    echo ${image} is not verified: it is fetched later, and the initrd does not check it.\n\
    iseq ${verify} try && goto ${go_on} || goto failed_verify\n\n";

/// Verifies images that were loaded; the script goes on behind. `fetched` is what the initrd gets by itself and does not check.
pub(super) fn images(label: &str, names: &[String], fetched: Option<&str>) -> String {
    let mut text = format!("set go_on boot_{label}\niseq ${{verify}} no && goto ${{go_on}} ||\n");
    for name in names {
        text.push_str(&format!(
            "set image {name}\nimgverify {name} {name}{CODE_SIGNATURE} || goto unverified\n"
        ));
    }
    if let Some(fetched) = fetched {
        text.push_str(&format!("set image {fetched}\ngoto unchecked\n"));
    }
    text.push_str(&format!(":boot_{label}\n"));
    text
}

/// Renders the netboot folder's first script: what works best with the firmware at hand.
pub(super) fn chooser(title: &str) -> String {
    let (verified, _) = TAIL.split_once(":unchecked").unwrap_or((TAIL, ""));
    format!(
        "#!ipxe\n# {title}\n\n{HEAD}\
         # By BIOS, iPXE puts the squashfs into the initrd. By UEFI, not every version can.\n\
         iseq ${{platform}} efi && set script combined.ipxe || set script inject.ipxe\n\
         imgfree\n\
         imgfetch --name chosen ${{script}} || goto failed\n\
         set go_on go_on\n\
         iseq ${{verify}} no && goto ${{go_on}} ||\n\
         set image ${{script}}\n\
         imgverify chosen ${{script}}{CODE_SIGNATURE} || goto unverified\n\
         :go_on\n\
         chain chosen || goto failed\n\
         exit\n\n\
         {verified}\
         :failed_verify\necho {REFUSED}\ngoto stop\n\n\
         :failed\necho The boot script could not be loaded.\n\n\
         :stop\nshell\n"
    )
}
