//! Locks: what is read and written down reads the same again.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use stagegraph::config::{Lock, Source};

fuzz_target!(|text: &str| {
    let read =
        |text: &str| Lock::read(&Arc::new(Source { name: "fuzzed".to_owned(), text: text.to_owned() }));
    let Ok(lock) = read(text) else { return };
    let written = lock.render();
    let again = read(&written).unwrap_or_else(|errors| panic!("{errors}\n{written}"));
    assert_eq!(again.render(), written);
});
