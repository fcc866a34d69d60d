//! Signatures inside PE programs, which firmware with Secure Boot and shim verify.
//!
//! The form is that of "Windows Authenticode Portable Executable Signature Format", 1.0: PKCS #7 over a structure that names the hash of the
//! program, with signed attributes. Times do not count, as firmware has none to trust.

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier};
use der::asn1::{Any, OctetString};
use der::oid::ObjectIdentifier;
use der::oid::db::rfc5911::{ID_CONTENT_TYPE, ID_MESSAGE_DIGEST};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use ring::digest;
use ring::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters,
    UnparsedPublicKey,
};
use x509_cert::Certificate;
use x509_cert::ext::pkix::BasicConstraints;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::cms::{SIGNED_DATA, name};

/// SpcIndirectDataContent.
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
/// RFC 5754, 2.
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
/// RFC 8017, appendix C: RSA with these.
const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");

/// A list of certificates in UEFI's form begins with this (EFI_CERT_X509_GUID, as bytes); then come its length, that of a header, that of each
/// entry (UEFI 2.10, 32.4.1). An entry's owner stands before its certificate.
const CERT_X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
const LIST_HEAD: usize = 28;
const OWNER: usize = 16;

/// SHA-256 of the certificates by which Microsoft vouches for boot loaders of others: "Microsoft Corporation UEFI CA 2011" and
/// "Microsoft UEFI CA 2023", as firmware of PCs and of arm64 has them
/// (<https://learn.microsoft.com/windows-hardware/manufacture/desktop/windows-secure-boot-key-creation-and-management-guidance>).
const FIRMWARE: [&str; 2] = [
    "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507",
    "f6124e34125bee3fe6d79a574eaa7b91c0e7bd9d929c1a321178efd611dad901",
];

/// Certificates in one signature, at most.
const MAX_CERTIFICATES: usize = 32;

/// How a signature was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageJudgement {
    /// It is of the program, by the key of the certificate inside.
    Good,
    /// It is not.
    Bad(String),
    /// It cannot be verified here.
    Unknown(String),
}

/// A signature of a program.
#[derive(Debug, Clone)]
pub struct ImageSignature {
    signer: Certificate,
    others: Vec<Certificate>,
    /// The hash of the program that was signed, and its algorithm.
    of: (ObjectIdentifier, Vec<u8>),
    /// Whether what it says of its program is what was signed.
    is_whole: bool,
    /// The DER of the signed attributes.
    attributes: Vec<u8>,
    algorithm: ObjectIdentifier,
    signature: Vec<u8>,
}

impl ImageSignature {
    /// Reads one.
    ///
    /// # Errors
    /// It has another form than firmware takes.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |error: der::Error| format!("it is no PKCS #7 signature, or a damaged one: {error}");
        // The table that it lies in is padded.
        let mut reader = SliceReader::new(bytes).map_err(damaged)?;
        let info = ContentInfo::decode(&mut reader).map_err(damaged)?;
        if info.content_type != SIGNED_DATA {
            return Err("it is not signed data".to_owned());
        }
        let data: SignedData = info.content.decode_as().map_err(damaged)?;
        if data.encap_content_info.econtent_type != INDIRECT_DATA {
            return Err("it does not say what program it is of".to_owned());
        }
        let content =
            data.encap_content_info.econtent.ok_or("it does not say what program it is of".to_owned())?;
        let [signer] = data.signer_infos.0.as_slice() else {
            return Err(format!("it has {} signers instead of one", data.signer_infos.0.len()));
        };
        let SignerIdentifier::IssuerAndSerialNumber(sid) = &signer.sid else {
            return Err("it names its signer by a key".to_owned());
        };
        let certificates = data.certificates.iter().flat_map(|set| set.0.iter());
        let mut certificates: Vec<Certificate> = certificates
            .filter_map(|choice| match choice {
                CertificateChoices::Certificate(one) => Some(one.clone()),
                CertificateChoices::Other(_) => None,
            })
            .collect();
        let is_signer = |one: &Certificate| {
            let inner = &one.tbs_certificate;
            inner.issuer == sid.issuer && inner.serial_number == sid.serial_number
        };
        if certificates.len() > MAX_CERTIFICATES {
            return Err(format!("it has {} certificates, which no real one has", certificates.len()));
        }
        let Some(index) = certificates.iter().position(is_signer) else {
            return Err("the certificate of its signer is not inside".to_owned());
        };
        let attributes = signer.signed_attrs.as_ref().ok_or("it has no signed attributes".to_owned())?;
        let only = |oid| {
            let found = attributes.iter().find(|attribute| attribute.oid == oid)?;
            found.values.get(0).filter(|_| found.values.len() == 1)
        };
        let digest = only(ID_MESSAGE_DIGEST).ok_or("its attributes name no hash".to_owned())?;
        let digest: OctetString = digest.decode_as().map_err(damaged)?;
        let kind = only(ID_CONTENT_TYPE).and_then(|kind| kind.decode_as::<ObjectIdentifier>().ok());
        if kind != Some(INDIRECT_DATA) {
            return Err("its attributes do not say what was signed".to_owned());
        }
        if signer.digest_alg.oid != SHA256 {
            return Err("its hash is not SHA-256".to_owned());
        }
        // The content's tag and length are not hashed.
        let is_whole = digest::digest(&digest::SHA256, content.value()).as_ref() == digest.as_bytes();
        let of = program_hash(&content).map_err(damaged)?;
        Ok(Self {
            signer: certificates.remove(index),
            others: certificates,
            of,
            is_whole,
            attributes: attributes.to_der().map_err(damaged)?,
            algorithm: signer.signature_algorithm.oid,
            signature: signer.signature.as_bytes().to_vec(),
        })
    }

    /// Returns the name of the signer.
    pub fn signer(&self) -> String {
        name(&self.signer)
    }

    /// Tells whether it is of a program with this hash, by the key of the certificate inside.
    pub fn judge(&self, sha256: &[u8; 32]) -> ImageJudgement {
        let (hash, of) = &self.of;
        if *hash != SHA256 {
            return ImageJudgement::Unknown(format!("its hash of the program is not SHA-256 but {hash}"));
        }
        if !self.is_whole {
            let why = format!("what {} signed of its program was changed", self.signer());
            return ImageJudgement::Bad(why);
        }
        if of != sha256 {
            let why = format!("{} signed another program: this one was changed", self.signer());
            return ImageJudgement::Bad(why);
        }
        let key = &self.signer.tbs_certificate.subject_public_key_info.subject_public_key;
        match verified(self.algorithm, key.raw_bytes(), &self.attributes, &self.signature) {
            Some(true) => ImageJudgement::Good,
            Some(false) => ImageJudgement::Bad(format!("it was not made by {}", self.signer())),
            None => ImageJudgement::Unknown(format!("it is by the algorithm {}", self.algorithm)),
        }
    }

    /// Tells whether Microsoft vouches for its signer, as firmware asks where nobody changed its keys.
    pub fn is_known_to_firmware(&self) -> bool {
        self.leads_to(|one| {
            let Ok(der) = one.to_der() else { return false };
            let hash = digest::digest(&digest::SHA256, &der);
            let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            FIRMWARE.contains(&hex.as_str())
        })
    }

    /// Tells whether its signer is one of these, or has a certificate that leads to one.
    pub fn is_known_to(&self, authorities: &Vendor) -> bool {
        self.leads_to(|one| authorities.0.iter().any(|known| known == one || is_issued_by(one, known)))
    }

    /// Tells whether a certificate that is known is the signer's or above it, by those inside.
    fn leads_to(&self, is_known: impl Fn(&Certificate) -> bool) -> bool {
        let mut at = &self.signer;
        // No chain is longer than all that is inside.
        for _ in 0..=self.others.len() {
            if is_known(at) {
                return true;
            }
            let above = self.others.iter().find(|other| *other != at && is_issued_by(at, other));
            let Some(above) = above else { return false };
            at = above;
        }
        false
    }
}

/// Reads the hash out of SpcIndirectDataContent, and its algorithm: what kind of program it is, then DigestInfo.
fn program_hash(content: &Any) -> der::Result<(ObjectIdentifier, Vec<u8>)> {
    let mut reader = SliceReader::new(content.value())?;
    Any::decode(&mut reader)?;
    let info = Any::decode(&mut reader)?;
    if info.tag() != Tag::Sequence {
        return Err(info.tag().value_error());
    }
    let mut inner = SliceReader::new(info.value())?;
    let algorithm = AlgorithmIdentifierOwned::decode(&mut inner)?;
    let hash = OctetString::decode(&mut inner)?;
    inner.finish((algorithm.oid, hash.into_bytes()))
}

/// Verifies an RSA signature; nothing for algorithms that are not known. `rsaEncryption` alone stands for SHA-256, as above.
fn verified(algorithm: ObjectIdentifier, key: &[u8], message: &[u8], signature: &[u8]) -> Option<bool> {
    let parameters: &RsaParameters = match algorithm {
        crate::cms::RSA | RSA_SHA256 | SHA256 => &RSA_PKCS1_2048_8192_SHA256,
        RSA_SHA384 | SHA384 => &RSA_PKCS1_2048_8192_SHA384,
        RSA_SHA512 | SHA512 => &RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    };
    Some(UnparsedPublicKey::new(parameters, key).verify(message, signature).is_ok())
}

/// Tells whether a certificate was given by another one's key, which may do that.
fn is_issued_by(one: &Certificate, above: &Certificate) -> bool {
    let constraints = above.tbs_certificate.get::<BasicConstraints>();
    if !constraints.is_ok_and(|found| found.is_some_and(|(_, constraints)| constraints.ca)) {
        return false;
    }
    if one.tbs_certificate.issuer != above.tbs_certificate.subject {
        return false;
    }
    let Ok(signed) = one.tbs_certificate.to_der() else { return false };
    let key = above.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes();
    verified(one.signature_algorithm.oid, key, &signed, one.signature.raw_bytes()) == Some(true)
}

/// Whom a shim trusts.
#[derive(Debug, Clone)]
pub struct Vendor(Vec<Certificate>);

impl Vendor {
    /// Reads what is in a shim: a certificate, or a list as UEFI has them.
    ///
    /// # Errors
    /// There is no certificate in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let one = |bytes: &[u8]| Certificate::from_der(bytes).map_err(|error| error.to_string());
        // A certificate in DER begins so; a list begins with what is in it.
        if bytes.starts_with(&[0x30]) {
            return Ok(Self(vec![one(bytes)?]));
        }
        let mut found = Vec::new();
        let mut rest = bytes;
        while rest.len() > LIST_HEAD {
            let word = |at: usize| {
                let word = rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                word.map(|word| u32::from_le_bytes(word) as usize)
            };
            let cut = || "its list of certificates is cut off".to_owned();
            let (length, header, each) =
                (word(16).ok_or_else(cut)?, word(20).ok_or_else(cut)?, word(24).ok_or_else(cut)?);
            let list = rest.get(..length).filter(|_| length > LIST_HEAD).ok_or_else(cut)?;
            let entries = list.get(LIST_HEAD + header..).ok_or_else(cut)?;
            if list.starts_with(&CERT_X509) && each > OWNER {
                let all = entries.chunks_exact(each).map(|entry| one(&entry[OWNER..]));
                found.extend(all.collect::<Result<Vec<_>, _>>()?);
            }
            rest = &rest[length..];
        }
        match found.is_empty() {
            true => Err("there is no certificate in it".to_owned()),
            false => Ok(Self(found)),
        }
    }

    /// Returns the names of all.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(name).collect()
    }
}
