//! Looks at files and folders outside, to tell whether anything about them changed since.
//!
//! A look is a hash over the name, the mode and the stat data of every file below some paths. It costs a call for each
//! file, relative to its folder, and reads no bytes. What was found out from the bytes can be remembered under a look
//! that is settled: no file was changed so shortly before it that a later change might not show.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::SystemTime;

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, statat};

use crate::digest::{BlobDigest, BlobHasher};
use crate::stat::Stat;

/// Large enough for the listings of most folders.
const BUFFER: usize = 32 << 10;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The hash of all names and stat data.
    pub digest: BlobDigest,
    /// Whether what it stands for will still stand for the same bytes later.
    pub is_settled: bool,
}

impl Look {
    /// Looks at files and folders and all that is below them, on all cores; links are not followed.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub fn at(paths: &[&Path]) -> io::Result<Look> {
        let now = SystemTime::now();
        let of_path = |path: &&Path| {
            let mut looker = Looker::new(now);
            looker.entry(CWD, &CString::new(path.as_os_str().as_encoded_bytes())?)?;
            Ok(looker)
        };
        // A file alone is not worth a task of its own.
        let parts: io::Result<Vec<Looker>> = paths.par_iter().with_min_len(16).map(of_path).collect();
        let mut whole = Looker::new(now);
        parts?.into_iter().for_each(|part| whole.take_in(part));
        Ok(Look { digest: whole.hasher.finish(), is_settled: whole.is_settled })
    }
}

struct Looker {
    now: SystemTime,
    hasher: BlobHasher,
    is_settled: bool,
}

impl Looker {
    fn new(now: SystemTime) -> Self {
        Self { now, hasher: BlobHasher::default(), is_settled: true }
    }

    fn take_in(&mut self, part: Looker) {
        self.is_settled &= part.is_settled;
        self.hasher.update(part.hasher.finish().as_bytes());
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let found = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
            return self.folder(folder, name);
        }
        self.hasher.update(name.to_bytes_with_nul());
        self.hasher.update(&found.st_mode.to_le_bytes());
        let stat = Stat::of_raw(folder, name, &found);
        self.is_settled &= stat.is_settled(self.now);
        self.hasher.update(&stat.to_bytes());
        Ok(())
    }

    /// Of a folder, what is in it counts: its own times change without that, and not always with it.
    ///
    /// Its name is after the mark of a folder, which is no name; a name ends in a byte that none holds.
    fn folder(&mut self, above: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(above, name, flags, Mode::empty())?;
        let listing = Listing::of(&folder)?;
        self.hasher.update(b"/");
        self.hasher.update(name.to_bytes_with_nul());
        self.hasher.update(&(listing.starts.len() as u64).to_le_bytes());
        let (folders, others): (Vec<_>, Vec<_>) =
            listing.starts.iter().copied().partition(|(_, is_folder)| *is_folder);
        for (start, _) in others {
            self.entry(folder.as_fd(), listing.name(start)?)?;
        }
        let of_folder = |(start, _)| {
            let mut looker = Looker::new(self.now);
            looker.folder(folder.as_fd(), listing.name(start)?)?;
            Ok(looker)
        };
        let parts: io::Result<Vec<Looker>> = folders.into_par_iter().map(of_folder).collect();
        parts?.into_iter().for_each(|part| self.take_in(part));
        Ok(())
    }
}

/// The names in a folder, in order.
struct Listing {
    /// One after the other, each with the byte that ends it.
    names: Vec<u8>,
    /// Where each starts, and whether it is that of a folder.
    starts: Vec<(usize, bool)>,
}

impl Listing {
    fn of(folder: &OwnedFd) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut found = RawDir::new(folder, buffer.spare_capacity_mut());
        let (mut names, mut starts) = (Vec::new(), Vec::new());
        while let Some(entry) = found.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                starts.push((names.len(), entry.file_type() == FileType::Directory));
                names.extend_from_slice(name.to_bytes_with_nul());
            }
        }
        let mut listing = Self { names, starts: Vec::new() };
        starts.sort_unstable_by(|(one, _), (other, _)| listing.bytes(*one).cmp(listing.bytes(*other)));
        listing.starts = starts;
        Ok(listing)
    }

    fn bytes(&self, start: usize) -> &[u8] {
        let rest = &self.names[start..];
        &rest[..rest.iter().position(|byte| *byte == 0).map_or(rest.len(), |end| end + 1)]
    }

    fn name(&self, start: usize) -> io::Result<&CStr> {
        CStr::from_bytes_with_nul(self.bytes(start)).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;
    use crate::testing::Folder;

    #[test]
    fn every_change_below_a_folder_shows() {
        let dir = Folder::new();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("folder")).unwrap();
        fs::write(top.join("folder/file"), "one").unwrap();
        fs::write(top.join("other"), "two").unwrap();
        symlink("other", top.join("link")).unwrap();
        let look = || Look::at(&[&top]).unwrap();
        let mut last = look();
        assert_eq!(look(), last);
        let same_size_and_time = || {
            let path = top.join("folder/file");
            let time = fs::metadata(&path).unwrap().modified().unwrap();
            std::thread::sleep(Duration::from_millis(10));
            fs::write(&path, "six").unwrap();
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        };
        let changes: [&dyn Fn(); 7] = [
            &same_size_and_time,
            &|| fs::write(top.join("folder/file"), "three").unwrap(),
            &|| fs::rename(top.join("folder/file"), top.join("folder/moved")).unwrap(),
            &|| fs::write(top.join("new"), "").unwrap(),
            &|| fs::create_dir(top.join("empty")).unwrap(),
            &|| fs::set_permissions(top.join("other"), fs::Permissions::from_mode(0o600)).unwrap(),
            &|| {
                fs::remove_file(top.join("link")).unwrap();
                symlink("new", top.join("link")).unwrap();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            change();
            let now = look();
            assert_ne!(now.digest, last.digest, "change {number}");
            last = now;
        }
    }

    #[test]
    fn a_look_at_what_was_just_changed_is_not_settled() {
        let dir = Folder::new();
        fs::write(dir.path().join("file"), "one").unwrap();
        assert!(!Look::at(&[dir.path()]).unwrap().is_settled);
        assert!(Look::at(&[Path::new("/proc/self/status")]).is_ok());
        assert!(Look::at(&[&dir.path().join("gone")]).is_err());
    }
}
