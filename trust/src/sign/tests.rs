use std::fs;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::*;
use crate::cms::{CodeJudgement, CodeSignature};
use crate::testing::{Asks, Certificates};

const TYPE: &str = "application/vnd.in-toto+json";

fn judged(signature: &[u8]) -> Result<CodeJudgement, String> {
    let hash = Sha256::digest(b"a kernel").into();
    Ok(CodeSignature::parse(signature)?.judge(&hash, None, SystemTime::now()))
}

#[test]
fn openssl_signs_and_what_cannot_sign_says_why() {
    let made = Certificates::new();
    fs::write(made.path("file"), b"a kernel").unwrap();
    made.signer("signer", "ca", Asks::default());
    let openssl = |crt: &str, above: &[&str], key: &str| {
        let above: Vec<_> = above.iter().map(|name| made.path(name)).collect();
        let key = PrivateKey::new(made.path(key).to_str().unwrap(), None).unwrap();
        Openssl::new(made.path(crt), &above, key)
    };
    let signs = openssl("signer.crt", &["ca.crt"], "signer.key").unwrap();
    let signature = signs.sign(&made.path("file")).unwrap();
    assert_eq!(judged(&signature), Ok(CodeJudgement::Good));
    assert_eq!(signs.sign(&made.path("file")).unwrap(), signature, "no date is in it");
    // What is signed is what iPXE's own documentation has openssl do.
    fs::write(made.path("file.sig"), &signature).unwrap();
    let verify =
        ["cms", "-verify", "-binary", "-inform", "DER", "-in", "file.sig", "-content", "file", "-out", "out"];
    made.run(&[&verify[..], &["-CAfile", "ca.crt", "-purpose", "any"]].concat());

    let fails = |crt: &str, above: &[&str], key: &str, says: &str| {
        let error = openssl(crt, above, key).and_then(|signs| signs.sign(&made.path("file"))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(says), "{text}");
        error
    };
    fails("signer.crt", &[], "signer.key", "the root above signer is not among the certificates");
    fails("none.crt", &[], "signer.key", "read the certificates of");
    fails("file", &[], "signer.key", "has no certificate");
    fails("signer.crt", &["ca.crt"], "none.key", "cannot be found");
    // openssl says that the key is another one's, in its own words.
    assert!(matches!(
        fails("signer.crt", &["ca.crt"], "ca.key", "openssl did not sign"),
        SignError::Refused { .. }
    ));
    made.signer(
        "elliptic",
        "ca",
        Asks { key: &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ..Asks::default() },
    );
    fails("elliptic.crt", &["ca.crt"], "elliptic.key", "the key of elliptic is not RSA");
    made.signer(
        "server",
        "ca",
        Asks {
            extensions: "keyUsage = digitalSignature\nextendedKeyUsage = serverAuth\n",
            ..Asks::default()
        },
    );
    fails("server.crt", &["ca.crt"], "server.key", "server may not sign code");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(made.path("signer.key"), open).unwrap();
    fails("signer.crt", &["ca.crt"], "signer.key", "chmod 600");
}

fn base64(bytes: &[u8]) -> String {
    base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)
}

#[test]
fn every_kind_of_key_signs_and_nothing_else_counts() {
    let made = Certificates::new();
    let kinds: [(&str, &[&str]); 4] = [
        ("ed", &["-algorithm", "ED25519"]),
        ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("rsa", crate::testing::RSA),
    ];
    let payload = br#"{"a":1}"#;
    for (name, kind) in kinds {
        made.key(name, kind);
        let key = PrivateKey::new(made.path(&format!("{name}.key")).to_str().unwrap(), None).unwrap();
        let signer = BuilderKey::new(key, name).unwrap();
        let envelope = signer.sign(TYPE, payload).unwrap();
        let line = serde_json::to_string(&envelope).unwrap();
        let read = Envelope::parse(&line, TYPE).unwrap();
        assert_eq!((read.payload().unwrap(), &read), (payload.to_vec(), &envelope));
        let public = format!("{name}.pem");
        made.run(&["pkey", "-in", &format!("{name}.key"), "-pubout", "-out", &public]);
        let public = PublicKey::read(&made.path(&public)).unwrap();
        assert_eq!((public.id(), public.name()), (signer.public().id(), name));
        assert!(read.is_by(&public), "{name}");
        let other = Envelope::parse(&line.replacen(&base64(payload), &base64(b"{}"), 1), TYPE).unwrap();
        assert!(!other.is_by(&public), "{name}");
    }
    let keys = PublicKey::read_all(made.path("ed.pem").parent().unwrap()).unwrap();
    assert_eq!(keys.iter().map(PublicKey::name).collect::<Vec<_>>(), ["ed", "p256", "p384", "rsa"]);
}

#[test]
fn a_key_that_is_not_there_or_would_be_seen_is_refused() {
    let made = Certificates::new();
    let key = PrivateKey::new(made.path("none.key").to_str().unwrap(), None).unwrap();
    assert!(BuilderKey::new(key, "none").unwrap_err().to_string().contains("cannot be found"));
    for (text, from) in [("pkcs11:object=o;pin-value=1", None), ("a.key", Some("pass:secret"))] {
        assert!(PrivateKey::new(text, from).is_err(), "{text}");
    }
}
