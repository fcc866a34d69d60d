//! CMS signatures (RFC 5652) in the one form that iPXE's `imgverify` takes (its `crypto/cms.c`): detached, by one RSA key over a SHA-256,
//! without signed attributes, with the certificates up to the root, whose signer may sign code.
//!
//! iPXE knows a root that was built in with `TRUST=` by its fingerprint alone; so the root has to be in the file as well.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cms::cert::CertificateChoices;
use cms::content_info::ContentInfo;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::oid::ObjectIdentifier;
use der::oid::db::rfc5280::ID_KP_CODE_SIGNING;
use der::referenced::OwnedToRef;
use der::{Decode, Encode};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsage as KeyUses};

/// A longer file is no such signature.
pub const MAX_SIGNATURE: u64 = 256 << 10;

/// Bytes of a file of certificates.
const MAX_CERTIFICATES: u64 = 4 << 20;

/// RFC 5652, 5.1; RFC 8017, appendix A.2.4 and C; RFC 5754, 2; RFC 5280, 4.2.1.12.
pub(crate) const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
pub(crate) const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// 1.3.6.1.5.5.7.3.3, as DER writes it.
const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];

/// What stands in front of a SHA-256 that RSA signs (RFC 8017, 9.2, note 1).
const SHA256_PREFIX: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];

/// Why a file of certificates is none.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It could not be read.
    #[error("read the certificates of {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It has something else, or what cannot be used.
    #[error("{path}: {why}")]
    Bad {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a file of certificates: PEM with one or several, or one in DER.
fn read(path: &Path) -> Result<Vec<Certificate>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    let bad = |why: String| CertificateError::Bad { path: path.to_owned(), why };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_CERTIFICATES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_CERTIFICATES {
        return Err(bad(format!(
            "has more than {MAX_CERTIFICATES} bytes, which no file of certificates has"
        )));
    }
    let found = match bytes.starts_with(b"\x30") {
        true => Certificate::from_der(&bytes).map(|one| vec![one]),
        false => Certificate::load_pem_chain(&bytes),
    };
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(bad("has no certificate".to_owned())),
        Err(error) => Err(bad(format!("has no certificate, or a damaged one: {error}"))),
    }
}

/// Roots that are trusted to say who may sign code.
pub struct Authorities(Vec<CertificateDer<'static>>);

impl fmt::Debug for Authorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Authorities({})", self.0.len())
    }
}

impl Authorities {
    /// Reads files of certificates: PEM with one or several, or one in DER.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(paths: &[PathBuf]) -> Result<Self, CertificateError> {
        let mut all = Vec::new();
        for path in paths {
            let bad = |why: String| CertificateError::Bad { path: path.clone(), why };
            for certificate in read(path)? {
                let der = encoded(&certificate).map_err(bad)?;
                webpki::anchor_from_trusted_cert(&der)
                    .map_err(|error| bad(format!("{} cannot be a root: {error}", name(&certificate))))?;
                all.push(der);
            }
        }
        Ok(Self(all))
    }
}

/// A certificate, and those that lead to its root.
#[derive(Debug, Clone)]
pub struct Chain {
    signer: Certificate,
    others: Vec<Certificate>,
}

impl Chain {
    /// Reads the certificate of a signer, and files with those above it.
    ///
    /// # Errors
    /// [`CertificateError`]: one cannot be read, or [`Chain::judge`] refuses what they say.
    pub fn read(certificate: &Path, above: &[PathBuf], now: SystemTime) -> Result<Self, CertificateError> {
        let mut signer = read(certificate)?;
        let mut others = signer.split_off(1);
        for path in above {
            others.extend(read(path)?);
        }
        let bad = |why: String| CertificateError::Bad { path: certificate.to_owned(), why };
        let Some(signer) = signer.pop() else { return Err(bad("has no certificate".to_owned())) };
        let chain = Self { signer, others };
        chain.key().map_err(bad)?;
        chain.judge(now).map_err(bad)?;
        Ok(chain)
    }

    /// Returns all of it as PEM but the signer's, for `openssl cms -certfile`.
    ///
    /// # Errors
    /// A certificate cannot be written.
    pub fn above(&self) -> Result<String, String> {
        let pem = |one: &Certificate| der::EncodePem::to_pem(one, der::pem::LineEnding::LF);
        self.others.iter().map(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    /// Returns the name of the signer.
    pub fn signer(&self) -> String {
        name(&self.signer)
    }

    /// Returns the key that signs.
    fn key(&self) -> Result<RsaPublicKey, String> {
        let info = &self.signer.tbs_certificate.subject_public_key_info;
        let signer = self.signer();
        if info.algorithm.oid != RSA {
            return Err(format!("the key of {signer} is not RSA, which is all that every iPXE takes"));
        }
        let wrong =
            |why: String| format!("the RSA key of {signer} cannot be used (2048 to 4096 bits can): {why}");
        let key = RsaPublicKey::try_from(info.owned_to_ref()).map_err(|error| wrong(error.to_string()))?;
        match key.size() * 8 {
            2048.. => Ok(key),
            bits => Err(wrong(format!("it has {bits}"))),
        }
    }

    /// Tells whether the certificates lead to a root that is among them, whether the signer may sign code, and whether all of that is so at
    /// this time.
    ///
    /// # Errors
    /// What is not so.
    pub fn judge(&self, now: SystemTime) -> Result<(), String> {
        // Those above it need not say what for. To iPXE, a certificate that says nothing of its key's use may not sign.
        let uses = self.signer.tbs_certificate.get::<KeyUses>();
        if !uses.is_ok_and(|uses| uses.is_some_and(|(_, uses)| uses.digital_signature())) {
            return Err(format!(
                "{} may not sign: its certificate lacks keyUsage = digitalSignature, without which iPXE refuses it",
                self.signer()
            ));
        }
        let usage = self.signer.tbs_certificate.get::<ExtendedKeyUsage>();
        if !usage.is_ok_and(|usage| usage.is_some_and(|(_, usage)| usage.0.contains(&ID_KP_CODE_SIGNING))) {
            return Err(format!(
                "{} may not sign code: its certificate lacks extendedKeyUsage = codeSigning",
                self.signer()
            ));
        }
        let all = std::iter::once(&self.signer).chain(&self.others);
        let roots: Vec<&Certificate> = all.filter(|one| is_root(one)).collect();
        if let Some(old) = roots.iter().find(|root| !is_valid_at(root, now)) {
            return Err(format!("the root {} has expired, or is not valid yet", name(old)));
        }
        let roots = roots.into_iter().map(encoded).collect::<Result<Vec<_>, _>>()?;
        if roots.is_empty() {
            return Err(format!(
                "the root above {} is not among the certificates; an iPXE that knows it by its fingerprint needs it there",
                self.signer()
            ));
        }
        match self.leads_to(&roots, now)? {
            true => Ok(()),
            false => {
                Err(format!("the certificates do not lead from {} to the root among them", self.signer()))
            }
        }
    }

    /// Tells whether the certificates lead to one of these roots.
    fn leads_to(&self, roots: &[CertificateDer<'static>], now: SystemTime) -> Result<bool, String> {
        let signer = encoded(&self.signer)?;
        let others = self.others.iter().map(encoded).collect::<Result<Vec<_>, _>>()?;
        let anchors: Vec<TrustAnchor<'_>> =
            roots.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
        let end = EndEntityCert::try_from(&signer)
            .map_err(|error| format!("the certificate of {} cannot be used: {error}", self.signer()))?;
        let found = end.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &others,
            now,
            KeyUsage::required_if_present(CODE_SIGNING),
            None,
            None,
        );
        match found {
            Ok(_) => Ok(true),
            Err(webpki::Error::UnknownIssuer) => Ok(false),
            Err(error) => Err(self.why(&error)),
        }
    }

    fn why(&self, error: &webpki::Error) -> String {
        let signer = self.signer();
        match error {
            webpki::Error::RequiredEkuNotFoundContext(_) => {
                format!("an authority above {signer} may not have code signed")
            }
            webpki::Error::CertExpired { .. } => {
                format!("a certificate of {signer} or above it has expired")
            }
            webpki::Error::CertNotValidYet { .. } => {
                format!("a certificate of {signer} or above it is not valid yet")
            }
            webpki::Error::CaUsedAsEndEntity => {
                format!("{signer} is an authority (CA:TRUE); code is signed by a certificate that is none")
            }
            other => format!("the certificates of {signer} do not hold: {other}"),
        }
    }
}

/// Tells whether a certificate says that it is above itself.
fn is_root(one: &Certificate) -> bool {
    one.tbs_certificate.subject == one.tbs_certificate.issuer
}

/// Tells whether a certificate counts at a time.
fn is_valid_at(one: &Certificate, now: SystemTime) -> bool {
    let validity = &one.tbs_certificate.validity;
    let at = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    validity.not_before.to_unix_duration() <= at && at <= validity.not_after.to_unix_duration()
}

fn encoded(one: &Certificate) -> Result<CertificateDer<'static>, String> {
    one.to_der()
        .map(CertificateDer::from)
        .map_err(|error| format!("{} cannot be written: {error}", name(one)))
}

/// Returns the common name of whom a certificate is about, or all of the name where it has none.
pub(crate) fn name(one: &Certificate) -> String {
    let subject = &one.tbs_certificate.subject;
    let parts = subject.0.iter().flat_map(|set| set.0.iter());
    let common = parts.filter(|part| part.oid == COMMON_NAME).find_map(|part| {
        let text = std::str::from_utf8(part.value.value()).ok()?;
        Some(text.to_owned())
    });
    common.unwrap_or_else(|| subject.to_string())
}

/// A signature of a file.
#[derive(Debug, Clone)]
pub struct CodeSignature {
    chain: Chain,
    signature: Vec<u8>,
}

/// How a signature was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeJudgement {
    /// It is the file's, and whoever made it may sign code.
    Good,
    /// So it is, but no authority that was named says so.
    Foreign,
    /// It is not.
    Bad(String),
}

impl CodeSignature {
    /// Reads one.
    ///
    /// # Errors
    /// It has another form than iPXE takes.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |error: der::Error| format!("it is no CMS signature, or a damaged one: {error}");
        let info = ContentInfo::from_der(bytes).map_err(damaged)?;
        if info.content_type != SIGNED_DATA {
            return Err("it is a CMS message, and not signed data".to_owned());
        }
        let data: SignedData = info.content.decode_as().map_err(damaged)?;
        if data.encap_content_info.econtent.is_some() {
            return Err("it has the file inside; iPXE takes detached signatures".to_owned());
        }
        let mut certificates = Vec::new();
        for choice in data.certificates.iter().flat_map(|set| set.0.iter()) {
            if let CertificateChoices::Certificate(one) = choice {
                certificates.push(one.clone());
            }
        }
        let [signer] = data.signer_infos.0.as_slice() else {
            return Err(format!("it has {} signers instead of one", data.signer_infos.0.len()));
        };
        check_form(signer)?;
        let SignerIdentifier::IssuerAndSerialNumber(sid) = &signer.sid else {
            return Err("it names its signer by a key; iPXE knows issuers and serial numbers".to_owned());
        };
        let is_signer = |one: &Certificate| {
            let inner = &one.tbs_certificate;
            inner.issuer == sid.issuer && inner.serial_number == sid.serial_number
        };
        let Some(index) = certificates.iter().position(is_signer) else {
            return Err("the certificate of its signer is not inside".to_owned());
        };
        let signature = signer.signature.as_bytes().to_vec();
        let own = certificates.remove(index);
        Ok(Self { chain: Chain { signer: own, others: certificates }, signature })
    }

    /// Returns the name of the signer.
    pub fn signer(&self) -> String {
        self.chain.signer()
    }

    /// Tells whether the signer of this chain made it.
    pub fn is_by(&self, chain: &Chain) -> bool {
        self.chain.signer == chain.signer
    }

    /// Judges it: by the SHA-256 of the file that it is of, and by who says that its signer may sign code; without `authorities`, that is
    /// the root inside.
    pub fn judge(
        &self,
        sha256: &[u8; 32],
        authorities: Option<&Authorities>,
        now: SystemTime,
    ) -> CodeJudgement {
        let padding = Pkcs1v15Sign { hash_len: Some(sha256.len()), prefix: SHA256_PREFIX.into() };
        let key = match self.chain.key() {
            Ok(key) => key,
            Err(why) => return CodeJudgement::Bad(why),
        };
        if key.verify(padding, sha256, &self.signature).is_err() {
            return CodeJudgement::Bad(format!("{} signed other bytes", self.signer()));
        }
        if let Err(why) = self.chain.judge(now) {
            return CodeJudgement::Bad(why);
        }
        match authorities.map(|authorities| self.chain.leads_to(&authorities.0, now)) {
            None | Some(Ok(true)) => CodeJudgement::Good,
            // All that it is made of is sound.
            Some(Ok(false) | Err(_)) => CodeJudgement::Foreign,
        }
    }
}

fn check_form(signer: &SignerInfo) -> Result<(), String> {
    if signer.signed_attrs.is_some() {
        return Err("it has signed attributes, which iPXE does not take (openssl cms -noattr)".to_owned());
    }
    if signer.digest_alg.oid != SHA256 {
        return Err("its digest is not SHA-256".to_owned());
    }
    if ![RSA, RSA_WITH_SHA256].contains(&signer.signature_algorithm.oid) {
        return Err("it is not by RSA, which is all that every iPXE takes".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
