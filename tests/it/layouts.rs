//! Sound ISOs and netboot sets, laid out as those who build them do: none of them is to be called different.
//!
//! The trees are small: kernels with a real header, real initrds, squashfs images and ISOs, but no system in them. What of each
//! layout matters to an audit is as its builder has it: where files lie, what the menus say, what starts the medium.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::live::{Live, RELEASE, dracut, write_initrd, write_kernel};
use crate::world::{run, run_in};

/// How a layout is made: a script makes the ISO's tree `i` and the set `s`; one that it writes, `after`, is run once the ISO
/// `x.iso` is there.
struct Layout {
    /// Whose it is.
    builder: &'static str,
    /// Makes both.
    script: &'static str,
    /// Options for xorriso.
    options: &'static str,
}

const fn layout(builder: &'static str, script: &'static str) -> Layout {
    Layout { builder, script, options: "" }
}

const fn booted(builder: &'static str, script: &'static str, options: &'static str) -> Layout {
    Layout { builder, script, options }
}

/// An EFI system partition with the file that `$1` is, as `$2`, and more behind it.
const FUNCTIONS: &str = "
esp() { to=$1; shift; mkfs.vfat -C $to 2880 >/dev/null; mmd -i $to ::EFI ::EFI/BOOT
  while [ $# -gt 0 ]; do mcopy -i $to $1 ::EFI/BOOT/$2; shift 2; done; }
ipxe() { printf '#!ipxe\\nkernel %s initrd=%s %s\\ninitrd %s\\n%sboot\\n' \"$1\" \"$2\" \"$3\" \"$2\" \"$4\" > s/boot.ipxe; }
squash() { printf 'initrd %s /image.squashfs.img\\n' $1; }
entry() { printf 'menuentry \"%s\" {\\n linux %s\\n initrd %s\\n}\\n' \"$1\" \"$2\" \"$3\"; }
publish() { mkdir -p s; for file; do cp ${file%:*} s/${file#*:}; done; }
";

const LAYOUTS: &[Layout] = &[
    layout(
        "catalyst with genkernel and isolinux, before GRUB",
        "mkdir -p i/isolinux; cp K i/isolinux/gentoo; cp G i/isolinux/gentoo.igz; cp S i/image.squashfs; : > i/livecd
         printf 'DEFAULT gentoo\\nPROMPT 1\\nDISPLAY boot.msg\\nLABEL gentoo\\n  kernel gentoo\\n  append root=/dev/ram0 init=/linuxrc dokeymap looptype=squashfs loop=/image.squashfs cdroot initrd=gentoo.igz vga=791\\nLABEL localhost\\n  localboot -1\\n' > i/isolinux/isolinux.cfg
         publish K:gentoo G:gentoo.igz S:image.squashfs; (cp S image.squashfs.img; echo image.squashfs.img | cpio -o -H newc --quiet > tail; cp G c; truncate -s %4 c; cat c tail > s/combined.igz)
         mkdir s/pxelinux.cfg; printf 'DEFAULT live\\nLABEL live\\nKERNEL gentoo\\nAPPEND initrd=combined.igz root=/dev/ram0 init=/linuxrc dokeymap looptype=squashfs loop=/image.squashfs.img cdroot vga=791\\n' > s/pxelinux.cfg/default",
    ),
    booted(
        "Fedora's lorax, with its menu in the EFI system partition too",
        "mkdir -p i/isolinux i/images/pxeboot i/LiveOS i/EFI/BOOT
         for d in isolinux images/pxeboot; do cp K i/$d/vmlinuz; cp D i/$d/initrd.img; done; cp S i/LiveOS/squashfs.img
         L='root=live:CDLABEL=MyLive rd.live.image quiet rhgb'
         (echo 'set default=\"1\"'; echo \"search --no-floppy --set=root -l 'MyLive'\"; entry 'Start' \"/images/pxeboot/vmlinuz $L\" /images/pxeboot/initrd.img
          entry 'Test this media' \"/images/pxeboot/vmlinuz $L rd.live.check\" /images/pxeboot/initrd.img) > i/EFI/BOOT/grub.cfg
         cp X64 i/EFI/BOOT/BOOTX64.EFI; esp i/images/efiboot.img X64 BOOTX64.EFI X64 grubx64.efi i/EFI/BOOT/grub.cfg grub.cfg
         printf \"default vesamenu.c32\\nlabel linux\\n  kernel vmlinuz\\n  append initrd=initrd.img $L\\n\" > i/isolinux/isolinux.cfg; cp B i/isolinux/vesamenu.c32; cp B i/isolinux/isolinux.bin
         publish K:vmlinuz D:initrd.img S:squashfs.img; ipxe vmlinuz initrd.img 'quiet rhgb root=live:/image.squashfs.img' \"$(squash squashfs.img)\n\"",
        "-b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -eltorito-alt-boot -e images/efiboot.img -no-emul-boot",
    ),
    booted(
        "Fedora 42 and later: one GRUB for all, no isolinux",
        "mkdir -p i/boot/x86_64/loader i/boot/grub2/i386-pc i/LiveOS i/EFI/BOOT; cp K i/boot/x86_64/loader/linux; cp D i/boot/x86_64/loader/initrd; cp S i/LiveOS/squashfs.img
         printf 'set linux=linux\\nset initrd=initrd\\nif [ \"${grub_cpu}\" = \"x86_64\" -a \"${grub_platform}\" = \"efi\" ]; then\\n set linux=linuxefi\\n set initrd=initrdefi\\nfi\\nmenuentry \"Start\" --class os {\\n $linux ($root)/boot/x86_64/loader/linux quiet root=live:CDLABEL=MyLive rd.live.image\\n $initrd ($root)/boot/x86_64/loader/initrd\\n}\\n' > i/boot/grub2/grub.cfg
         cp B i/boot/grub2/i386-pc/eltorito.img; cp X64 i/EFI/BOOT/BOOTX64.EFI; esp i/boot/efi.img X64 BOOTX64.EFI
         publish K:linux D:initrd S:squashfs.img; ipxe linux initrd 'quiet root=live:/image.squashfs.img' \"$(squash squashfs.img)\n\"",
        "-b boot/grub2/i386-pc/eltorito.img -no-emul-boot -boot-load-size 4 -eltorito-alt-boot -e boot/efi.img -no-emul-boot",
    ),
    layout(
        "Debian's live-build: menus in several files, an initrd of initramfs-tools",
        "mkdir -p i/live i/boot/grub i/isolinux; cp B i/isolinux/vesamenu.c32; cp K i/live/vmlinuz; cp O i/live/initrd.img; cp S i/live/filesystem.squashfs
         printf 'source /boot/grub/config.cfg\\nmenuentry \"Live system (amd64)\" --hotkey=l {\\n linux /live/vmlinuz boot=live components quiet splash findiso=${iso_path}\\n initrd /live/initrd.img\\n}\\n' > i/boot/grub/grub.cfg
         echo 'set theme=/boot/grub/live-theme/theme.txt' > i/boot/grub/config.cfg; echo 'source /boot/grub/grub.cfg' > i/boot/grub/loopback.cfg
         printf 'include menu.cfg\\ndefault vesamenu.c32\\nprompt 0\\n' > i/isolinux/isolinux.cfg; printf 'include live.cfg\\n' > i/isolinux/menu.cfg
         printf 'label live-amd64\\n menu label ^Live\\n menu default\\n linux /live/vmlinuz\\n initrd /live/initrd.img\\n append boot=live components quiet splash\\n' > i/isolinux/live.cfg
         publish K:vmlinuz O:initrd.img S:filesystem.squashfs; mkdir s/pxelinux.cfg; printf 'DEFAULT live\\nLABEL live\\nKERNEL vmlinuz\\nAPPEND initrd=initrd.img boot=live components quiet splash fetch=http://192.0.2.1/filesystem.squashfs\\n' > s/pxelinux.cfg/default",
    ),
    layout(
        "Kali: a live system and an installer",
        "mkdir -p i/live i/install/gtk i/boot/grub; cp K i/live/vmlinuz-6.1.0-test; cp O i/live/initrd.img-6.1.0-test; cp S i/live/filesystem.squashfs; cp K2 i/install/vmlinuz; cp O2 i/install/initrd.gz
         (entry 'Live' '/live/vmlinuz-6.1.0-test boot=live components quiet' /live/initrd.img-6.1.0-test; entry 'Install' '/install/vmlinuz vga=788 --- quiet' /install/initrd.gz) > i/boot/grub/grub.cfg
         publish K:vmlinuz O:initrd.img S:filesystem.squashfs; ipxe vmlinuz initrd.img 'boot=live components quiet fetch=http://192.0.2.1/filesystem.squashfs' ''",
    ),
    layout(
        "Ubuntu's casper: a compressed archive behind microcode",
        "mkdir -p i/casper i/boot/grub; cp K i/casper/vmlinuz; cat U > i/casper/initrd; truncate -s %512 i/casper/initrd; cat O >> i/casper/initrd; cp S i/casper/filesystem.squashfs
         printf 'set timeout=30\\nloadfont unicode\\nset menu_color_normal=white/black\\nmenuentry \"Try\" {\\n\\tset gfxpayload=keep\\n\\tlinux\\t/casper/vmlinuz  --- quiet splash\\n\\tinitrd\\t/casper/initrd\\n}\\ngrub_platform\\nif [ \"$grub_platform\" = \"efi\" ]; then\\nmenuentry \"UEFI Firmware Settings\" {\\n\\tfwsetup\\n}\\nfi\\n' > i/boot/grub/grub.cfg
         publish K:vmlinuz i/casper/initrd:initrd S:filesystem.squashfs; ipxe vmlinuz initrd '--- quiet splash' ''",
    ),
    layout(
        "Arch's archiso: entries for systemd-boot, syslinux in many files, microcode as files of their own",
        "mkdir -p i/arch/boot/x86_64 i/arch/x86_64 i/loader/entries i/boot/syslinux i/EFI/BOOT; cp K i/arch/boot/x86_64/vmlinuz-linux; cp O i/arch/boot/x86_64/initramfs-linux.img; cp U i/arch/boot/amd-ucode.img; cp S i/arch/x86_64/airootfs.sfs
         printf 'title Arch Linux install medium\\nsort-key 01\\nlinux /arch/boot/x86_64/vmlinuz-linux\\ninitrd /arch/boot/amd-ucode.img\\ninitrd /arch/boot/x86_64/initramfs-linux.img\\noptions archisobasedir=arch archisosearchuuid=2026-11-25\\n' > i/loader/entries/01-archiso.conf
         printf 'DEFAULT select\\nLABEL select\\nCOM32 whichsys.c32\\nAPPEND -pxe- pxe -sys- sys -iso- sys\\nINCLUDE archiso_sys.cfg\\n' > i/boot/syslinux/syslinux.cfg
         printf 'LABEL arch\\nLINUX /arch/boot/x86_64/vmlinuz-linux\\nINITRD /arch/boot/amd-ucode.img,/arch/boot/x86_64/initramfs-linux.img\\nAPPEND archisobasedir=arch archisosearchuuid=2026-11-25\\n' > i/boot/syslinux/archiso_sys.cfg; cp B i/boot/syslinux/whichsys.c32; cp X64 i/EFI/BOOT/BOOTX64.EFI
         publish K:vmlinuz-linux O:initramfs-linux.img U:amd-ucode.img S:airootfs.sfs
         printf '#!ipxe\\nkernel vmlinuz-linux initrd=amd-ucode.img initrd=initramfs-linux.img archisobasedir=arch archiso_http_srv=http://192.0.2.1/ ip=dhcp\\ninitrd amd-ucode.img\\ninitrd initramfs-linux.img\\nboot\\n' > s/boot.ipxe",
    ),
    layout(
        "openSUSE's kiwi: GRUB with the loader's commands in variables",
        "mkdir -p i/boot/x86_64/loader i/boot/grub2 i/LiveOS; cp K i/boot/x86_64/loader/linux; cp D i/boot/x86_64/loader/initrd; cp S i/LiveOS/squashfs.img
         printf 'set btrfs_relative_path=\"y\"\\nexport btrfs_relative_path\\nsearch  --file --set=root /boot/mbrid\\nset default=\"Live\"\\nmenuentry \"Live\" --class os --unrestricted {\\n set gfxpayload=keep\\n echo Loading kernel...\\n $linux ($root)/boot/x86_64/loader/linux ${extra_cmdline} ${isoboot} splash root=live:CDLABEL=MyLive rd.live.image rd.live.overlay.persistent\\n echo Loading initrd...\\n $initrd ($root)/boot/x86_64/loader/initrd\\n}\\nmenuentry \"Failsafe\" {\\n linux ($root)/boot/x86_64/loader/linux ide=nodma root=live:CDLABEL=MyLive rd.live.image\\n initrd ($root)/boot/x86_64/loader/initrd\\n}\\n' > i/boot/grub2/grub.cfg
         publish K:linux D:initrd S:squashfs.img; ipxe linux initrd 'ide=nodma root=live:/image.squashfs.img' \"$(squash squashfs.img)\n\"",
    ),
    layout(
        "Void's mklive: GRUB goes on to a file of another name",
        "mkdir -p i/boot/grub i/boot/isolinux i/LiveOS; cp K i/boot/vmlinuz; cp D i/boot/initrd; cp S i/LiveOS/squashfs.img
         printf 'if [ cpuid -l ]; then\\n set x=1\\nfi\\nconfigfile \"(${voidlive})/boot/grub/grub_void.cfg\"\\n' > i/boot/grub/grub.cfg
         printf 'set default=\"linux\"\\nmenuentry \"Void\" --id \"linux\" {\\n linux (${voidlive})/boot/vmlinuz root=live:CDLABEL=MyLive ro init=/sbin/init rd.luks=0 rd.md=0 loglevel=4\\n initrd (${voidlive})/boot/initrd\\n}\\n' > i/boot/grub/grub_void.cfg
         publish K:vmlinuz D:initrd S:squashfs.img; ipxe vmlinuz initrd 'ro init=/sbin/init rd.luks=0 rd.md=0 loglevel=4 root=live:/image.squashfs.img' \"$(squash squashfs.img)\n\"",
    ),
    layout(
        "Alpine: the squashfs has the modules, the initrd is its own",
        "mkdir -p i/boot/grub i/boot/syslinux; cp K i/boot/vmlinuz-lts; cp O i/boot/initramfs-lts; cp S i/boot/modloop-lts
         entry 'Linux lts' '/boot/vmlinuz-lts modules=loop,squashfs,sd-mod,usb-storage quiet' /boot/initramfs-lts > i/boot/grub/grub.cfg
         printf 'TIMEOUT 10\\nPROMPT 1\\nDEFAULT lts\\nLABEL lts\\nMENU LABEL Linux lts\\nKERNEL /boot/vmlinuz-lts\\nINITRD /boot/initramfs-lts\\nFDTDIR /boot/dtbs-lts\\nAPPEND modules=loop,squashfs,sd-mod,usb-storage quiet\\n' > i/boot/syslinux/syslinux.cfg
         publish K:vmlinuz-lts O:initramfs-lts S:modloop-lts; ipxe vmlinuz-lts initramfs-lts 'modules=loop,squashfs,sd-mod,usb-storage quiet modloop=http://192.0.2.1/modloop-lts' ''",
    ),
    layout(
        "NixOS: a store as squashfs",
        "mkdir -p i/boot/grub i/EFI/BOOT; cp K i/boot/bzImage; cp O i/boot/initrd; cp S i/nix-store.squashfs; cp X64 i/EFI/BOOT/BOOTX64.EFI
         entry 'NixOS' '/boot/bzImage ${isoboot} init=/nix/store/x/init root=LABEL=MyLive loglevel=4' /boot/initrd > i/EFI/BOOT/grub.cfg
         publish K:bzImage O:initrd S:nix-store.squashfs; ipxe bzImage initrd 'init=/nix/store/x/init loglevel=4' ''",
    ),
    layout(
        "Slax and Porteus: modules that are squashfs images",
        "mkdir -p i/slax/boot; cp K i/slax/boot/vmlinuz; cp O i/slax/boot/initrfs.img; cp S i/slax/01-core.sb
         printf 'DEFAULT default\\nLABEL default\\nKERNEL /slax/boot/vmlinuz\\nAPPEND initrd=/slax/boot/initrfs.img load_ramdisk=1 slax.flags=perch\\n' > i/slax/boot/syslinux.cfg
         publish K:vmlinuz O:initrfs.img S:01-core.sb; ipxe vmlinuz initrfs.img 'load_ramdisk=1 slax.flags=perch' ''",
    ),
    layout(
        "kernel-install's layout on a medium: one folder for each version",
        "mkdir -p i/0123/6.1.0-test i/0123/6.6.0-two i/loader/entries i/LiveOS; cp K i/0123/6.1.0-test/linux; cp D i/0123/6.1.0-test/initrd; cp K2 i/0123/6.6.0-two/linux; cp D2 i/0123/6.6.0-two/initrd; cp S i/LiveOS/squashfs.img
         for v in 6.1.0-test 6.6.0-two; do printf \"title Live $v\\nversion $v\\nlinux /0123/$v/linux\\ninitrd /0123/$v/initrd\\noptions quiet root=live:CDLABEL=MyLive rd.live.image\\n\" > i/loader/entries/$v.conf; done
         publish K:one.vmlinuz D:one.initrd K2:two.vmlinuz D2:two.initrd S:image.squashfs; mkdir -p s/loader/entries
         for n in one two; do printf \"title $n\\nlinux /$n.vmlinuz\\ninitrd /$n.initrd\\noptions quiet ip=dhcp root=live:http://192.0.2.1/image.squashfs\\n\" > s/loader/entries/$n.conf; done",
    ),
    layout(
        "mkosi and others: kernel and initrd are links",
        "mkdir -p i/boot/grub i/usr/lib/modules/6.1.0-test i/LiveOS; cp K i/usr/lib/modules/6.1.0-test/vmlinuz; cp D i/boot/initrd-6.1.0-test; cp S i/LiveOS/squashfs.img; ln -s ../usr/lib/modules/6.1.0-test/vmlinuz i/boot/vmlinuz; ln -s /boot/initrd-6.1.0-test i/boot/initrd
         entry 'Live' '/boot/vmlinuz quiet root=live:CDLABEL=MyLive rd.live.image' /boot/initrd > i/boot/grub/grub.cfg
         publish K:vmlinuz D:initrd S:image.squashfs; ipxe vmlinuz initrd 'quiet root=live:/image.squashfs.img' \"$(squash image.squashfs)\n\"",
    ),
    booted(
        "arm64: a kernel packed by gzip, UEFI alone",
        "mkdir -p i/boot/grub i/EFI/BOOT i/LiveOS; cp A i/boot/Image.gz; cp DA i/boot/initrd; cp S i/LiveOS/squashfs.img; cp AA64 i/EFI/BOOT/BOOTAA64.EFI; esp i/boot/efi.img AA64 BOOTAA64.EFI
         entry 'Live' '/boot/Image.gz quiet root=live:CDLABEL=MyLive rd.live.image' /boot/initrd > i/boot/grub/grub.cfg
         publish A:vmlinuz DA:initrd S:image.squashfs AA64:ipxe-arm64.efi; ipxe vmlinuz initrd 'quiet root=live:/image.squashfs.img' \"$(squash image.squashfs)\n\"",
        "-e boot/efi.img -no-emul-boot",
    ),
    layout(
        "ppc64le: CHRP, no El Torito at all",
        "mkdir -p i/boot/grub i/ppc i/LiveOS; cp P i/boot/vmlinux; cp DP i/boot/initrd; cp S i/LiveOS/squashfs.img; cp PELF i/boot/grub/powerpc.elf
         printf '<chrp-boot>\\n<description>grub</description>\\n<os-name>grub</os-name>\\n<boot-script>boot &device;:\\\\boot\\\\grub\\\\powerpc.elf</boot-script>\\n</chrp-boot>\\n' > i/ppc/bootinfo.txt
         entry 'Live' '/boot/vmlinux quiet root=live:CDLABEL=MyLive rd.live.image' /boot/initrd > i/boot/grub/grub.cfg
         publish P:vmlinux DP:initrd S:image.squashfs; mkdir s/grub; entry 'Live' '/vmlinux quiet ip=dhcp root=live:http://192.0.2.1/image.squashfs' /initrd > s/grub/grub.cfg",
    ),
    booted(
        "x86 for 32 and 64 bits of UEFI",
        "mkdir -p i/boot/grub i/EFI/BOOT i/LiveOS; cp K i/boot/vmlinuz; cp D i/boot/initrd; cp S i/LiveOS/squashfs.img; cp X64 i/EFI/BOOT/BOOTX64.EFI; cp IA32 i/EFI/BOOT/BOOTIA32.EFI; cp B i/boot/grub/eltorito.img; esp i/boot/efi.img X64 BOOTX64.EFI IA32 BOOTIA32.EFI
         entry 'Live' '/boot/vmlinuz quiet root=live:CDLABEL=MyLive rd.live.image' /boot/initrd > i/boot/grub/grub.cfg
         publish K:vmlinuz D:initrd S:image.squashfs X64:ipxe.efi IA32:ipxe-i386.efi B:undionly.kpxe; ipxe vmlinuz initrd 'quiet root=live:/image.squashfs.img' \"$(squash image.squashfs)\n\"",
        "-b boot/grub/eltorito.img -no-emul-boot -boot-load-size 4 -eltorito-alt-boot -e boot/efi.img -no-emul-boot",
    ),
    layout(
        "Ubuntu's netboot: casper fetches the whole ISO, which lies in the set under a name of its own",
        "mkdir -p i/casper i/boot/grub; cp K i/casper/vmlinuz; cp O i/casper/initrd; cp S i/casper/filesystem.squashfs
         entry 'Install' '/casper/vmlinuz ---' /casper/initrd > i/boot/grub/grub.cfg; echo 'cp x.iso s/ubuntu-24.04-live-server-amd64.iso' > after
         publish K:vmlinuz O:initrd; ipxe vmlinuz initrd 'root=/dev/ram0 ramdisk_size=1500000 ip=dhcp url=http://192.0.2.1/ubuntu-24.04-live-server-amd64.iso ---' ''",
    ),
    layout(
        "Ubuntu's netboot, with the ISO on the mirror",
        "mkdir -p i/casper i/boot/grub; cp K i/casper/vmlinuz; cp O i/casper/initrd; cp S i/casper/filesystem.squashfs
         entry 'Install' '/casper/vmlinuz ---' /casper/initrd > i/boot/grub/grub.cfg
         publish K:linux O:initrd; mkdir s/pxelinux.cfg; printf 'DEFAULT install\\nLABEL install\\nKERNEL linux\\nINITRD initrd\\nAPPEND root=/dev/ram0 ramdisk_size=1500000 ip=dhcp iso-url=https://releases.example/24.04/x.iso ---\\n' > s/pxelinux.cfg/default",
    ),
    layout(
        "Fedora's live ISO, fetched whole by dracut",
        "mkdir -p i/boot/grub i/LiveOS; cp K i/boot/vmlinuz; cp D i/boot/initrd; cp S i/LiveOS/squashfs.img
         entry 'Live' '/boot/vmlinuz quiet rd.live.image root=CDLABEL=MyLive' /boot/initrd > i/boot/grub/grub.cfg; echo 'cp x.iso s/live.iso' > after
         publish K:vmlinuz D:initrd; ipxe vmlinuz initrd 'quiet rd.live.image root=live:http://192.0.2.1/live.iso' ''",
    ),
    layout(
        "the whole ISO, put into the initrd by iPXE",
        "mkdir -p i/boot/grub i/LiveOS; cp K i/boot/vmlinuz; cp D i/boot/initrd; cp S i/LiveOS/squashfs.img
         entry 'Live' '/boot/vmlinuz quiet root=live:CDLABEL=MyLive' /boot/initrd > i/boot/grub/grub.cfg; echo 'cp x.iso s/live.iso' > after
         publish K:vmlinuz D:initrd; ipxe vmlinuz initrd 'quiet root=live:/live.iso' \"$(printf 'initrd live.iso /live.iso\\n')\n\"",
    ),
    layout(
        "livecd-iso-to-pxeboot: the whole ISO in an archive behind the initrd",
        "mkdir -p i/boot/grub i/LiveOS; cp K i/boot/vmlinuz; cp D i/boot/initrd; cp S i/LiveOS/squashfs.img
         entry 'Live' '/boot/vmlinuz quiet root=live:CDLABEL=MyLive' /boot/initrd > i/boot/grub/grub.cfg
         echo 'cp x.iso live.iso; (cat D; head -c $(( (4 - $(stat -c %s D) % 4) % 4 )) /dev/zero; echo live.iso | cpio -o -H newc --quiet) > s/initrd0.img' > after
         publish K:vmlinuz0; mkdir s/pxelinux.cfg; printf 'DEFAULT pxeboot\\nLABEL pxeboot\\nKERNEL vmlinuz0\\nAPPEND initrd=initrd0.img quiet root=live:/live.iso rd.live.image\\n' > s/pxelinux.cfg/default",
    ),
    layout(
        "dracut with its root on a server's block device",
        "mkdir -p i/boot/grub i/LiveOS; cp K i/boot/vmlinuz; cp DN i/boot/initrd; cp S i/LiveOS/squashfs.img
         entry 'Live' '/boot/vmlinuz quiet root=live:CDLABEL=MyLive' /boot/initrd > i/boot/grub/grub.cfg
         publish K:vmlinuz DN:initrd; ipxe vmlinuz initrd 'quiet ip=dhcp root=nbd:192.0.2.1:live:squashfs:ro' ''",
    ),
    layout(
        "Fedora's installer: anaconda finds its image itself",
        "mkdir -p i/images/pxeboot i/EFI/BOOT; cp K i/images/pxeboot/vmlinuz; cp D i/images/pxeboot/initrd.img; cp S i/images/install.img; cp X64 i/EFI/BOOT/BOOTX64.EFI
         entry 'Install' '/images/pxeboot/vmlinuz inst.stage2=hd:LABEL=MyLive quiet' /images/pxeboot/initrd.img > i/EFI/BOOT/grub.cfg
         mkdir -p s/os/images/pxeboot; cp i/images/install.img s/os/images; cp i/images/pxeboot/* s/os/images/pxeboot
         printf '#!ipxe\\nset base http://192.0.2.1/os\\nkernel ${base}/images/pxeboot/vmlinuz initrd=initrd.img inst.stage2=${base} quiet ip=dhcp\\ninitrd ${base}/images/pxeboot/initrd.img\\nboot\\n' > s/boot.ipxe",
    ),
    layout(
        "names that are no UTF-8 in an initrd, and entries for other machines",
        "mkdir -p i/boot/grub i/LiveOS tree; cp K i/boot/vmlinuz; (cd D.tree; find . | cpio -o -H newc --quiet) > i/boot/initrd; (cd tree; : > \"$(printf 'caf\\351')\"; find . -type f | cpio -o -H newc --quiet) >> i/boot/initrd; cp S i/LiveOS/squashfs.img
         entry 'Live' '/boot/vmlinuz quiet root=live:CDLABEL=MyLive' /boot/initrd > i/boot/grub/grub.cfg
         publish K:vmlinuz i/boot/initrd:initrd S:image.squashfs; mkdir -p s/loader/entries
         printf 'architecture x64\\nlinux /vmlinuz\\ninitrd /initrd\\noptions quiet root=live:http://192.0.2.1/image.squashfs\\n' > s/loader/entries/a.conf",
    ),
    layout(
        "Debian's live-boot with its root on an NFS server",
        "mkdir -p i/live i/boot/grub; cp K i/live/vmlinuz; cp O i/live/initrd.img; cp S i/live/filesystem.squashfs
         entry 'Live' '/live/vmlinuz boot=live components' /live/initrd.img > i/boot/grub/grub.cfg
         publish K:vmlinuz O:initrd.img; ipxe vmlinuz initrd.img 'boot=live components netboot=nfs nfsroot=192.0.2.1:/srv/live' ''",
    ),
];

/// Writes the files that layouts are made of.
fn write_parts(live: &Live) {
    let dir = live.world.dir.path();
    let at = |name: &str| dir.join(name);
    write_kernel(&at("K"), RELEASE);
    write_kernel(&at("K2"), "6.6.0-two");
    for (name, release, machine) in [
        ("D", RELEASE, Some(62)),
        ("D2", "6.6.0-two", None),
        ("DA", RELEASE, Some(183)),
        ("DP", RELEASE, Some(21)),
    ] {
        let tree = at(&format!("{name}.tree"));
        for (path, content) in dracut(release) {
            fs::create_dir_all(tree.join(&path).parent().unwrap()).unwrap();
            fs::write(tree.join(path), content).unwrap();
        }
        if let Some(machine) = machine {
            fs::write(tree.join("init"), elf(machine, "")).unwrap();
        }
        run("chmod", &["755", tree.join("init").to_str().unwrap()]);
        let pack =
            format!("find . | LC_ALL=C sort | cpio -o -H newc --quiet | gzip -n > '{}'", at(name).display());
        run_in(&tree, "sh", &["-ec", &pack]);
    }
    let genkernel =
        [("etc/initrd.scripts", "x"), ("init", "#!/bin/sh\n"), ("lib/modules/6.1.0-test/x.ko", "")];
    write_initrd(&at("G"), &genkernel, "xz --check=crc32");
    let with_nbd = [
        ("init", "#!/bin/sh\n"),
        ("usr/lib/dracut/modules.txt", "base\ndmsquash-live\nnbd\n"),
        ("usr/lib/modules/6.1.0-test/modules.dep", ""),
    ];
    write_initrd(&at("DN"), &with_nbd, "gzip -n");
    write_initrd(&at("O"), &[("init", "#!/bin/sh\n"), ("scripts/live", "x")], "zstd -q");
    write_initrd(&at("O2"), &[("init", "#!/bin/busybox sh\n")], "gzip -n");
    write_initrd(&at("U"), &[("kernel/x86/microcode/AuthenticAMD.bin", "code")], "cat");
    // A boot sector: neither text nor zeros.
    fs::write(at("B"), [&[0xeb, 0x3c, 0x90, 0x80][..], &[0; 2044]].concat()).unwrap();
    for (name, machine) in [("X64", 0x8664u16), ("IA32", 0x14c), ("AA64", 0xaa64)] {
        let mut program = vec![0; 1024];
        program[..2].copy_from_slice(b"MZ");
        program[0x3c] = 0x80;
        program[0x80..0x84].copy_from_slice(b"PE\0\0");
        program[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
        fs::write(at(name), program).unwrap();
    }
    let mut image = vec![0; 70_000];
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image.extend_from_slice(format!("Linux version {RELEASE} (x@y)\0").as_bytes());
    fs::write(at("image"), &image).unwrap();
    let kernel = elf(21, &format!("Linux version {RELEASE} (x@y)"));
    fs::write(at("P"), kernel).unwrap();
    fs::write(at("PELF"), b"\x7fELF\x01\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x14").unwrap();
    run_in(dir, "sh", &["-ec", "gzip -n < image > A; mksquashfs root S -quiet -no-progress >/dev/null"]);
}

/// Returns a program of 64 bits for a machine, with a text behind its header.
fn elf(machine: u8, text: &str) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    bytes.extend_from_slice(&[machine, 0]);
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&[0; 64]);
    bytes
}

fn different(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let findings = checks.flat_map(|check| {
        let findings = check["findings"].as_array().unwrap().iter();
        findings
            .filter(|finding| finding["verdict"] != "warning")
            .map(move |finding| format!("{}: {finding}", check["check"]))
    });
    findings.collect()
}

#[test]
fn sound_sets_of_many_builders_match() {
    let live = Live::new();
    write_parts(&live);
    let dir = live.world.dir.path();
    for Layout { builder, script, options } in LAYOUTS {
        run_in(dir, "sh", &["-ec", &format!("rm -rf i s x.iso c tail after; {FUNCTIONS}{script}")]);
        let make = format!(
            "xorriso -as mkisofs -quiet -r -J -joliet-long -V MyLive {options} -o x.iso i 2>/dev/null"
        );
        run_in(dir, "sh", &["-ec", &make]);
        // What has the ISO in it.
        run_in(dir, "sh", &["-ec", "if [ -e after ]; then . ./after; fi"]);
        let mut args = vec!["audit", "--json", "x.iso", "s"];
        if options.is_empty() && !Path::new(&dir.join("i/ppc")).exists() {
            // It is a tree of a medium, and nothing that starts it was put there.
            args.extend(["--allow", "iso-boot"]);
        }
        let output = live.stagegraph(&args);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{builder}: {error}: {}", String::from_utf8_lossy(&output.stderr))
        });
        assert_eq!(different(&report), Vec::<String>::new(), "{builder}");
        assert_eq!(output.status.code(), Some(0), "{builder}");
    }
    assert!(LAYOUTS.len() + 14 >= 35, "fewer layouts than are promised");
}
