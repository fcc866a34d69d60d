//! The ways an image boots: which there are, their command lines, the memory they need.
//!
//! The ISO's grub.cfg, the iPXE scripts, PXELINUX's and GRUB's network menus and the manifest all take
//! their entries from here.

use graph::StepError;
use serde::Serialize;

use crate::arch::Arch;
use crate::boot::{BootEntry, Kernels};
use crate::cmdline::{Choice, CommandLine, Medium, Token, Wanted};
use crate::config::Fields;
use crate::image::Image;
use crate::memory::{self, Load, Sizes};

/// What menus need to know of the image.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Menu {
    title: String,
    bootargs: Vec<Token>,
    consoles: Vec<Token>,
}

/// Tells, by a kernel's label, the paths of kernel and initrd that GRUB opens.
pub(super) type Paths<'a> = &'a dyn Fn(&str) -> (String, String);

/// One entry of a menu.
#[derive(Debug, Clone)]
pub(super) struct MenuEntry<'a> {
    pub(super) kernel: &'a BootEntry,
    pub(super) choice: Choice,
    pub(super) console: Option<&'a Token>,
    pub(super) line: CommandLine,
}

impl Menu {
    pub(super) fn of(fields: &Fields<'_>, image: &Image) -> Self {
        Self {
            title: image.title(fields),
            bootargs: image.bootargs.clone(),
            consoles: image.consoles.clone(),
        }
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// Returns the command line of one entry.
    pub(super) fn line(
        &self,
        kernel: &BootEntry,
        medium: &Medium,
        choice: Choice,
        console: Option<&Token>,
    ) -> Result<CommandLine, StepError> {
        let wanted = Wanted { family: kernel.family, medium, bootargs: &self.bootargs, choice, console };
        CommandLine::new(&wanted).map_err(StepError::action)
    }

    /// Returns every entry for a medium, kernel by kernel: the choices, then the consoles.
    pub(super) fn entries<'a>(
        &'a self,
        kernels: &'a Kernels,
        medium: &Medium,
    ) -> Result<Vec<MenuEntry<'a>>, StepError> {
        let mut entries = Vec::new();
        for kernel in &kernels.0 {
            let mut add = |choice, console| {
                let line = self.line(kernel, medium, choice, console)?;
                entries.push(MenuEntry { kernel, choice, console, line });
                Ok::<(), StepError>(())
            };
            for choice in [Choice::Default, Choice::Cached, Choice::Accessibility] {
                if choice != Choice::Cached || *medium != Medium::InInitrd {
                    add(choice, None)?;
                }
            }
            for console in &self.consoles {
                add(Choice::Default, Some(console))?;
            }
        }
        Ok(entries)
    }

    /// Renders a menu of GRUB. `search` is the volume id to look for; the paths are those GRUB opens.
    pub(super) fn grub(
        &self,
        kernels: &Kernels,
        medium: &Medium,
        search: Option<&str>,
        paths: Paths<'_>,
    ) -> Result<String, StepError> {
        let mut text = String::from(
            "set default=0\n\
             set timeout=10\n\
             set gfxpayload=keep\n\
             insmod all_video\n",
        );
        // Elsewhere there is no COM port, and GRUB says so; firmware's console is the serial line there.
        if kernels.0.iter().any(|entry| entry.may_be(Arch::is_pc)) {
            text.push_str(
                "if serial --unit=0 --speed=115200; then\n\
                 \tterminal_input --append serial\n\
                 \tterminal_output --append serial\n\
                 fi\n",
            );
        }
        let entries = self.entries(kernels, medium)?;
        for kernel in &kernels.0 {
            let own = entries.iter().filter(|entry| entry.kernel.label == kernel.label);
            let (consoles, choices): (Vec<_>, Vec<_>) = own.partition(|entry| entry.console.is_some());
            for choice in choices {
                text.push('\n');
                text.push_str(&self.grub_entry(choice, search, paths));
            }
            text.push_str(&self.grub_consoles(&kernel.label, &consoles, search, paths));
        }
        Ok(text)
    }

    fn grub_entry(&self, entry: &MenuEntry<'_>, search: Option<&str>, paths: Paths<'_>) -> String {
        let label = &entry.kernel.label;
        let (kernel, initrd) = paths(label);
        let console = entry.console.map(|console| format!(" console={console}")).unwrap_or_default();
        let search = search.map(|id| format!("\t{}", CommandLine::grub_search(id)));
        format!(
            "menuentry 'Boot {} (kernel: {label}{console}){}' --class gnu-linux --class os {{\n\
             {}\tlinux {kernel} {}\n\tinitrd {initrd}\n}}\n",
            self.title,
            entry.choice.suffix(),
            search.unwrap_or_default(),
            entry.line.grub()
        )
    }

    /// Renders the submenu with a kernel's entries for consoles; nothing where there are none.
    pub(super) fn grub_consoles(
        &self,
        label: &str,
        entries: &[&MenuEntry<'_>],
        search: Option<&str>,
        paths: Paths<'_>,
    ) -> String {
        if entries.is_empty() {
            return String::new();
        }
        let entries: String = entries.iter().map(|entry| self.grub_entry(entry, search, paths)).collect();
        format!(
            "\nsubmenu 'Special console options (kernel: {label})' --hotkey=s --class gnu-linux --class os {{\n{entries}}}\n"
        )
    }
}

/// Returns the least memory for a way to boot a kernel, in MiB.
pub(super) fn least_ram(load: Load, kernel: &BootEntry, squashfs: u64) -> u64 {
    memory::least_ram(
        load,
        Sizes {
            kernel: kernel.kernel.size,
            initrd: kernel.initrd.size,
            unpacked: kernel.initramfs.unpacked,
            squashfs,
        },
    )
}
