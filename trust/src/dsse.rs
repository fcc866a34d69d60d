//! Envelopes: a payload, and who signed it (DSSE 1.0, <https://github.com/secure-systems-lab/dsse>).

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use der::oid::ObjectIdentifier;
use der::{Decode, Document, Encode};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use serde::{Deserialize, Serialize};
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// Bytes of a line with an envelope.
pub const MAX_ENVELOPE: u64 = 64 << 20;

/// Bytes of a file with a public key.
const MAX_KEY: u64 = 64 << 10;

/// RFC 8410, 3; RFC 5480, 2.1.1; RFC 8017, appendix C.
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ID_EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ID_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// A payload with signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
    sig: String,
}

/// Returns the bytes that are signed: type and payload, each behind its length (`PAE`).
pub fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl Envelope {
    /// Puts a payload and its signature together; `key` says by which key it is, and is believed by nobody.
    pub fn new(payload_type: &str, payload: &[u8], key: &PublicKey, signature: &[u8]) -> Self {
        Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![Signature { keyid: Some(key.id()), sig: STANDARD.encode(signature) }],
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none, or not one of this type of payload.
    pub fn parse(line: &str, payload_type: &str) -> Result<Self, String> {
        let envelope: Self =
            serde_json::from_str(line).map_err(|error| format!("is no envelope: {error}"))?;
        if envelope.payload_type != payload_type {
            return Err(format!(
                "has a payload of the type {:?}; expected {payload_type}",
                envelope.payload_type
            ));
        }
        envelope.payload()?;
        if envelope.signatures.is_empty() {
            return Err("has no signature".to_owned());
        }
        Ok(envelope)
    }

    /// Returns the payload. Nothing of it counts before [`Envelope::is_by`] says so.
    ///
    /// # Errors
    /// It is no base64.
    pub fn payload(&self) -> Result<Vec<u8>, String> {
        STANDARD.decode(&self.payload).map_err(|error| format!("has a payload that is no base64: {error}"))
    }

    /// Tells whether this key signed it.
    pub fn is_by(&self, key: &PublicKey) -> bool {
        let Ok(payload) = self.payload() else { return false };
        let bytes = signed_bytes(&self.payload_type, &payload);
        let mut signatures = self.signatures.iter().filter_map(|one| STANDARD.decode(&one.sig).ok());
        signatures.any(|signature| key.verifies(&bytes, &signature))
    }
}

/// Why a file is no public key.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyError {
    /// It could not be read.
    #[error("read the public key {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is none that can be used.
    #[error("{path} is no public key: {why}")]
    Bad {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A public key: Ed25519, ECDSA with P-256 or P-384, RSA.
#[derive(Clone)]
pub struct PublicKey {
    name: String,
    algorithm: &'static dyn VerificationAlgorithm,
    digest: Option<&'static str>,
    bytes: Vec<u8>,
    der: Vec<u8>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PublicKey({})", self.name)
    }
}

impl PublicKey {
    /// Reads a key as openssl writes it (`PUBLIC KEY` in PEM, or DER); its name is the file's, without its ending.
    ///
    /// # Errors
    /// [`PublicKeyError`].
    pub fn read(path: &Path) -> Result<Self, PublicKeyError> {
        let failed = |source| PublicKeyError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_KEY).read_to_end(&mut bytes).map_err(failed)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::of_bytes(&name, &bytes).map_err(|why| PublicKeyError::Bad { path: path.to_owned(), why })
    }

    /// Reads the keys of a folder: each file whose name ends in `.pem`, `.pub` or `.der`, in order.
    ///
    /// # Errors
    /// [`PublicKeyError`]: one of them is none, or there is none.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, PublicKeyError> {
        let failed = |source| PublicKeyError::Read { path: folder.to_owned(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|end| ["pem", "pub", "der"].iter().any(|known| end == *known)) {
                paths.push(path);
            }
        }
        paths.sort();
        if paths.is_empty() {
            let why = "the folder has no file that ends in .pem, .pub or .der".to_owned();
            return Err(PublicKeyError::Bad { path: folder.to_owned(), why });
        }
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Reads a key, in PEM or DER.
    ///
    /// # Errors
    /// It is none, or of a kind that is not known here.
    pub fn of_bytes(name: &str, bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.contains("-----BEGIN"));
        let der = match text {
            Some(text) if text.contains("PRIVATE KEY") => {
                return Err(
                    "it is a private key; write the public one with openssl pkey -in FILE -pubout".to_owned()
                );
            }
            Some(text) => {
                let (label, document) = Document::from_pem(text.trim()).map_err(|error| error.to_string())?;
                if label != "PUBLIC KEY" {
                    return Err(format!("it is a {label}; expected a PUBLIC KEY"));
                }
                document.as_bytes().to_vec()
            }
            None => bytes.to_vec(),
        };
        let info = SubjectPublicKeyInfoRef::from_der(&der).map_err(|error| error.to_string())?;
        let curve = info.algorithm.parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let (algorithm, digest): (&'static dyn VerificationAlgorithm, _) = match (info.algorithm.oid, curve) {
            (ID_ED25519, _) => (&ED25519, None),
            (ID_EC, Some(P256)) => (&ECDSA_P256_SHA256_ASN1, Some("sha256")),
            (ID_EC, Some(P384)) => (&ECDSA_P384_SHA384_ASN1, Some("sha384")),
            (ID_RSA, _) => (&RSA_PKCS1_2048_8192_SHA256, Some("sha256")),
            (other, _) => {
                return Err(format!(
                    "its kind is not known here ({other}): Ed25519, P-256, P-384 and RSA are"
                ));
            }
        };
        let bytes = info.subject_public_key.as_bytes().ok_or("its bits are no whole bytes")?.to_vec();
        let der = info.to_der().map_err(|error| error.to_string())?;
        Ok(Self { name: name.to_owned(), algorithm, digest, bytes, der })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells it from all others: the SHA-256 of the key, in hex.
    pub fn id(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.der);
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the digest that openssl is to be told; none where the kind of key says it.
    pub(crate) fn digest(&self) -> Option<&'static str> {
        self.digest
    }

    fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.bytes).verify(bytes, signature).is_ok()
    }
}

#[cfg(test)]
mod tests;
