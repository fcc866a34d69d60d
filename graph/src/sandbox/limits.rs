//! What a tool may use of the machine.

use rustix::process::{Resource, Rlimit, setrlimit};

/// What a tool may use, and what a step may unpack. Each process of a tool has these limits, but for the number of processes,
/// which all of them share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processes and threads at once.
    pub processes: u64,
    /// Bytes of memory of a process that are its own: what `RLIMIT_DATA` counts.
    pub memory: u64,
    /// Bytes of a file that it writes.
    pub file: u64,
    /// Bytes that an archive from outside may unpack to, where that is said; see [`Limits::unpacked`].
    pub unpacked: Option<u64>,
}

/// How many times its own size an archive may unpack to where nothing is said, and what any may: roots pack to a tenth at best.
const TIMES: u64 = 64;
const ANY: u64 = 1 << 30;

/// Bytes of a file where nothing else is said: more than any image, and less than most disks.
const FILE: u64 = 256 << 30;

/// Processes where nothing else is said.
const PROCESSES: u64 = 8192;

impl Default for Limits {
    /// As much memory as the machine has, 8192 processes, and files of 256 GiB.
    fn default() -> Self {
        let info = rustix::system::sysinfo();
        let memory = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit.max(1)));
        Self { processes: PROCESSES, memory: memory.max(1 << 30), file: FILE, unpacked: None }
    }
}

impl Limits {
    /// Returns how many bytes an archive of `packed` bytes may unpack to.
    pub fn unpacked(&self, packed: u64) -> u64 {
        self.unpacked.unwrap_or_else(|| packed.saturating_mul(TIMES).max(ANY))
    }

    /// Sets them for this process and all that come of it. `others` are the processes of the same user that count as well. Makes
    /// system calls alone.
    pub(super) fn set(&self, others: u64) -> rustix::io::Result<()> {
        let set = |resource, limit: u64| {
            // What is lower already stays so.
            let hard = rustix::process::getrlimit(resource).maximum;
            let limit = Some(hard.map_or(limit, |hard| hard.min(limit)));
            setrlimit(resource, Rlimit { current: limit, maximum: limit })
        };
        set(Resource::Core, 0)?;
        set(Resource::Data, self.memory)?;
        set(Resource::Fsize, self.file)?;
        set(Resource::Nproc, self.processes.saturating_add(others))
    }
}

/// Counts the threads of this user's: without a user namespace of one's own, they count too.
pub(super) fn threads_of_user() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let uid = rustix::process::getuid().as_raw();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    let threads = own.filter_map(|entry| {
        let found = std::fs::metadata(entry.path().join("task")).ok()?;
        (found.uid() == uid).then(|| found.nlink().saturating_sub(2))
    });
    threads.sum()
}
