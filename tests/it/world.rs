//! What tests share: folders, a store, other programs.

use std::path::Path;
use std::process::Command;

use cache::Store;
use cache::testing::Folder;

/// A folder that goes away, or stays where the test fails, with a store in it.
pub(crate) struct World {
    pub(crate) dir: Folder,
    pub(crate) store: Store,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = Folder::new();
        let store = Store::open(&dir.join("own-store")).unwrap();
        Self { dir, store }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
}

/// Runs a program to its end and returns what it printed; its failure is the test's.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    run_in(Path::new("."), program, args)
}

/// Runs a program in a folder.
pub(crate) fn run_in(folder: &Path, program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `make test` installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {}\n{text}\n{errors}", output.status);
    text
}

/// Unpacks packages of Debian's into a folder, and installs nothing: some set up the machine that they are installed on.
pub(crate) fn unpack_packages(folder: &Path, packages: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    run_in(folder, "apt-get", &[&["-qq", "-o", "APT::Sandbox::User=root", "download"], packages].concat());
    run_in(folder, "sh", &["-ec", "for file in *.deb; do dpkg-deb -x \"$file\" .; done"]);
}

/// Tells whether the tests run as root: some of what a folder may hold only root can make.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
