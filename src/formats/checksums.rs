//! Files of checksums: those of Gentoo's and Fedora's mirrors, of `sha256sum` and its relatives (`-z` too), of `sha256` on BSD,
//! with `-r` or without, of `openssl dgst`.
//!
//! Bare or clear-signed (RFC 9580, 7), in any order. A signature is not checked here; the crate `trust` does that.

use serde::Serialize;

/// Lines that are read before a file counts as hostile.
const MAX_LINES: usize = 1_000_000;

/// A hash that files are named by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// FIPS 180-4.
    Sha256,
    /// FIPS 180-4.
    Sha512,
    /// RFC 7693, 64 bytes: what Gentoo calls BLAKE2B.
    Blake2b,
    /// BLAKE3, 32 bytes.
    Blake3,
}

impl Algorithm {
    /// Finds the algorithm of that name, in any spelling.
    fn named(name: &str) -> Option<Self> {
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        match plain.to_ascii_lowercase().as_str() {
            "sha256" | "sha2256" => Some(Algorithm::Sha256),
            "sha512" | "sha2512" => Some(Algorithm::Sha512),
            "blake2b" | "blake2b512" | "b2" | "b2sum" => Some(Algorithm::Blake2b),
            "blake3" | "b3" | "b3sum" => Some(Algorithm::Blake3),
            _ => None,
        }
    }

    /// Finds the hash that lists made here may have, under the name catalyst's configuration has for it.
    pub fn of_lists(name: &str) -> Option<Self> {
        let known = [Algorithm::Blake2b, Algorithm::Sha512, Algorithm::Sha256];
        known.into_iter().find(|hash| hash.listed().eq_ignore_ascii_case(name))
    }

    /// Returns the name that Gentoo's and BSD's lists have for it.
    pub fn listed(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
            Algorithm::Blake2b => "BLAKE2B",
            Algorithm::Blake3 => "BLAKE3",
        }
    }

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha512 => "SHA-512",
            Algorithm::Blake2b => "BLAKE2b",
            Algorithm::Blake3 => "BLAKE3",
        }
    }
}

/// Returns the line of one file as `sha256sum` and its relatives write it: a name with a backslash or a line break has both
/// escaped, and a backslash in front of the hash says so.
pub fn line_of(hex: &str, name: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    if name.iter().any(|byte| b"\\\n\r".contains(byte)) {
        line.push(b'\\');
    }
    line.extend(hex.bytes().chain(*b"  "));
    for byte in name {
        match byte {
            b'\\' => line.extend(b"\\\\"),
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            other => line.push(*other),
        }
    }
    line.push(b'\n');
    line
}

/// Undoes the escapes of [`line_of`]; what is none of them stays.
fn unescaped(name: &str) -> String {
    let mut plain = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let known = after.chars().next().and_then(|c| match c {
            'n' => Some('\n'),
            'r' => Some('\r'),
            '\\' => Some('\\'),
            _ => None,
        });
        plain.push(known.unwrap_or('\\'));
        rest = if known.is_some() { &after[1..] } else { after };
    }
    plain + rest
}

/// Writes a hash as lists have it: in lower-case hex.
pub fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One line: a file and what its bytes hash to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// The line, counted from 1.
    pub line: usize,
    /// The file, as it is written.
    pub name: String,
    /// The hash, in lower-case hex.
    pub hex: String,
    /// The algorithms it may be; one, but where nothing tells 64 bytes of SHA-512 from 64 of BLAKE2b.
    pub algorithms: Vec<Algorithm>,
}

/// A file of checksums.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checksums {
    /// Its lines.
    pub files: Vec<Checksum>,
    /// Algorithms that are named and cannot be checked here.
    pub unknown: Vec<String>,
}

impl Checksums {
    /// Counts its lines from behind so many others.
    pub fn behind(mut self, before: usize) -> Self {
        self.files.iter_mut().for_each(|checksum| checksum.line += before);
        self
    }
}

/// Tells by its name whether a file holds checksums; those are small texts.
pub fn is_named_like_checksums(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let name = name.strip_suffix(".asc").or(name.strip_suffix(".txt")).unwrap_or(&name);
    let ends = [".sha256", ".sha512", ".b2", ".b3", ".b2sum", ".b3sum", ".blake2b", ".blake3", ".digests"];
    let hash = ["sha1", "sha224", "sha384", "sha256", "sha512", "md5", "b2", "b3", "blake2b", "blake3"];
    name == "digests"
        || name.ends_with("checksum")
        || hash.contains(&name)
        || name.ends_with("sums")
        || ends.iter().any(|end| name.ends_with(end))
        || name.ends_with("sum") && hash.iter().any(|hash| name.contains(hash))
}

/// Tells whether a text is a signature of another file, and no list: `SHA256SUMS.asc`.
pub fn is_signature(start: &[u8]) -> bool {
    let start = start.strip_prefix(BOM).unwrap_or(start).trim_ascii_start();
    start.starts_with(b"-----BEGIN PGP SIGNATURE-----") || start.starts_with(b"untrusted comment:")
}

/// A byte order mark, which editors on Windows put in front.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// Reads a file of checksums; `name` is its name, which may tell the algorithm.
///
/// # Errors
/// A line is no checksum, or a signed text has no end.
pub fn parse(name: &str, text: &str) -> Result<Checksums, String> {
    let mut found = Checksums::default();
    // What the name says: SHA512SUMS, x.iso.sha256, isoroot_b2sums.
    let lower = name.to_ascii_lowercase();
    let by_name = [
        ("sha256", Algorithm::Sha256),
        ("sha512", Algorithm::Sha512),
        ("b2", Algorithm::Blake2b),
        ("blake2b", Algorithm::Blake2b),
        ("b3", Algorithm::Blake3),
        ("blake3", Algorithm::Blake3),
    ];
    let mut named = by_name.iter().find(|(part, _)| lower.contains(part)).map(|(_, algorithm)| *algorithm);
    // X.sha512 may hold the hash of X alone.
    let file = name.rsplit('/').next().unwrap_or(name);
    let own = file.rsplit_once('.').map(|(own, _)| own).filter(|own| !own.is_empty());
    let lines = lines(text)?;
    for (number, line) in lines.lines {
        if let Some(comment) = line.strip_prefix('#') {
            // "# BLAKE2B HASH": what the lines below are.
            if let Some(name) = comment.trim().strip_suffix(" HASH") {
                named = Algorithm::named(name);
                if named.is_none() {
                    found.unknown.push(name.to_owned());
                }
            }
            continue;
        }
        if let Some(checksum) = checksum(number, line, named, own, &mut found.unknown)? {
            found.files.push(checksum);
        }
    }
    Ok(found)
}

/// The lines of a list with their numbers, without what a signature puts around them.
struct Lines<'a> {
    lines: Vec<(usize, &'a str)>,
}

/// Splits a list into lines, and takes them out of a clear-signed message (RFC 9580, 7).
fn lines(text: &str) -> Result<Lines<'_>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // sha256sum -z ends lines with a zero.
    let end = if text.contains('\0') && !text.contains('\n') { '\0' } else { '\n' };
    let mut found = Lines { lines: Vec::new() };
    let mut state = State::Bare;
    for (index, line) in text.split_terminator(end).enumerate() {
        let number = index + 1;
        if number > MAX_LINES {
            return Err(format!("it has more than {MAX_LINES} lines"));
        }
        let line = line.trim_end();
        match state {
            State::Bare if line == "-----BEGIN PGP SIGNED MESSAGE-----" => {
                if let Some((line, _)) = found.lines.first() {
                    return Err(format!(
                        "line {line}: there is text in front of the signed one, which the signature does not cover"
                    ));
                }
                state = State::Headers;
            }
            State::Headers if line.is_empty() => state = State::Signed,
            State::Signed if line == "-----BEGIN PGP SIGNATURE-----" => state = State::Signature,
            State::Signature if line == "-----END PGP SIGNATURE-----" => state = State::Done,
            State::Headers | State::Signature => {}
            _ if line.is_empty() => {}
            State::Bare => found.lines.push((number, line)),
            State::Signed => found.lines.push((number, line.strip_prefix("- ").unwrap_or(line))),
            State::Done => {
                return Err(format!(
                    "line {number}: there is text behind the signature, which does not cover it"
                ));
            }
        }
    }
    match state {
        State::Bare | State::Done => Ok(found),
        State::Headers | State::Signed | State::Signature => {
            Err("the signed text has no end: the file is cut off".to_owned())
        }
    }
}

#[derive(Clone, Copy)]
enum State {
    Bare,
    Headers,
    Signed,
    Signature,
    Done,
}

/// Reads one line; `None` for an algorithm that is not known.
fn checksum(
    line: usize,
    text: &str,
    named: Option<Algorithm>,
    own: Option<&str>,
    unknown: &mut Vec<String>,
) -> Result<Option<Checksum>, String> {
    let wrong = || format!("line {line} is no checksum: {}", shortened(text));
    let is_hex = |hex: &str| hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    // BSD: SHA512 (name) = hex. OpenSSL: SHA2-512(name)= hex.
    if let Some((kind, rest)) = text.split_once('(')
        && let Some((name, hex)) = rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(")= "))
        && let kind = kind.trim_end()
        && kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte))
    {
        if matches!(hex.len(), 44 | 88) && hex.ends_with('=') {
            unknown.push(format!("{kind} in base64"));
            return Ok(None);
        }
        if !is_hex(hex) {
            return Err(wrong());
        }
        let Some(algorithm) = Algorithm::named(kind) else {
            unknown.push(kind.to_owned());
            return Ok(None);
        };
        let (name, hex) = (name.to_owned(), hex.to_ascii_lowercase());
        return Ok(Some(Checksum { line, name, hex, algorithms: vec![algorithm] }));
    }
    // A hash alone, in a file that is named after the file it is of.
    let alone = is_hex(text).then_some(own).flatten().map(|own| format!("{text}  {own}"));
    let text = alone.as_deref().unwrap_or(text);
    let (hex, rest) = text.split_once([' ', '\t']).ok_or_else(wrong)?;
    // GNU writes a backslash in front where the name has one, or a line break.
    let (escaped, hex) = hex.strip_prefix('\\').map_or((false, hex), |hex| (true, hex));
    if !is_hex(hex) {
        return Err(wrong());
    }
    // Two blanks, or a blank and a star for "binary".
    let name = rest.strip_prefix([' ', '*']).unwrap_or(rest);
    let name = if escaped { unescaped(name) } else { name.to_owned() };
    if name.is_empty() {
        return Err(wrong());
    }
    let algorithms: Vec<Algorithm> = match (hex.len(), named) {
        (128, Some(one @ (Algorithm::Sha512 | Algorithm::Blake2b))) => vec![one],
        (64, Some(one @ (Algorithm::Sha256 | Algorithm::Blake3))) => vec![one],
        // b2sum -l: a shorter one.
        (length, Some(Algorithm::Blake2b)) if length < 128 => {
            unknown.push(format!("BLAKE2b-{}", length * 4));
            return Ok(None);
        }
        (128, _) => vec![Algorithm::Sha512, Algorithm::Blake2b],
        (64, _) => vec![Algorithm::Sha256],
        (other, _) => {
            unknown.push(format!("a hash of {other} hex digits"));
            return Ok(None);
        }
    };
    Ok(Some(Checksum { line, name, hex: hex.to_ascii_lowercase(), algorithms }))
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn gentoos_linux_and_bsd_forms_say_the_same() {
        let long = format!("{A}{A}");
        let gentoo = format!("# BLAKE2B HASH\n{long}  x.iso\n# SHA512 HASH\n{long}  x.iso\n");
        let found = parse("x.iso.DIGESTS", &gentoo).unwrap();
        let kinds: Vec<_> = found.files.iter().map(|file| file.algorithms[0]).collect();
        assert_eq!(kinds, [Algorithm::Blake2b, Algorithm::Sha512]);
        let bsd = format!("BLAKE2b (x.iso) = {long}\nSHA512 (x.iso) = {}\n", long.to_uppercase());
        let bsd = parse("DIGESTS", &bsd).unwrap();
        let plain = |found: &Checksums| {
            found
                .files
                .iter()
                .map(|f| (f.name.clone(), f.hex.clone(), f.algorithms.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(plain(&bsd), plain(&found));
        let star = parse("SHA256SUMS", &format!("{A} *a b\n\\{A}  a\\\\b\n")).unwrap();
        assert_eq!(star.files[0].name, "a b");
        assert_eq!(star.files[1].name, "a\\b");
        assert_eq!(star.files[0].algorithms, [Algorithm::Sha256]);
        let either = parse("sums", &format!("{long}  x\n")).unwrap();
        assert_eq!(either.files[0].algorithms.len(), 2);
    }

    #[test]
    fn a_clear_signed_file_is_the_text_that_was_signed() {
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n# SHA256 HASH\n{A}  x\n- -----\n\
             -----BEGIN PGP SIGNATURE-----\n\niQIz\n-----END PGP SIGNATURE-----\n"
        );
        assert!(parse("x.sha256", &signed).is_err(), "a line of dashes is no checksum");
        let signed = signed.replace("- -----\n", "");
        let found = parse("x.sha256", &signed).unwrap();
        assert_eq!(found.files.len(), 1);
        let cut = signed.split("-----END").next().unwrap();
        assert!(parse("x.sha256", cut).unwrap_err().contains("cut off"));
        let more = format!("{signed}{A}  y\n");
        assert!(parse("x.sha256", &more).unwrap_err().contains("behind the signature"));
    }

    #[test]
    fn what_is_no_checksum_is_refused_and_what_is_unknown_is_said() {
        assert!(parse("DIGESTS", "<html>\n").unwrap_err().contains("line 1"));
        let md5 = parse("DIGESTS", "# MD5 HASH\n0123456789abcdef0123456789abcdef  x\n").unwrap();
        assert!(md5.files.is_empty() && md5.unknown.len() == 2);
    }

    #[test]
    fn other_tools_lists_are_read_as_they_write_them() {
        let long = format!("{A}{A}");
        for (name, text, algorithm) in [
            ("sums", format!("SHA2-256(a b (1).iso)= {A}\n"), Algorithm::Sha256),
            ("sums", format!("SHA512(a b (1).iso)= {long}\n"), Algorithm::Sha512),
            ("sums", format!("BLAKE2B-512(a b (1).iso)= {long}\n"), Algorithm::Blake2b),
            ("SHA256SUMS", format!("\u{feff}{A}  a b (1).iso\r\n"), Algorithm::Sha256),
            ("SHA256SUMS", format!("{A}  a b (1).iso\0"), Algorithm::Sha256),
            ("SHA256SUMS", format!("{A} a b (1).iso\n"), Algorithm::Sha256),
            (
                "X-CHECKSUM",
                format!("# a b (1).iso: 7 bytes\nSHA256 (a b (1).iso) = {A}\n"),
                Algorithm::Sha256,
            ),
        ] {
            let found = parse(name, &text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((found.files.len(), found.unknown.len()), (1, 0), "{text}");
            assert_eq!((&found.files[0].name[..], found.files[0].algorithms[0]), ("a b (1).iso", algorithm));
        }
        let base64 = parse("sums", &format!("SHA256 (x) = {}=\n", "A".repeat(43))).unwrap();
        assert_eq!(base64.unknown, ["SHA256 in base64"]);
    }

    #[test]
    fn what_a_signature_does_not_cover_is_refused_and_a_signature_is_no_list() {
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{A}  x\n-----BEGIN PGP SIGNATURE-----\n\niQ\n-----END PGP SIGNATURE-----\n"
        );
        assert_eq!(parse("SHA256SUMS.asc", &format!("\u{feff}\n{signed}")).unwrap().files.len(), 1);
        let more = parse("SHA256SUMS.asc", &format!("{A}  y\n{signed}")).unwrap_err();
        assert!(more.contains("line 1: there is text in front"), "{more}");
        assert!(is_signature("\u{feff}-----BEGIN PGP SIGNATURE-----\n".as_bytes()));
        assert!(!is_signature(signed.as_bytes()));
    }

    #[test]
    fn files_of_checksums_are_told_by_name() {
        for name in [
            "a/DIGESTS",
            "x.iso.DIGESTS",
            "x.sha256",
            "SHA256SUMS",
            "isoroot_b2sums",
            "x.DIGESTS.asc",
            "sha512sum.txt",
            "sha256.txt",
            "MD5SUMS",
            "Fedora-Live-1-CHECKSUM",
        ] {
            assert!(is_named_like_checksums(name), "{name}");
        }
        for name in ["gentoo.igz", "boot.ipxe", "grub.cfg", "sum"] {
            assert!(!is_named_like_checksums(name), "{name}");
        }
    }
}
