//! Archives that the spec or the command line names: an address, or a folder. They have packages that apt's own sources dropped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cache::Sha256;
use graph::{Job, StepError};
use sha2::Digest;

use super::stored;
use crate::config::{Mirror, Package};
use crate::http::{Client, Patience};

/// Packages that are fetched side by side: most of the time is waiting for servers.
const AT_ONCE: usize = 8;

/// How often it is asked whether everything should stop.
const TICK: Duration = Duration::from_millis(50);

/// A transfer that gives less than this many bytes in that time is given up.
const LEAST: u64 = 30 << 10;
const WINDOW: Duration = Duration::from_secs(30);

impl Mirror {
    /// Opens a file that the archive may have.
    ///
    /// # Errors
    /// Why it cannot, in words.
    fn open(&self, client: &Client, file: &str) -> Result<Box<dyn Read>, String> {
        match self {
            Mirror::Folder(folder) => match File::open(folder.join(file)) {
                Ok(file) => Ok(Box::new(file)),
                Err(_) if !folder.is_dir() => Err("it is not a folder".to_owned()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("has no {file}")),
                Err(error) => Err(format!("{file}: {error}")),
            },
            Mirror::Http(base) => {
                let mut url = base.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(file.split('/'));
                }
                let found = client.find(&url).map_err(|error| error.to_string())?;
                Ok(Box::new(found.reader()))
            }
        }
    }

    /// Copies a package to `place`, if it is the one that is meant.
    ///
    /// # Errors
    /// Why it does not, in words.
    fn copy(&self, client: &Client, package: &Package, place: &Path) -> Result<(), String> {
        let mut from = self.open(client, &package.file)?;
        let mut file = File::create(place).map_err(|error| format!("{}: {error}", place.display()))?;
        let mut hasher = sha2::Sha256::new();
        let mut buffer = vec![0; 256 << 10];
        let (mut size, mut seen, mut since) = (0, 0, Instant::now());
        loop {
            let read = from.read(&mut buffer).map_err(|error| error.to_string())?;
            size += read as u64;
            if read == 0 || size > package.size {
                break;
            }
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(|error| format!("{}: {error}", place.display()))?;
            if since.elapsed() > WINDOW {
                if size - seen < LEAST {
                    return Err(format!("gives less than {} KiB in {} s", LEAST >> 10, WINDOW.as_secs()));
                }
                (seen, since) = (size, Instant::now());
            }
        }
        if size != package.size {
            let found = if size > package.size { "more".to_owned() } else { size.to_string() };
            return Err(format!("{} has {found} bytes there; it should have {}", package.file, package.size));
        }
        match Sha256::from(hasher) {
            sha256 if sha256 == package.sha256 => Ok(()),
            sha256 => Err(format!("{} is another file there, with the SHA-256 {sha256}", package.file)),
        }
    }
}

/// Archives, and what to do where none has a package.
pub(super) struct Mirrors {
    archives: Vec<Mirror>,
    client: Client,
    /// What apt's sources have instead.
    of_apt: &'static str,
    hint: String,
}

impl Mirrors {
    /// Takes those of a spec and a command line; without the network only folders count. `command` makes a lock of the spec.
    pub(super) fn new(archives: &[Mirror], is_offline: bool, command: &str) -> Self {
        let is_folder = |mirror: &&Mirror| matches!(mirror, Mirror::Folder(_));
        let archives = archives.iter().filter(|mirror| !is_offline || is_folder(mirror)).cloned().collect();
        let of_apt = match is_offline {
            true => "it is not in the store, and the build is offline",
            false => "apt's sources have no package of that version and hash",
        };
        let offline = if is_offline { "build once without --offline; or " } else { "" };
        let hint = format!(
            "{offline}name an archive that has it: --mirror ARCHIVE, or mirrors under [packages] in the spec \
             (https://snapshot.debian.org/archive/debian/YYYYMMDDTHHMMSSZ/ has what Debian had then); or go on to newer \
             packages: {command} --update"
        );
        Self { archives, client: Client::new(Patience::default()), of_apt, hint }
    }

    /// Copies a package to `place` from the first archive that has it.
    ///
    /// # Errors
    /// Why none gives it.
    fn copy(&self, package: &Package, place: &Path) -> Result<(), String> {
        let mut failures = vec![self.of_apt.to_owned()];
        for mirror in &self.archives {
            let name = match mirror {
                Mirror::Http(url) => url.to_string(),
                Mirror::Folder(folder) => folder.display().to_string(),
            };
            match mirror.copy(&self.client, package, place) {
                Ok(()) => return Ok(()),
                // Of servers the reason names the address already.
                Err(why) if why.starts_with("http") => failures.push(why),
                Err(why) => failures.push(format!("{name}: {why}")),
            }
        }
        Err(failures.join("; "))
    }
}

/// Fetches packages into the store; stops soon when everything should. `each` is told of every package that is there.
///
/// # Errors
/// No archive has one of them.
pub(super) fn fetch(
    job: &Job<'_>,
    packages: &[&Package],
    mirrors: Mirrors,
    mut each: impl FnMut(&Package),
) -> Result<(), StepError> {
    let mirrors = std::sync::Arc::new(mirrors);
    for some in packages.chunks(AT_ONCE) {
        let work = job.objects.work_dir()?;
        let (tells, told) = channel();
        let mut waiting: HashMap<usize, &Package> = some.iter().copied().enumerate().collect();
        for (number, package) in some.iter().enumerate() {
            let (tells, mirrors) = (tells.clone(), std::sync::Arc::clone(&mirrors));
            let (package, place) = ((*package).clone(), work.path().join(number.to_string()));
            // A server may be silent for long: nobody waits for the thread if everything should stop.
            std::thread::spawn(move || drop(tells.send((number, mirrors.copy(&package, &place)))));
        }
        while !waiting.is_empty() {
            job.check_cancelled()?;
            let (number, copied) = match told.recv_timeout(TICK) {
                Ok(news) => news,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let Some(package) = waiting.remove(&number) else { continue };
            copied.map_err(|why| {
                let Package { name, version, .. } = package;
                StepError::environment(format!("{name} {version} is not to be had: {why}"))
                    .with_hint(&mirrors.hint)
            })?;
            stored::take(job, package, &work.path().join(number.to_string()))?;
            each(package);
        }
    }
    Ok(())
}
