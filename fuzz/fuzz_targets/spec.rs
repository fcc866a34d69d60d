//! Specs: read, checked and made into a graph.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    use stagegraph::spec::{Finder, Overrides, Spec};
    let path = std::env::temp_dir().join(format!("stagegraph-fuzz-{}.toml", std::process::id()));
    if std::fs::write(&path, bytes).is_ok() {
        let _ = Spec::load(&Finder::default(), &path.to_string_lossy(), &Overrides::default()).map(drop);
    }
});
