use std::fs;

use super::*;
use crate::testing::Certificates;

const TYPE: &str = "application/vnd.in-toto+json";

#[test]
fn what_is_signed_is_written_as_the_standard_has_it() {
    // The example of the protocol (DSSE, protocol.md).
    let bytes = signed_bytes("http://example.com/HelloWorld", b"hello world");
    assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn what_is_no_envelope_or_no_key_says_why() {
    for (line, says) in [
        ("", "no envelope"),
        ("{}", "no envelope"),
        (r#"{"payload":"e30=","payloadType":"text/plain","signatures":[]}"#, "text/plain"),
        (
            r#"{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[]}"#,
            "no signature",
        ),
        (
            r#"{"payload":"%","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"x"}]}"#,
            "base64",
        ),
    ] {
        let error = Envelope::parse(line, TYPE).unwrap_err();
        assert!(error.contains(says), "{line}: {error}");
    }
    let made = Certificates::new();
    made.key("x", &["-algorithm", "X25519"]);
    made.run(&["pkey", "-in", "x.key", "-pubout", "-out", "x.pub"]);
    fs::write(made.path("text"), "hello\n").unwrap();
    for (file, says) in [
        ("ca.key", "private key"),
        ("ca.crt", "CERTIFICATE"),
        ("x.pub", "not known here"),
        ("text", "no public key"),
    ] {
        let error = PublicKey::read(&made.path(file)).unwrap_err().to_string();
        assert!(error.contains(says), "{file}: {error}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(PublicKey::read_all(empty.path()).unwrap_err().to_string().contains(".pem"));
}
