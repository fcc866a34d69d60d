//! What comes from elsewhere: statements, and the blocks of a shard. What is read and written down reads the same again.
#![no_main]

use cache::statement::Statement;
use libfuzzer_sys::fuzz_target;
use stagegraph::squashfs::answer_shard;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(statement) = Statement::decode(bytes) {
        let written = statement.encode().expect("what was read can be written down");
        assert_eq!(Statement::decode(&written).expect("what was written can be read"), statement);
    }
    let _ = answer_shard(bytes);
});
