//! catalyst's configuration, as far as the graph of a release spec depends on it.
//!
//! The target is told all this by catalyst. Where a spec is read from this side, before catalyst runs, it is looked up in
//! the same places: `catalyst.conf`, and the tables of machines in `sharedir/arch`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cache::FileError;
use cache::file::OnFile;

/// Where catalyst looks for its configuration.
pub const CONF: &str = "/etc/catalyst/catalyst.conf";

/// Where its data are, if the configuration does not say.
const SHAREDIR: &str = "/usr/share/catalyst";

/// What counts of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// Hashes of the lists, by catalyst's names, sorted.
    pub digests: Vec<String>,
    /// Their format.
    pub digest_format: String,
    /// The machine, by Gentoo's name, of each subarch: `amd64` for `nocona`.
    arches: BTreeMap<String, String>,
}

impl Default for Configuration {
    /// What counts where nothing is configured.
    fn default() -> Self {
        Self {
            digests: ["blake2b", "sha512"].map(str::to_owned).to_vec(),
            digest_format: "linux".to_owned(),
            arches: BTreeMap::new(),
        }
    }
}

impl Configuration {
    /// Reads the file at `conf` and the tables it leads to. Without the file, nothing is configured: a build is refused by
    /// the step that runs catalyst, and a plan is that of catalyst's defaults.
    ///
    /// # Errors
    /// A file is there and cannot be read, or is not what catalyst takes.
    pub fn read(conf: &Path) -> Result<Self, FileError> {
        let mut configuration = Self::default();
        let Some(table) = read_toml(conf)? else { return Ok(configuration) };
        let wrong = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        if let Some(digests) = table.get("digests") {
            let names = digests.as_array().and_then(|names| names.iter().map(toml::Value::as_str).collect());
            let names: Vec<&str> =
                names.ok_or_else(|| wrong("digests is no list of names")).on_file("read", conf)?;
            configuration.digests = names.into_iter().map(str::to_owned).collect();
            configuration.digests.sort();
            configuration.digests.dedup();
        }
        if let Some(format) = table.get("digest_format") {
            let format = format.as_str().ok_or_else(|| wrong("digest_format is no text"));
            configuration.digest_format = format.on_file("read", conf)?.to_owned();
        }
        configuration.arches = arches(&sharedir(&table).join("arch"))?;
        Ok(configuration)
    }

    /// Returns the machine, by Gentoo's name, of a subarch that catalyst knows.
    pub fn arch(&self, subarch: &str) -> Option<&str> {
        self.arches.get(subarch).map(String::as_str)
    }
}

fn read_toml(path: &Path) -> Result<Option<toml::Table>, FileError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.on_file("read", path)?,
    };
    let invalid =
        |error: toml::de::Error| io::Error::new(io::ErrorKind::InvalidData, error.message().to_owned());
    text.parse().map(Some).map_err(invalid).on_file("read", path)
}

/// Returns the folder of catalyst's data. One text may stand in another one as `%(key)s`.
fn sharedir(table: &toml::Table) -> PathBuf {
    let texts = table.iter().filter_map(|(key, value)| Some((format!("%({key})s"), value.as_str()?)));
    let text = table.get("sharedir").and_then(toml::Value::as_str).unwrap_or(SHAREDIR);
    texts.fold(text.to_owned(), |text, (key, value)| text.replace(&key, value)).into()
}

/// Reads which subarch belongs to which machine: `[amd64.nocona]` in a file of its own for each family.
fn arches(folder: &Path) -> Result<BTreeMap<String, String>, FileError> {
    let mut files = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => {
            let paths = entries.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
            let paths: Vec<PathBuf> = paths.on_file("list", folder)?;
            paths
        }
    };
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let mut arches = BTreeMap::new();
    for path in files {
        for (arch, subarches) in read_toml(&path)?.into_iter().flatten() {
            // Not a machine: what of them is emulated by setarch.
            if arch == "setarch" {
                continue;
            }
            for subarch in subarches.as_table().into_iter().flat_map(toml::Table::keys) {
                arches.entry(subarch.clone()).or_insert_with(|| arch.clone());
            }
        }
    }
    Ok(arches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_catalyst_would_hand_over_is_found_where_catalyst_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("catalyst.conf");
        assert_eq!(Configuration::read(&conf).unwrap(), Configuration::default());
        let arch = dir.path().join("share/arch");
        std::fs::create_dir_all(&arch).unwrap();
        std::fs::write(arch.join("amd64.toml"), "[amd64.nocona]\nCOMMON_FLAGS = '-O2'\n[setarch.x86]\n")
            .unwrap();
        std::fs::write(arch.join("x86.toml"), "[x86.i686]\nCHOST = 'i686-pc-linux-gnu'\n").unwrap();
        let top = dir.path().display();
        let text = format!(
            "top = '{top}'\nsharedir = '%(top)s/share'\ndigests = ['sha512', 'sha256']\ndigest_format = 'bsd'\n"
        );
        std::fs::write(&conf, text).unwrap();
        let read = Configuration::read(&conf).unwrap();
        assert_eq!(
            (read.digests.as_slice(), read.digest_format.as_str()),
            (["sha256", "sha512"].map(str::to_owned).as_slice(), "bsd")
        );
        assert_eq!(
            (read.arch("nocona"), read.arch("i686"), read.arch("x86")),
            (Some("amd64"), Some("x86"), None)
        );
        for (text, says) in [("digests = 'sha1'", "digests is no list"), ("digests = [", "catalyst.conf")] {
            std::fs::write(&conf, text).unwrap();
            let error = Configuration::read(&conf).unwrap_err();
            assert!(cache::causes(&error).join(": ").contains(says), "{error:?}");
        }
    }
}
