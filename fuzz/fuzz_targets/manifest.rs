//! Manifests and lists of checksums, as the audit takes them in: beside a sound ISO.
//!
//! STAGEGRAPH_FUZZ_ISO names the ISO; `fuzz/run.sh` makes one.
#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use stagegraph::audit::{Place, Set, Trusted, audit};

fuzz_target!(|bytes: &[u8]| {
    let iso = PathBuf::from(std::env::var_os("STAGEGRAPH_FUZZ_ISO").expect("set by fuzz/run.sh"));
    let path = std::env::temp_dir().join(format!("stagegraph-fuzz-{}.json", std::process::id()));
    std::fs::write(&path, bytes).expect("a temporary file");
    let files =
        BTreeMap::from([("x.iso.manifest.json".to_owned(), path.clone()), ("DIGESTS".to_owned(), path)]);
    let set = Set::given("fuzzed", files);
    if let Ok(report) = audit("x.iso", &Place::Local(iso), set, &Trusted::default()) {
        let _ = report.text(80);
    }
});
