//! The one kernel command-line model.
//!
//! What a live system's kernel is told depends on who made its initramfs, on where the squashfs comes
//! from, and on what the user picked in a menu. It is decided here and nowhere else: grub.cfg, the iPXE
//! script, PXELINUX's and GRUB's network menus are renderings of the same lines, so that they cannot
//! drift apart. They differ in the tokens that say where the squashfs is, and in no others.
//!
//! Sources: catalyst's `targets/support/iso-bootloader-setup.sh` for the ISO's lines; `dracut.cmdline(7)` and
//! dracut's `dmsquash-live` and `livenet` modules; genkernel's `defaults/initrd.scripts`.

pub mod compare;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::formats::initramfs::Family;

/// The squashfs at the top of the ISO.
pub const SQUASHFS: &str = "image.squashfs";

/// The squashfs inside an initramfs: dracut takes a local file only if its name ends in `.img`.
pub const SQUASHFS_IN_INITRD: &str = "image.squashfs.img";

/// How a root over NFS is mounted where nobody says more: a server may be at another port than the usual ones.
pub const NFS_OPTIONS: &str = "vers=3,tcp";

/// Gentoo's token for asking which keymap to use; iPXE has a setting in its place.
pub const KEYMAP: &str = "dokeymap";

/// By this word Gentoo's live system knows that it is one, wherever it came from: without it, nobody is logged in on its consoles
/// (`fixinittab` of gentoo/livecd-tools).
const CDROOT: &str = "cdroot";

/// One word of a command line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Token(String);

/// Why a text is not one word of a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{token:?} cannot stand on a kernel command line: {why}")]
pub struct TokenError {
    token: String,
    why: &'static str,
}

impl Token {
    /// Checks a word: every renderer must be able to write it as it is.
    ///
    /// # Errors
    /// It is empty, has blanks or non-ASCII characters, or characters that a boot loader would expand.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let bad = |why| Err(TokenError { token: text.to_owned(), why });
        if text.is_empty() {
            return bad("it is empty");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return bad("it has blanks, control or non-ASCII characters");
        }
        if text.contains(['$', '\'', '"', '\\', '`']) {
            return bad("boot loaders would read $, \\, ` or a quote in it as their own");
        }
        if matches!(text, "||" | "&&" | "#") || text.starts_with('#') || text == "--" {
            return bad("boot loaders read it as their own");
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the word.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A word made here, of parts that were checked.
    fn made(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the squashfs comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    /// From the medium with this volume id.
    Iso {
        /// The volume id.
        volume_id: String,
    },
    /// It is inside the initramfs, put there by the boot loader or the combined initrd.
    InInitrd,
    /// The initramfs fetches it from this address, which may hold a boot loader's variables.
    Http {
        /// The address.
        url: String,
    },
    /// It stays on a server, and the initramfs mounts the folder that it is in.
    Nfs {
        /// How to mount it, as `mount.nfs` takes it, or a boot loader's variable.
        options: String,
        /// `HOST:/FOLDER`, which may hold a boot loader's variables.
        folder: String,
    },
}

/// What a user picks in a menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// As it is.
    Default,
    /// The squashfs is copied to memory, so that the medium can be taken out.
    Cached,
    /// With a screen reader.
    Accessibility,
}

impl Choice {
    /// Returns what menus write behind the entry's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Choice::Default => "",
            Choice::Cached => " (cached)",
            Choice::Accessibility => " (accessibility)",
        }
    }
}

/// Everything a command line depends on.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// Who made the initramfs.
    pub family: Family,
    /// Where the squashfs comes from.
    pub medium: &'a Medium,
    /// The image's own arguments, in front of all others.
    pub bootargs: &'a [Token],
    /// What was picked.
    pub choice: Choice,
    /// A serial or other console, as the kernel's `console=` takes it.
    pub console: Option<&'a Token>,
}

/// A kernel command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine(Vec<Token>);

/// Why there is no such command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// dracut looks for the medium by a word of the line.
    #[error("the volume id {0:?} has a blank in it, and dracut looks for the medium by it")]
    Blank(String),
    /// genkernel's initramfs has no HTTP client.
    #[error("a genkernel initramfs cannot fetch its squashfs over HTTP")]
    NoHttp,
    /// Whether genkernel's initramfs can is not known: nobody booted it.
    #[error("no line by which a genkernel initramfs mounts its squashfs over NFS was tried")]
    NoNfs,
    /// A squashfs inside the initramfs is in memory already.
    #[error("a squashfs inside the initramfs is in memory already; copying it there again helps nobody")]
    AlreadyInMemory,
}

impl CommandLine {
    /// Returns the command line for what is wanted.
    ///
    /// # Errors
    /// [`CommandLineError`]: no initramfs can do that.
    pub fn new(wanted: &Wanted<'_>) -> Result<Self, CommandLineError> {
        let mut tokens = wanted.bootargs.to_vec();
        let cached = wanted.choice == Choice::Cached;
        if cached && *wanted.medium == Medium::InInitrd {
            return Err(CommandLineError::AlreadyInMemory);
        }
        match (wanted.family, wanted.medium) {
            (Family::Dracut, Medium::Iso { volume_id }) if volume_id.contains(' ') => {
                return Err(CommandLineError::Blank(volume_id.clone()));
            }
            (Family::Dracut, Medium::Iso { volume_id }) => {
                tokens.push(Token::made(format!("root=live:CDLABEL={volume_id}")));
                tokens.push(Token::made("rd.live.dir=/"));
                tokens.push(Token::made(format!("rd.live.squashimg={SQUASHFS}")));
                tokens.push(Token::made(CDROOT));
            }
            (Family::Dracut, Medium::InInitrd) => {
                tokens.push(Token::made(format!("root=live:/{SQUASHFS_IN_INITRD}")));
                tokens.push(Token::made(CDROOT));
            }
            (Family::Dracut, Medium::Http { url }) => {
                tokens.push(Token::made("ip=dhcp"));
                tokens.push(Token::made("rd.neednet=1"));
                tokens.push(Token::made(format!("root=live:{url}")));
                tokens.push(Token::made(CDROOT));
            }
            // Of the forms that dracut takes (`nfs-lib.sh`), the one that passes every option on: with a port, nobody has to be asked for it.
            (Family::Dracut, Medium::Nfs { options, folder }) => {
                tokens.push(Token::made("ip=dhcp"));
                tokens.push(Token::made("rd.neednet=1"));
                tokens.push(Token::made(format!("root=live:nfs:{options}:{folder}/{SQUASHFS}")));
                tokens.push(Token::made(CDROOT));
            }
            (Family::Genkernel, Medium::Iso { .. }) => {
                tokens.push(Token::made("looptype=squashfs"));
                tokens.push(Token::made(format!("loop=/{SQUASHFS}")));
                tokens.push(Token::made(CDROOT));
            }
            (Family::Genkernel, Medium::InInitrd) => {
                tokens.push(Token::made("looptype=squashfs"));
                tokens.push(Token::made(format!("loop=/{SQUASHFS_IN_INITRD}")));
                tokens.push(Token::made(CDROOT));
            }
            (Family::Genkernel, Medium::Http { .. }) => return Err(CommandLineError::NoHttp),
            (Family::Genkernel, Medium::Nfs { .. }) => return Err(CommandLineError::NoNfs),
        }
        match (wanted.choice, wanted.family) {
            (Choice::Default, _) => {}
            (Choice::Cached, Family::Dracut) => tokens.push(Token::made("rd.live.ram=1")),
            (Choice::Cached, Family::Genkernel) => tokens.push(Token::made("docache")),
            (Choice::Accessibility, _) => tokens.push(Token::made("dospeakup")),
        }
        if let Some(console) = wanted.console {
            tokens.push(Token::made(format!("console={console}")));
        }
        Ok(Self(tokens))
    }

    /// Renders the line for GRUB's `linux` command: words that GRUB's shell would read are quoted.
    pub fn grub(&self) -> String {
        let quoted = self.0.iter().map(|token| {
            let special = token.0.contains(['{', '}', '|', '&', ';', '<', '>']);
            if special { format!("'{token}'") } else { token.to_string() }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Renders GRUB's search for the medium with a volume id.
    pub fn grub_search(volume_id: &str) -> String {
        let quote = if volume_id.contains(' ') { "'" } else { "" };
        format!("search --no-floppy --set=root --label {quote}{volume_id}{quote}\n")
    }

    /// Renders the line for PXELINUX's `APPEND`.
    pub fn pxelinux(&self) -> String {
        self.0.iter().map(Token::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Renders the line for iPXE's `kernel` command: the settings `keymap` and `cmdline` in their places.
    pub fn ipxe(&self) -> String {
        let words = self.0.iter().map(|token| if token.0 == KEYMAP { "${keymap}" } else { &token.0 });
        words.chain(["${cmdline}"]).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pxelinux())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_family_output_and_option_renders_as_pinned() {
        let bootargs = ["dokeymap", "nodhcp"].map(|word| Token::new(word).unwrap());
        let console = Token::new("ttyS0,115200").unwrap();
        let media = [
            ("iso", Medium::Iso { volume_id: "Gentoo-amd64-20260101".to_owned() }),
            ("initrd", Medium::InInitrd),
            ("http", Medium::Http { url: "http://host/image.squashfs".to_owned() }),
            ("nfs", Medium::Nfs { options: "vers=3,tcp".to_owned(), folder: "host:/folder".to_owned() }),
        ];
        let mut table = String::new();
        for family in [Family::Dracut, Family::Genkernel] {
            for (name, medium) in &media {
                for choice in [Choice::Default, Choice::Cached, Choice::Accessibility] {
                    for console in [None, Some(&console)] {
                        let wanted = Wanted { family, medium, bootargs: &bootargs, choice, console };
                        let place = format!("{} {name}{}", family.name(), choice.suffix());
                        match CommandLine::new(&wanted) {
                            Err(error) => table.push_str(&format!("{place}: {error}\n")),
                            Ok(line) => {
                                for (renderer, text) in [
                                    ("grub", line.grub()),
                                    ("pxelinux", line.pxelinux()),
                                    ("ipxe", line.ipxe()),
                                ] {
                                    table.push_str(&format!("{place} {renderer}: {text}\n"));
                                }
                            }
                        }
                    }
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn words_that_a_boot_loader_would_read_as_its_own_are_refused() {
        for bad in ["", "a b", "a=$b", "a='b'", "a\"b", "a\\b", "é", "||", "#x", "a\tb"] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
        let odd = Token::new("module.opt={1;2}&3").unwrap();
        let line = CommandLine(vec![odd]);
        assert_eq!(line.grub(), "'module.opt={1;2}&3'");
        assert_eq!(line.pxelinux(), "module.opt={1;2}&3");
    }
}
