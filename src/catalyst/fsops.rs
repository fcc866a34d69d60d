//! `livecd/fsops`: words for gensquashfs, as settings of the step `squashfs`.

use super::error::{WantedError, wrong};

/// Maps words for gensquashfs to settings; those nobody knows are refused by name.
pub(super) fn settings(fsops: &[String]) -> Result<toml::Table, WantedError> {
    let mut settings = toml::Table::new();
    let mut words = fsops.iter();
    while let Some(word) = words.next() {
        let (option, attached) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || {
            attached
                .clone()
                .or_else(|| words.next().cloned())
                .ok_or_else(|| wrong("livecd/fsops", format!("{option} needs a value")))
        };
        match option {
            "-c" | "--compressor" => {
                settings.insert("compressor".to_owned(), value()?.into());
            }
            "-b" | "--block-size" => {
                let size = block_size(&value()?)?;
                settings.insert("block_size".to_owned(), size.into());
            }
            "-X" | "--comp-extra" => {
                for extra in value()?.split(',') {
                    let level = extra.strip_prefix("level=").and_then(|level| level.parse::<i64>().ok());
                    let Some(level) = level else {
                        return Err(wrong(
                            "livecd/fsops",
                            format!("the compressor's option {extra:?} is not known; level=N is"),
                        ));
                    };
                    settings.insert("level".to_owned(), level.into());
                }
            }
            // How many threads, how much is said: no matter of the image. Times and attributes are kept anyway.
            "-j" | "--num-jobs" | "-Q" | "--queue-backlog" => drop(value()?),
            "-q" | "--quiet" | "-k" | "--keep-time" | "-x" | "--keep-xattr" | "-f" | "--force" => {}
            other => {
                let why = format!("{other:?} is not known; -c, -b, -X level=N, -j, -Q, -k, -x and -q are");
                return Err(wrong("livecd/fsops", why));
            }
        }
    }
    Ok(settings)
}

/// Reads a size in bytes, or with `K` or `M` behind it.
fn block_size(text: &str) -> Result<i64, WantedError> {
    let (digits, unit) = match (text.strip_suffix(['K', 'k']), text.strip_suffix(['M', 'm'])) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        (None, None) => (text, 1),
    };
    let size = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(unit));
    size.ok_or_else(|| wrong("livecd/fsops", format!("{text:?} is no block size")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_for_gensquashfs_become_settings_and_others_are_refused_by_name() {
        let with =
            |words: &[&str]| settings(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let read =
            with(&["-c", "zstd", "-X", "level=19", "-b", "1M", "-j", "4", "-q", "--compressor=xz"]).unwrap();
        assert_eq!(read.to_string(), "block_size = 1048576\ncompressor = \"xz\"\nlevel = 19\n");
        for (words, says) in [
            (&["-comp", "xz"][..], "\"-comp\" is not known"),
            (&["-c"], "-c needs a value"),
            (&["-X", "bcj"], "\"bcj\" is not known"),
            (&["-b", "big"], "no block size"),
            (&["-b", "9223372036854775807M"], "no block size"),
        ] {
            let error = with(words).unwrap_err().to_string();
            assert!(error.starts_with("livecd/fsops: ") && error.contains(says), "{error}");
        }
    }
}
