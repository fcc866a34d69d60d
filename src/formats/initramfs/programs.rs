//! The programs of an initramfs: which one the kernel starts, and whose it is.

use std::collections::BTreeMap;

use cache::name::RelPath;
use serde::{Deserialize, Serialize};

use super::files::Files;
use crate::arch::Arch;
use crate::formats::program;

/// A program in an initramfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its path.
    pub name: String,
    /// Whose it is.
    pub arch: Arch,
}

/// What is known of a file by its first bytes.
#[derive(Debug, Clone)]
enum Start {
    /// A program for this architecture.
    Elf(Arch),
    /// A script for the program at this path.
    Script(String),
}

/// A file that may have several names (`maybe_link` of `init/initramfs.c`): its device, in two numbers, and its number there.
type Inode = (u32, u32, u32);

/// The names of one file that are remembered.
const MAX_NAMES: usize = 1000;

/// Scripts that start scripts.
const MAX_SCRIPTS: usize = 4;

/// All programs and scripts.
#[derive(Debug, Default)]
pub(super) struct Programs {
    starts: BTreeMap<RelPath, Start>,
    /// The first program that was made.
    first: Option<(RelPath, Arch)>,
    links: BTreeMap<Inode, Vec<RelPath>>,
}

impl Programs {
    /// Takes in that something was made at a path, which begins with `head`; of a file with several names, any of them may have
    /// the content.
    pub(super) fn made(&mut self, path: &RelPath, head: &[u8], inode: Option<Inode>) {
        let start = start(head);
        self.starts.remove(path);
        let mut names = vec![path.clone()];
        if let Some(inode) = inode {
            let known = self.links.entry(inode).or_default();
            if known.len() < MAX_NAMES {
                known.push(path.clone());
            }
            if head.is_empty() {
                // The content may have come with another name.
                let other = known.iter().find_map(|name| self.starts.get(name)).cloned();
                self.starts.extend(other.map(|start| (path.clone(), start)));
                return;
            }
            names.clone_from(known);
        }
        let Some(start) = start else { return };
        // Firmware is for other processors than the one that boots.
        let is_ours = !String::from_utf8_lossy(path.as_bytes()).contains("lib/firmware/");
        if let Start::Elf(arch) = start
            && self.first.is_none()
            && is_ours
        {
            self.first = Some((path.clone(), arch));
        }
        for name in names {
            self.starts.insert(name, start.clone());
        }
    }

    /// Returns what the kernel starts: `init`, through links, or what a script there is for; else the first program.
    pub(super) fn first(self, files: &Files) -> Option<Program> {
        let mut path = files.resolve("init");
        for _ in 0..MAX_SCRIPTS {
            let Some(at) = path else { break };
            match self.starts.get(&at) {
                Some(Start::Elf(arch)) => return Some(Program { name: at.to_string(), arch: *arch }),
                Some(Start::Script(interpreter)) => path = files.resolve(interpreter),
                None => break,
            }
        }
        let (path, arch) = self.first?;
        Some(Program { name: path.to_string(), arch })
    }
}

fn start(head: &[u8]) -> Option<Start> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        return Some(Start::Script(line.split_ascii_whitespace().next()?.to_owned()));
    }
    let elf = program::elf(head).filter(|elf| elf.is_program)?;
    Some(Start::Elf(elf.arch?))
}

#[cfg(test)]
mod tests {
    use super::super::files::Node;
    use super::*;

    fn elf(machine: u8) -> Vec<u8> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(16, 0);
        head.extend([2, 0, machine, 0]);
        head
    }

    #[test]
    fn what_the_kernel_starts_is_found_through_links_scripts_and_names_of_one_file() {
        let (amd64, arm64) = (elf(62), elf(183));
        let link = |to: &str| (Node::Link(to.as_bytes().to_vec()), Vec::new(), None);
        let file = |head: &[u8]| (Node::File, head.to_vec(), None);
        let linked = |head: &[u8]| (Node::File, head.to_vec(), Some((0, 8, 7)));
        for (init, more) in [
            (link("bin/sh"), file(&arm64)),
            (link("/bin/sh"), file(&arm64)),
            (file(b"#! /bin/sh -e\necho\n"), file(&arm64)),
            // The content comes with the last name, or with the first.
            (linked(b""), linked(&arm64)),
            (linked(&arm64), linked(b"")),
        ] {
            let (mut files, mut programs) = (Files::default(), Programs::default());
            for (name, (node, head, inode)) in [
                ("bin", (Node::Folder, Vec::new(), None)),
                ("bin/other", file(&amd64)),
                ("init", init.clone()),
                ("bin/sh", more),
            ] {
                let path = files.add(name, node, true, 0).unwrap();
                programs.made(&path, &head, inode);
            }
            let found = programs.first(&files).unwrap();
            assert_eq!(found.arch, Arch::Arm64, "{init:?}: {found:?}");
        }
    }

    #[test]
    fn without_a_program_for_init_the_first_one_counts() {
        let (mut files, mut programs) = (Files::default(), Programs::default());
        for (name, head) in [("init", b"#!/bin/gone".to_vec()), ("a", elf(62)), ("b", elf(183))] {
            let path = files.add(name, Node::File, true, 0).unwrap();
            programs.made(&path, &head, None);
        }
        assert_eq!(programs.first(&files).unwrap().arch, Arch::Amd64);
    }
}
