//! Archives that packages come from, as specs and command lines name them.

use std::path::{Path, PathBuf};

use url::Url;

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mirror {
    /// On a server.
    Http(Url),
    /// Below a folder.
    Folder(PathBuf),
}

impl Mirror {
    /// Reads an address or the path of a folder, which is relative to `folder`; `None` for anything else.
    pub fn parse(text: &str, folder: &Path) -> Option<Self> {
        match Url::parse(text) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Some(Mirror::Http(url)),
            Ok(url) if url.scheme() == "file" => url.to_file_path().ok().map(Mirror::Folder),
            _ if text.is_empty() || text.contains("://") => None,
            _ => Some(Mirror::Folder(folder.join(text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_an_address_or_a_folder() {
        let parse = |text: &str| Mirror::parse(text, Path::new("/specs"));
        let folder = |path: &str| Some(Mirror::Folder(path.into()));
        assert_eq!(parse("/srv/debian"), folder("/srv/debian"));
        assert_eq!(parse("old"), folder("/specs/old"));
        assert_eq!(parse("file:///srv/debian%20old"), folder("/srv/debian old"));
        for address in ["https://host/debian/", "HTTP://host"] {
            assert!(matches!(parse(address), Some(Mirror::Http(_))), "{address}");
        }
        assert_eq!((parse(""), parse("ftp://host/"), parse("http://")), (None, None, None));
    }
}
