//! catalyst's specs: what is read, and written for catalyst, reads the same again.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use stagegraph::catalyst::{Configuration, read_spec, read_values, render};
use stagegraph::config::Source;

fuzz_target!(|text: &str| {
    let fill =
        ["TIMESTAMP", "TREEISH", "REPO_DIR"].map(|name| (name.to_owned(), "20250101T000000Z".to_owned()));
    let fill = BTreeMap::from(fill);
    let read = |text: &str| {
        let source = Arc::new(Source { name: "fuzzed".to_owned(), text: text.to_owned() });
        let item = read_spec(&source, &fill, &Configuration::default()).ok()?.item;
        let node = item.get("node")?;
        let values = node.get("stage2").or(node.get("stage1"))?.get("values")?.clone();
        read_values(&values, &|text| text.to_owned()).ok()
    };
    let Some(values) = read(text) else { return };
    let Ok(text) = render(&values) else { return };
    assert_eq!(read(&text), Some(values), "{text}");
});
