//! The steps: one file for each kind of node.
//!
//! A kind has a name, the inputs it takes, and a function that reads its settings from a spec. A new kind
//! is one file here, one row of the table below and a few lines of `specs/livecd.toml`.

mod audit;
mod boot;
mod catalyst;
mod debian;
mod digests;
mod emulation;
mod exclude;
mod grub;
mod import;
mod initrd;
mod ipxe;
mod iso;
mod kernel;
mod kind;
mod lean;
mod loaders;
mod manifest;
mod medium;
mod menu;
mod netboot;
mod packages;
#[cfg(test)]
mod pins;
mod run;
mod sbom;
mod sets;
mod squashfs;
mod toolbox;
mod verity;
mod watched;

pub use self::audit::NAME as AUDIT;
pub use self::kind::{Inputs, Kind, Made};
pub use self::packages::{Found, date_of_lists, found};
use crate::config::Fields;
use crate::image::Image;

/// All kinds.
const KINDS: [&Kind; 20] = [
    &audit::KIND,
    &catalyst::KIND,
    &debian::KIND,
    &digests::KIND,
    &grub::KIND,
    &import::KIND,
    &initrd::KIND,
    &ipxe::KIND,
    &iso::KIND,
    &kernel::KIND,
    &lean::KIND,
    &manifest::KIND,
    &medium::KIND,
    &netboot::KIND,
    &run::KIND,
    &sbom::KIND,
    &sets::KIND,
    &squashfs::KIND,
    &toolbox::KIND,
    &verity::KIND,
];

/// The kinds that make an ISO.
pub const ISOS: [&str; 2] = [iso::KIND.name, medium::KIND.name];

/// Returns the kind of that name.
pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.into_iter().find(|kind| kind.name == name)
}

/// Returns the names of all kinds.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().map(|kind| kind.name)
}

/// The output of steps that make a root, and the kind that packs it.
pub const ROOT: &str = "root";
/// See [`ROOT`].
pub const SQUASHFS: &str = squashfs::KIND.name;
/// The kind that lists the software of one.
pub const SBOM: &str = sbom::KIND.name;

/// Stands for the step that this machine can do: one that makes a root, or one that gives tools.
pub const AUTO: &str = "auto";

/// Stands for no step at all: the nodes that would take their tools from here use this machine's own programs.
pub const HOST: &str = "host";

/// The kind that gives tools, and the input that takes them.
pub const TOOLBOX: &str = toolbox::KIND.name;
/// See [`TOOLBOX`].
pub const TOOLS: &str = graph::toolbox::INPUT;
/// The input that takes boot loaders from there.
pub const LOADERS: &str = loaders::INPUT;

/// Tells whether a kind takes something from outside the graph, which a lock pins.
pub fn is_source(kind: &str) -> bool {
    [catalyst::KIND.name, debian::KIND.name, import::KIND.name, TOOLBOX].contains(&kind)
}

/// Tells whether a kind takes what lies at a place that its settings name.
pub fn is_place(kind: &str) -> bool {
    [catalyst::KIND.name, import::KIND.name].contains(&kind)
}

/// Tells whether a kind is made of packages.
pub fn has_packages(kind: &str) -> bool {
    kind == debian::KIND.name || kind == TOOLBOX
}

/// Tells whether a kind runs programs, this machine's or those of its input `tools`.
pub fn runs_tools(name: &str) -> bool {
    match kind(name).map(|kind| kind.inputs) {
        Some(Inputs::Named { optional, .. }) => optional.contains(&TOOLS),
        _ => name == run::KIND.name,
    }
}

/// Returns what the settings of a node of a kind ask apt for; nothing for kinds that ask it for nothing.
pub fn asked(kind: &str, fields: &Fields<'_>, image: &Image) -> Option<Vec<String>> {
    match kind {
        name if name == debian::KIND.name => Some(debian::wanted(fields, image).asked()),
        TOOLBOX => Some(toolbox::wanted(fields, image).asked()),
        _ => None,
    }
}

/// Tells whether a node that says `step` may run the step of that name.
pub fn can_run(step: &str, name: &str) -> bool {
    step == name || step == AUTO && ["catalyst", "debian", TOOLBOX].contains(&name)
}
