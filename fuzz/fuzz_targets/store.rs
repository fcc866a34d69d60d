//! Files of the store: trees, slices, results.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = cache::Tree::decode(bytes).map(|tree| tree.encode());
    let _ = cache::source::Slices::decode(bytes).map(|slices| slices.encode());
    let _ = serde_json::from_slice::<cache::ActionResult>(bytes).map(drop);
});
