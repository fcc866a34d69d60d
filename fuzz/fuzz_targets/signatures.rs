//! Signatures that other people made: clear-signed texts, detached ones, CMS, envelopes; keys.
#![no_main]

use std::sync::OnceLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use trust::cms::CodeSignature;
use trust::dsse::{Envelope, PublicKey};
use trust::openpgp::{self, Keyring};

/// The keys that seeds are signed with (`seeds.sh` writes them); without them, every signature is somebody else's.
fn keyring() -> &'static Option<Keyring> {
    static KEYRING: OnceLock<Option<Keyring>> = OnceLock::new();
    KEYRING.get_or_init(|| {
        let path = std::env::var_os("STAGEGRAPH_FUZZ_KEYRING")?;
        Keyring::of_bytes(&std::fs::read(path).ok()?).ok()
    })
}

fuzz_target!(|data: &[u8]| {
    if let Ok(signature) = CodeSignature::parse(data) {
        let _ = signature.signer();
        let _ = signature.judge(&[0; 32], None, SystemTime::now());
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(envelope) = Envelope::parse(text, "application/vnd.in-toto+json")
    {
        let _ = envelope.payload();
    }
    let _ = PublicKey::of_bytes("x", data);
    let _ = openpgp::claims(data);
    let _ = openpgp::is_detached(data);
    let _ = Keyring::of_bytes(data);
    if let Some(keyring) = keyring() {
        let (covered, verdicts) = keyring.clear(data);
        // Nothing is covered that nobody signed.
        assert!(covered.is_empty() || !verdicts.is_empty());
        let _ = keyring.detached(data, &b"signed"[..]);
    }
});
