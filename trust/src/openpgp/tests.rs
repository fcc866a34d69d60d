use std::fs;

use super::*;
use crate::testing::Gpg;

fn keys_of(gpg: &Gpg, keys: &[&str]) -> Keyring {
    Keyring { certs: Keyring::keys(&gpg.export(keys)).unwrap() }
}

fn detached(gpg: &Gpg, key: &str, more: &[&str]) -> Vec<u8> {
    gpg.detached(key, more, TEXT)
}

/// Bytes of an armor's last two lines: a checksum that need not be there, and the end.
const FOOTER: usize = 42;

const TEXT: &[u8] = b"abc  file\n";

fn judged(keyring: &Keyring, signature: &[u8], signed: &[u8]) -> Vec<Judgement> {
    keyring.detached(signature, signed).unwrap().into_iter().map(|verdict| verdict.judgement).collect()
}

fn is_good(judgements: &[Judgement]) -> bool {
    !judgements.is_empty() && judgements.iter().all(|judgement| matches!(judgement, Judgement::Good(_)))
}

fn why(judgements: &[Judgement]) -> String {
    match judgements {
        [Judgement::Bad(why)] => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_gpg_signs_is_verified_and_every_kind_of_bad_signature_refused() {
    let gpg = Gpg::new();
    let rsa = gpg.key("rsa <rsa@example.org>", "rsa2048", &[]);
    let edwards = gpg.key("ed <ed@example.org>", "ed25519", &[]);
    let foreign = gpg.key("foreign <foreign@example.org>", "ed25519", &[]);
    let keyring = keys_of(&gpg, &[&rsa, &edwards]);

    for key in [&rsa, &edwards] {
        for armor in [&["--armor"][..], &[]] {
            let signature = detached(&gpg, key, armor);
            assert!(is_detached(&signature));
            let found = keyring.detached(&signature, TEXT).unwrap();
            assert_eq!(found[0].claim.key.as_deref(), Some(&key[..]));
            let Judgement::Good(signer) = &found[0].judgement else { panic!("{found:?}") };
            assert_eq!((&signer.fingerprint, &signer.since), (key, &None));
            assert!(signer.name.as_deref().is_some_and(|name| name.ends_with("@example.org>")));
            assert_eq!(claims(&signature).unwrap(), [found[0].claim.clone()]);
            // Other bytes, and a signature that is cut off anywhere.
            assert!(!is_good(&judged(&keyring, &signature, b"abd  file\n")));
            assert!(!is_good(&judged(&keyring, &signature, b"")));
            // What only says that it is over may be missing.
            let told = signature.len() - if armor.is_empty() { 0 } else { FOOTER };
            for length in (0..told).step_by(7) {
                assert!(!is_good(&judged(&keyring, &signature[..length], TEXT)), "{length}");
            }
        }
    }
    assert_eq!(judged(&keyring, &detached(&gpg, &foreign, &[]), TEXT), [Judgement::Foreign]);
    let two = [detached(&gpg, &rsa, &[]), detached(&gpg, &foreign, &[])].concat();
    assert_eq!(judged(&keyring, &two, TEXT).len(), 2, "both are judged");
    assert!(why(&judged(&keyring, &detached(&gpg, &rsa, &["--digest-algo", "SHA1"]), TEXT)).contains("SHA1"));
    assert!(judged(&keyring, b"no signature", TEXT).iter().all(|found| matches!(found, Judgement::Bad(_))));
    // Somebody else's key under the same user id.
    let other = Gpg::new();
    let same = other.key("rsa <rsa@example.org>", "rsa2048", &[]);
    assert_eq!(judged(&keyring, &detached(&other, &same, &[]), TEXT), [Judgement::Foreign]);
}

#[test]
fn times_count_expired_signatures_keys_and_those_from_the_future() {
    let gpg = Gpg::new();
    let old = ["--faked-system-time", "20200101T000000!"];
    let key = gpg.key("old <old@example.org>", "ed25519", &["never", old[0], old[1]]);
    let keyring = keys_of(&gpg, &[&key]);
    let expired = detached(&gpg, &key, &[old[0], old[1], "--default-sig-expire", "1d"]);
    assert!(why(&judged(&keyring, &expired, TEXT)).contains("xpired"));
    let future = detached(&gpg, &key, &["--faked-system-time", "20800101T000000!"]);
    assert!(!is_good(&judged(&keyring, &future, TEXT)));
    assert!(is_good(&judged(&keyring, &detached(&gpg, &key, &old), TEXT)));

    // A key that expired after it had signed: its signature is good, and that is said.
    let short = gpg.key("short <short@example.org>", "ed25519", &["1d", old[0], old[1]]);
    let found = keys_of(&gpg, &[&short]).detached(&detached(&gpg, &short, &old), TEXT).unwrap();
    let Judgement::Good(signer) = &found[0].judgement else { panic!("{found:?}") };
    assert!(signer.since.as_deref().is_some_and(|since| since.starts_with("expired")), "{signer:?}");
}

#[test]
fn a_revoked_key_signs_nothing() {
    let gpg = Gpg::new();
    let key = gpg.key("revoked <revoked@example.org>", "ed25519", &[]);
    let signature = detached(&gpg, &key, &[]);
    assert!(is_good(&judged(&keys_of(&gpg, &[&key]), &signature, TEXT)));
    let certificate = gpg.home().join(format!("openpgp-revocs.d/{key}.rev"));
    let certificate = fs::read_to_string(certificate).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run(&["--import"], certificate.as_bytes());
    assert!(why(&judged(&keys_of(&gpg, &[&key]), &signature, TEXT)).contains("revoked"));
}

#[test]
fn of_a_clear_signed_text_only_what_is_covered_is_handed_on() {
    let gpg = Gpg::new();
    let key = gpg.key("clear <clear@example.org>", "ed25519", &[]);
    let keyring = keys_of(&gpg, &[&key]);
    let text = b"# SHA512 HASH\nabc  file\n- dashed\n-----BEGIN nothing\n";
    let signed = gpg.clear(&key, text);
    assert!(is_clear_signed(&signed));
    assert_eq!(claims(&signed).unwrap()[0].key.as_deref(), Some(&key[..]));
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    let (covered, verdicts) = keyring.clear(&signed);
    assert!(matches!(&verdicts[..], [Verdict { judgement: Judgement::Good(_), .. }]), "{verdicts:?}");
    assert_eq!(lines(&covered), lines(text));
    // In front and behind: not covered, not handed on.
    for around in [[b"evil  file\n", &signed[..]].concat(), [&signed[..], b"evil  file\n"].concat()] {
        let (covered, _) = keyring.clear(&around);
        assert!(!String::from_utf8_lossy(&covered).contains("evil"));
    }
    let crlf = String::from_utf8(signed.clone()).unwrap().replace('\n', "\r\n");
    assert!(
        keyring.clear(crlf.as_bytes()).1.iter().all(|found| matches!(found.judgement, Judgement::Good(_)))
    );
    let changed = String::from_utf8(signed.clone()).unwrap().replace("abc", "abd");
    assert!(
        keyring.clear(changed.as_bytes()).1.iter().all(|found| matches!(found.judgement, Judgement::Bad(_)))
    );
    for length in (0..signed.len() - FOOTER).step_by(11) {
        let (_, verdicts) = keyring.clear(&signed[..length]);
        assert!(!verdicts.is_empty());
        assert!(verdicts.iter().any(|found| !matches!(found.judgement, Judgement::Good(_))), "{length}");
    }
}

#[test]
fn keyrings_are_armored_or_binary_one_key_or_many() {
    let gpg = Gpg::new();
    let keys = ["one <one@example.org>", "two <two@example.org>"].map(|name| gpg.key(name, "ed25519", &[]));
    let armored = keys.each_ref().map(|key| gpg.run(&["--armor", "--export", key], b""));
    let forms = [
        gpg.run(&["--export"], b""),
        gpg.run(&["--armor", "--export"], b""),
        armored.concat(),
        [&armored[0][..], b"\n\nA comment.\n", &armored[1]].concat(),
    ];
    for form in forms {
        let keyring = Keyring { certs: Keyring::keys(&form).unwrap() };
        assert_eq!(keyring.fingerprints().collect::<Vec<_>>(), keys);
    }
    assert!(Keyring::keys(b"").unwrap_err().contains("empty"));
    assert!(Keyring::keys(b"hello").is_err());
    assert!(Keyring::keys(&detached(&gpg, &keys[0], &[])).is_err(), "a signature is no key");
    let box_file = fs::read(gpg.home().join("pubring.kbx")).unwrap();
    assert!(Keyring::keys(&box_file).unwrap_err().contains("--export"));
    let missing = Keyring::read(&["/nonexistent/keys".into()]).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/keys"));
}
