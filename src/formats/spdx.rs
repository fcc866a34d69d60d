//! The members of SPDX 2.3 documents that we write (<https://spdx.github.io/spdx-spec/v2.3/>), in its JSON.

use serde::Serialize;

/// Stands for what nobody says.
pub const NOASSERTION: &str = "NOASSERTION";

/// A document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// `SPDX-2.3`.
    pub spdx_version: &'static str,
    /// The licence of the document itself: the standard wants this one.
    pub data_license: &'static str,
    #[serde(rename = "SPDXID")]
    /// `SPDXRef-DOCUMENT`.
    pub id: &'static str,
    /// What it is about.
    pub name: String,
    /// An address that no other document has; nothing needs to be there.
    pub document_namespace: String,
    /// When it was made, and by whom.
    pub creation_info: CreationInfo,
    /// What there is.
    pub packages: Vec<Package>,
    /// What is in what.
    pub relationships: Vec<Relationship>,
}

/// When a document was made, and by whom.
#[derive(Debug, Serialize)]
pub struct CreationInfo {
    /// `YYYY-MM-DDThh:mm:ssZ`.
    pub created: String,
    /// `Tool: NAME-VERSION`.
    pub creators: Vec<String>,
}

/// A piece of software, or a file that holds some.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    #[serde(rename = "SPDXID")]
    /// `SPDXRef-` and letters, digits, dots and dashes.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_info: Option<String>,
    /// Who gave it: `Organization: NAME`, `Person: NAME (ADDRESS)`, or [`NOASSERTION`].
    pub supplier: String,
    /// Where it can be fetched, or [`NOASSERTION`].
    pub download_location: &'static str,
    /// Whether the files in it are listed.
    pub files_analyzed: bool,
    /// Where it is at home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// What it was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_info: Option<String>,
    /// Hashes of the file that it came in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checksums: Vec<Checksum>,
    /// Licences, which nobody looked at.
    pub license_concluded: &'static str,
    /// Licences, as the package says.
    pub license_declared: &'static str,
    /// What the package says of its licence in words that are not SPDX's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_comments: Option<String>,
    /// Whose it is.
    pub copyright_text: &'static str,
    /// What else it is known by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external_refs: Vec<ExternalRef>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_package_purpose: Option<&'static str>,
}

impl Package {
    /// A package of which only a few things are known.
    pub fn new(id: String, name: String, supplier: String) -> Self {
        Self {
            id,
            name,
            version_info: None,
            supplier,
            download_location: NOASSERTION,
            files_analyzed: false,
            homepage: None,
            source_info: None,
            checksums: Vec::new(),
            license_concluded: NOASSERTION,
            license_declared: NOASSERTION,
            license_comments: None,
            copyright_text: NOASSERTION,
            external_refs: Vec::new(),
            primary_package_purpose: None,
        }
    }
}

/// A hash.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Checksum {
    /// `SHA256`.
    pub algorithm: &'static str,
    /// In hex.
    pub checksum_value: String,
}

impl Checksum {
    /// A SHA-256.
    pub fn sha256(hex: impl ToString) -> Self {
        Self { algorithm: "SHA256", checksum_value: hex.to_string() }
    }
}

/// A name in another system of names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalRef {
    /// `PACKAGE-MANAGER`.
    pub reference_category: &'static str,
    /// `purl`.
    pub reference_type: &'static str,
    /// The name.
    pub reference_locator: String,
}

impl ExternalRef {
    /// A package URL (<https://github.com/package-url/purl-spec>).
    pub fn purl(locator: String) -> Self {
        Self { reference_category: "PACKAGE-MANAGER", reference_type: "purl", reference_locator: locator }
    }
}

/// What one thing is to another.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Relationship {
    /// Which.
    pub spdx_element_id: String,
    /// `DESCRIBES`, `CONTAINS`.
    pub relationship_type: &'static str,
    /// To which.
    pub related_spdx_element: String,
}

/// Returns a name of an element for a text: what it may not have is written in hex, behind a dash. Two texts may come to the same one.
pub fn id(text: &str) -> String {
    let mut id = String::from("SPDXRef-");
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => id.push(c),
            other => id.push_str(&format!("-{:x}", u32::from(other))),
        }
    }
    id
}

/// Writes a part of a package URL: what is not plain there is written in hex, as addresses do.
pub fn purl_part(text: &str) -> String {
    let mut part = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                part.push(char::from(byte))
            }
            other => part.push_str(&format!("%{other:02X}")),
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert_eq!(id("libstdc++6-1:2.amd64"), "SPDXRef-libstdc-2b-2b6-1-3a2.amd64");
        assert_eq!(purl_part("libstdc++6"), "libstdc%2B%2B6");
        assert_eq!(purl_part("1:2.3~rc1"), "1%3A2.3~rc1");
    }
}
