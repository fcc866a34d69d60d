//! Archives that the spec or the command line names: an address, or a folder. They have packages that apt's own sources dropped.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cache::file::OnFile;
use graph::{Job, StepError};
use url::Url;

use super::stored::take;
use crate::config::Package;
use crate::http::{Client, HttpError};

/// An archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Mirror {
    /// On a server.
    Http(Url),
    /// Below a folder.
    Folder(PathBuf),
}

impl Mirror {
    /// Reads an address or the path of a folder; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with("http://") || text.starts_with("https://") {
            return Url::parse(text).ok().filter(|url| !url.cannot_be_a_base()).map(Mirror::Http);
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        (!path.is_empty() && !path.contains("://")).then(|| Mirror::Folder(path.into()))
    }

    /// Opens a file that the archive may have; `None` where it has none.
    fn open(&self, client: &Client, file: &str) -> Result<Option<Box<dyn Read>>, StepError> {
        match self {
            Mirror::Folder(folder) => {
                let path = folder.join(file);
                match File::open(&path) {
                    Ok(file) => Ok(Some(Box::new(file))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(error).on_file("open", path).map_err(StepError::from),
                }
            }
            Mirror::Http(base) => {
                let mut url = base.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(file.split('/'));
                }
                match client.find(&url) {
                    Ok(found) => Ok(Some(Box::new(found.reader()))),
                    Err(error) if error.is_missing() => Ok(None),
                    Err(error @ HttpError::Transport { .. }) => {
                        Err(StepError::environment(error)
                            .with_hint("look at the network, and at the address"))
                    }
                    Err(error) => Err(StepError::environment(error)),
                }
            }
        }
    }
}

/// Fetches a package from the first archive that has it.
///
/// # Errors
/// None has it, or it is another one there.
pub(super) fn fetch(
    job: &Job<'_>,
    client: &Client,
    package: &Package,
    mirrors: &[String],
) -> Result<(), StepError> {
    for text in mirrors {
        let Some(mirror) = Mirror::parse(text) else { continue };
        let Some(found) = mirror.open(client, &package.file)? else { continue };
        let work = job.objects.work_dir()?;
        let place = work.path().join("package");
        let mut file = File::create_new(&place).on_file("make", &place)?;
        // One byte more than it should have tells that it is another one, however long.
        io::copy(&mut found.take(package.size + 1), &mut file)
            .on_file("fetch", Path::new(text).join(&package.file))?;
        let size = fs::metadata(&place).on_file("look at", &place)?.len();
        if size != package.size {
            let Package { name, version, size: wanted, .. } = package;
            let found = if size > *wanted { "more".to_owned() } else { size.to_string() };
            return Err(StepError::environment(format!(
                "{name} {version} from {text} has {found} bytes; it should have {wanted}"
            )));
        }
        return take(job, package, &place, text);
    }
    let Package { name, version, file, .. } = package;
    let looked = match mirrors {
        [] => "apt's sources have it no longer, and no other archive is named".to_owned(),
        _ => format!("looked in apt's sources and for {file} in {}", mirrors.join(", ")),
    };
    Err(StepError::environment(format!("{name} {version} is not to be had: {looked}")).with_hint(
        "name an archive that has it: --mirror ADDRESS, or mirrors under [packages] in the spec \
         (https://snapshot.debian.org/archive/debian/YYYYMMDDTHHMMSSZ/ has what Debian had then); or go on to newer packages: \
         stagegraph lock SPEC --update",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_an_address_or_a_folder() {
        let folder = |path: &str| Some(Mirror::Folder(path.into()));
        assert_eq!(Mirror::parse("/srv/debian"), folder("/srv/debian"));
        assert_eq!(Mirror::parse("file:///srv/debian"), folder("/srv/debian"));
        assert!(matches!(Mirror::parse("https://host/debian/"), Some(Mirror::Http(_))));
        assert_eq!(
            (Mirror::parse(""), Mirror::parse("ftp://host/"), Mirror::parse("http://")),
            (None, None, None)
        );
    }
}
