use std::fs;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::*;
use crate::testing::{Asks, Certificates};

const PLAIN: [&str; 3] = ["-noattr", "-md", "sha256"];

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn judged(bytes: &[u8], of: &[u8], authorities: Option<&Authorities>) -> Result<CodeJudgement, String> {
    Ok(CodeSignature::parse(bytes)?.judge(&sha256(of), authorities, SystemTime::now()))
}

/// What makes a signature, and what is said of it.
struct Case<'a> {
    asks: Asks<'a>,
    with: &'a [&'a str],
    how: &'a [&'a str],
    says: &'a str,
}

#[test]
fn what_ipxe_would_not_take_is_refused_by_name() {
    let made = Certificates::new();
    fs::write(made.path("file"), b"a kernel").unwrap();
    made.root("other");
    let usual = Asks::default();
    let case = |asks, with, how, says| Case { asks, with, how, says };
    let rows = [
        case(usual, &["ca.crt"][..], &PLAIN[..], ""),
        case(usual, &["ca.crt"], &["-md", "sha256"], "signed attributes"),
        case(usual, &["ca.crt"], &["-noattr", "-md", "sha512"], "not SHA-256"),
        case(usual, &["ca.crt"], &["-noattr", "-md", "sha256", "-nodetach"], "the file inside"),
        case(usual, &["ca.crt"], &["-noattr", "-md", "sha256", "-nocerts"], "is not inside"),
        case(usual, &["ca.crt"], &["-noattr", "-md", "sha256", "-keyid"], "names its signer by a key"),
        case(
            usual,
            &["ca.crt"],
            &["-noattr", "-md", "sha256", "-keyopt", "rsa_padding_mode:pss"],
            "not by RSA",
        ),
        case(usual, &[], &PLAIN, "the root above"),
        case(usual, &["other.crt"], &PLAIN, "do not lead from"),
        case(
            Asks { extensions: "keyUsage = digitalSignature\n", ..usual },
            &["ca.crt"],
            &PLAIN,
            "codeSigning",
        ),
        case(
            Asks { extensions: "keyUsage = digitalSignature\nextendedKeyUsage = serverAuth\n", ..usual },
            &["ca.crt"],
            &PLAIN,
            "codeSigning",
        ),
        case(
            Asks { extensions: "extendedKeyUsage = codeSigning\n", ..usual },
            &["ca.crt"],
            &PLAIN,
            "lacks keyUsage = digitalSignature",
        ),
        case(
            Asks { key: &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], ..usual },
            &["ca.crt"],
            &PLAIN,
            "it has 1024",
        ),
        case(
            Asks {
                extensions: "basicConstraints = CA:TRUE\nkeyUsage = digitalSignature\nextendedKeyUsage = codeSigning\n",
                ..usual
            },
            &["ca.crt"],
            &PLAIN,
            "is an authority",
        ),
        case(
            Asks { key: &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ..usual },
            &["ca.crt"],
            &PLAIN,
            "not by RSA",
        ),
    ];
    for (index, Case { asks, with, how, says }) in rows.into_iter().enumerate() {
        let name = format!("signer{index}");
        made.signer(&name, "ca", asks);
        let signature = made.sign(&name, "file", with, how);
        let found = match judged(&signature, b"a kernel", None) {
            Ok(CodeJudgement::Bad(why)) | Err(why) => why,
            Ok(CodeJudgement::Good) => String::new(),
            Ok(CodeJudgement::Foreign) => "foreign".to_owned(),
        };
        assert!(found.contains(says) && found.is_empty() == says.is_empty(), "{index} {how:?}: {found}");
    }
}

#[test]
fn other_bytes_other_authorities_and_other_times_are_told() {
    let made = Certificates::new();
    fs::write(made.path("file"), b"a kernel").unwrap();
    made.signer("signer", "ca", Asks::default());
    made.root("other");
    let signature = made.sign("signer", "file", &["ca.crt"], &PLAIN);
    let authorities = |name: &str| Authorities::read(&[made.path(name)]).unwrap();
    let judge = |authority: &str| judged(&signature, b"a kernel", Some(&authorities(authority))).unwrap();
    assert_eq!(judge("ca.crt"), CodeJudgement::Good);
    assert_eq!(judge("other.crt"), CodeJudgement::Foreign);
    let other = judged(&signature, b"a kernel!", None).unwrap();
    assert!(matches!(other, CodeJudgement::Bad(why) if why.contains("signer signed other bytes")));

    let parsed = CodeSignature::parse(&signature).unwrap();
    assert_eq!(parsed.signer(), "signer");
    let day = Duration::from_secs(24 * 3600);
    for (now, says) in [
        (SystemTime::now() + day * 31, "has expired"),
        (SystemTime::now() + day * 61, "the root ca has expired"),
        (SystemTime::now() - day, "not valid yet"),
    ] {
        let found = parsed.judge(&sha256(b"a kernel"), None, now);
        assert!(matches!(&found, CodeJudgement::Bad(why) if why.contains(says)), "{found:?}");
    }

    // Cut off anywhere, or with one bit altered anywhere, it is none, or not good. Bits of what nothing is said by may change: how
    // certificates that are not on the way are written.
    for length in 0..signature.len() {
        assert!(CodeSignature::parse(&signature[..length]).is_err(), "{length}");
    }
    for at in 0..signature.len() {
        let mut altered = signature.clone();
        altered[at] ^= 0x10;
        let found = judged(&altered, b"a kernel", Some(&authorities("ca.crt")));
        let same =
            CodeSignature::parse(&altered).is_ok_and(|found| found.chain.signer == parsed.chain.signer);
        assert!(found != Ok(CodeJudgement::Good) || same, "{at}");
    }
    assert!(CodeSignature::parse(&[&signature[..], b"x"].concat()).is_err());
}

#[test]
fn a_certificate_that_is_its_own_root_signs_as_well() {
    let made = Certificates::new();
    fs::write(made.path("file"), b"a kernel").unwrap();
    made.key("alone", crate::testing::RSA);
    let args = [
        "req",
        "-x509",
        "-new",
        "-key",
        "alone.key",
        "-subj",
        "/CN=alone",
        "-days",
        "9",
        "-out",
        "alone.crt",
    ];
    let more = [
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "extendedKeyUsage=codeSigning,serverAuth",
        "-addext",
        "keyUsage=digitalSignature",
    ];
    made.run(&[&args[..], &more[..]].concat());
    let signature = made.sign("alone", "file", &[], &PLAIN);
    assert_eq!(judged(&signature, b"a kernel", None), Ok(CodeJudgement::Good));
}
