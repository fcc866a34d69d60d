//! Real servers: buildbox-casd and BuildGrid, which `packaging/servers.sh` fetches.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cache::testing::Folder;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(60);

/// Returns where the servers are: `STAGEGRAPH_TEST_SERVERS`, or `servers` in the folder that cargo builds in.
fn servers() -> PathBuf {
    let target = || {
        let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        set.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).join("servers")
    };
    let folder = std::env::var_os("STAGEGRAPH_TEST_SERVERS").map_or_else(target, PathBuf::from);
    assert!(folder.join("buildbox-casd").exists(), "{folder:?} has no servers; run `make packages-test`");
    folder.canonicalize().unwrap()
}

/// Returns a port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn wait_for(port: u16, child: &mut Child, log: &Path) {
    let until = Instant::now() + START;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let ended = child.try_wait().unwrap();
        assert!(
            ended.is_none() && Instant::now() < until,
            "the server did not start ({ended:?}): {}",
            fs::read_to_string(log).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// buildbox-casd: content store, action cache and execution, on loopback.
#[derive(Debug)]
pub struct Casd {
    child: Child,
    port: u16,
    folder: Folder,
    runner: PathBuf,
    /// The folder of the script, which goes with the server.
    script: Option<Folder>,
}

impl Casd {
    /// Starts one with an empty cache.
    pub fn start() -> Self {
        Self::start_with(servers().join("buildbox-run"))
    }

    /// Starts one whose workers are another program than buildbox-run: made by `script`, which is given the path of that.
    pub fn start_scripted(script: impl FnOnce(&Path) -> String) -> Self {
        let place = Folder::new();
        let runner = place.join("runner");
        fs::write(&runner, script(&servers().join("buildbox-run"))).unwrap();
        fs::set_permissions(&runner, fs::Permissions::from_mode(0o755)).unwrap();
        let mut casd = Self::start_with(runner);
        casd.script = Some(place);
        casd
    }

    fn start_with(runner: PathBuf) -> Self {
        let folder = Folder::new();
        let port = free_port();
        let mut child = Self::run(port, folder.path(), &runner);
        wait_for(port, &mut child, &folder.join("log"));
        Self { child, port, folder, runner, script: None }
    }

    fn run(port: u16, folder: &Path, runner: &Path) -> Child {
        let servers = servers();
        let log = fs::File::create(folder.join("log")).unwrap();
        Command::new(servers.join("buildbox-casd"))
            .arg(format!("--bind=127.0.0.1:{port}"))
            .arg(format!("--buildbox-run={}", runner.display()))
            // Failures are kept unless this is said.
            .args(["--jobs=2", "--cache-failures=false", "--quota-high=4G"])
            .arg(folder.join("cache"))
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Returns its address.
    pub fn address(&self) -> String {
        format!("grpc://127.0.0.1:{}", self.port)
    }

    /// Returns the files of its content store.
    pub fn blobs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut left = vec![self.folder.join("cache/cas/objects")];
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(&folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() { left.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    /// Ends it, and starts it again over what it has.
    pub fn restart(&mut self) {
        self.stop();
        self.child = Self::run(self.port, self.folder.path(), &self.runner);
        wait_for(self.port, &mut self.child, &self.folder.join("log"));
    }

    /// Ends it.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Casd {
    fn drop(&mut self) {
        drop(self.script.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// BuildGrid as a cache: with TLS, client certificates and bearer tokens, instance `live/media`.
#[derive(Debug)]
pub struct BuildGrid {
    child: Child,
    port: u16,
    folder: Folder,
}

const OPENSSL: &str = "set -e
openssl req -x509 -newkey ed25519 -nodes -subj /CN=authority -keyout ca.key -out ca.pem -days 2 2>/dev/null
for who in server client; do
	openssl req -newkey rsa:2048 -nodes -subj /CN=$who -keyout $who.key -out $who.csr 2>/dev/null
	echo 'subjectAltName = DNS:localhost, IP:127.0.0.1' > $who.ext
	openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile $who.ext -out $who.pem -days 2 2>/dev/null
done
chmod 600 *.key";

impl BuildGrid {
    /// Starts one with an empty cache, and makes certificates and a token for it.
    pub fn start() -> Self {
        let servers = servers();
        let folder = Folder::new();
        let port = free_port();
        let made = Command::new("sh").args(["-c", OPENSSL]).current_dir(folder.path()).status().unwrap();
        assert!(made.success(), "openssl could not make certificates");
        let python = servers.join("buildgrid/bin/python");
        let token = "import jwt, sys, time\nprint(jwt.encode({'sub': 'test', 'exp': int(time.time()) + 3600}, sys.argv[1], 'HS256'))";
        let secret = "a secret of the test, which is long enough";
        let token = Command::new(&python).args(["-c", token, secret]).output().unwrap();
        assert!(token.status.success(), "{token:?}");
        fs::write(folder.join("token"), token.stdout).unwrap();
        fs::write(folder.join("secret"), secret).unwrap();
        let top = folder.path().display();
        let config = format!(
            "server:\n  - !channel\n    address: \"127.0.0.1:{port}\"\n    insecure-mode: false\n    credentials:\n\
             \x20     tls-server-key: {top}/server.key\n      tls-server-cert: {top}/server.pem\n      tls-client-certs: {top}/ca.pem\n\
             authorization:\n  method: jwt\n  secret: {top}/secret\n  algorithm: hs256\n\
             thread-pool-size: 20\n\
             storages:\n  - !disk-storage &disk\n    path: {top}/cas\n\
             caches:\n  - !lru-action-cache &results\n    storage: *disk\n    max-cached-refs: 1000\n    allow-updates: true\n\
             instances:\n  - name: live/media\n    services:\n      - !action-cache\n        cache: *results\n      - !cas\n        storage: *disk\n\
             \x20     - !bytestream\n        storage: *disk\n"
        );
        fs::write(folder.join("config.yml"), config).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut child = Command::new(servers.join("buildgrid/bin/bgd"))
            .args(["server", "start"])
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        wait_for(port, &mut child, &folder.join("log"));
        Self { child, port, folder }
    }

    /// Returns its address.
    pub fn address(&self) -> String {
        format!("grpcs://localhost:{}/live/media", self.port)
    }

    /// Returns a file that was made for it: `ca.pem`, `client.pem`, `client.key` or `token`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for BuildGrid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
