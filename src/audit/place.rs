//! Where published bytes lie: on a disk or behind an HTTP server.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::formats::ReadAt;
use crate::http::HttpFile;

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub enum Place {
    /// In a file here.
    Local(PathBuf),
    /// On a server.
    Remote(Box<HttpFile>),
}

/// Texts longer than this are not read: no real script, menu or list of checksums is.
pub(super) const MAX_TEXT: u64 = 4 << 20;

impl Place {
    /// Returns the number of bytes, where it is known before reading.
    pub fn size(&self) -> io::Result<Option<u64>> {
        match self {
            Place::Local(path) => Ok(Some(ReadAt::size(&File::open(path)?)?)),
            Place::Remote(file) => Ok(file.size),
        }
    }

    /// Opens it for reading from its start.
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Place::Local(path) => Box::new(File::open(path)?),
            Place::Remote(file) => Box::new(file.reader()),
        })
    }

    /// Opens it for reading at any place.
    pub fn open_at(&self) -> io::Result<Box<dyn ReadAt>> {
        Ok(match self {
            Place::Local(path) => Box::new(File::open(path)?),
            Place::Remote(file) => Box::new((**file).clone()),
        })
    }

    /// Reads its first bytes: `length` of them, or all where there are fewer.
    pub fn head(&self, length: usize) -> io::Result<Vec<u8>> {
        match self {
            Place::Local(_) => {
                let mut head = Vec::new();
                self.open()?.take(length as u64).read_to_end(&mut head)?;
                Ok(head)
            }
            Place::Remote(file) => match file.size {
                Some(size) => {
                    let mut head = vec![0; usize::try_from(size).unwrap_or(length).min(length)];
                    file.read_exact_at(&mut head, 0)?;
                    Ok(head)
                }
                None => {
                    let mut head = Vec::new();
                    self.open()?.take(length as u64).read_to_end(&mut head)?;
                    Ok(head)
                }
            },
        }
    }

    /// Reads a text; `None` where it is longer than any, or no UTF-8.
    pub fn text(&self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        self.open()?.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
        Ok(String::from_utf8(bytes).ok().filter(|text| text.len() as u64 <= MAX_TEXT))
    }

    /// Reads a menu: boot loaders read bytes, and what is not UTF-8 is shown as such.
    ///
    /// # Errors
    /// Reading failed, or it is too long for a menu.
    pub fn menu_text(&self) -> io::Result<String> {
        self.text_to(MAX_TEXT, "menu")
    }

    /// Returns a whole text of a kind that has at most so many bytes; what is not UTF-8 in it is shown as such.
    ///
    /// # Errors
    /// Reading failed, or it is longer.
    pub fn text_to(&self, most: u64, kind: &str) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.open()?.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::other(format!("it has more than {most} bytes, which no {kind} has")));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns what is the same for two names of one file.
    pub fn identity(&self) -> Option<(u64, u64)> {
        let Place::Local(path) = self else { return None };
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Returns it as people write it.
    pub fn shown(&self) -> String {
        match self {
            Place::Local(path) => path.display().to_string(),
            Place::Remote(file) => file.url().to_string(),
        }
    }
}
