//! Stanzas of Debian's control files (`deb-control(5)`), as packages and dpkg's own list have them.

/// Returns a field of a stanza that stands on one line.
pub fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_all_of_the_name_and_no_blanks_around_its_value() {
        let stanza = "Package: x\nPackage-Type: deb\nVersion:1:2~rc1 \nDescription: a\n Package: none\n";
        let all = ["Package", "Package-Type", "Version", "Pack"].map(|name| field(stanza, name));
        assert_eq!(all, [Some("x"), Some("deb"), Some("1:2~rc1"), None]);
    }
}
