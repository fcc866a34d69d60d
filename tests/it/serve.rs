//! What `serve` gives to clients that people have: curl, tftp-hpa, atftp, libnfs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cache::testing::{Folder, Need, needs};

use crate::live::Live;
use crate::world::run;

/// A server, while the test lasts.
struct Server {
    child: Child,
    /// What it said first.
    said: String,
    url: String,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("from iPXE") {
            // What is said of an ISO that is extracted comes first.
            said.push_str(&lines.next().expect("the server starts").unwrap());
            said.push('\n');
        }
        let url =
            said.lines().find_map(|line| line.strip_prefix("serving at ")).unwrap().trim_end_matches('/');
        Self { child, url: url.to_owned(), said }
    }

    /// Asks with curl; returns the head of the answer and its body.
    fn get(&self, path: &str, more: &[&str]) -> (String, Vec<u8>) {
        let url = format!("{}{path}", self.url);
        let output = Command::new("curl")
            .args(["-s", "-i", "--path-as-is", "--max-time", "20"])
            .args(more)
            .arg(url)
            .output()
            .unwrap();
        let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{path}: {output:?}"));
        let head = String::from_utf8(output.stdout[..end].to_vec()).unwrap();
        (head, output.stdout[end + 4..].to_vec())
    }

    fn status(&self, path: &str, more: &[&str]) -> String {
        self.get(path, more).0.split(' ').nth(1).unwrap().to_owned()
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.get(path, &[]).1).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves what a small spec published.
fn published() -> (Live, Server) {
    let live = Live::new();
    let built = live.stagegraph(&["build", &live.spec(), "--store", "store", "--out", "out"]);
    assert_eq!(built.status.code(), Some(0), "{built:?}");
    let server = Server::start(live.command_of(
        Path::new(env!("CARGO_BIN_EXE_stagegraph")),
        &["serve", "tiny", "--out", "out", "--on", "lo", "--http", "0"],
    ));
    (live, server)
}

#[test]
fn curl_gets_what_was_published_whole_and_in_parts() {
    let (live, server) = published();
    assert!(
        server.said.contains("/tiny/boot.ipxe") && server.said.contains("netboot-http"),
        "{}",
        server.said
    );
    let set: serde_json::Value = serde_json::from_str(&server.text("/api/sets")).unwrap();
    let id = set[0]["id"].as_str().unwrap();
    let mut files = 0;
    for file in set[0]["files"].as_array().unwrap() {
        let path = file["path"].as_str().unwrap();
        let bytes = fs::read(live.world.path("out/tiny").join(path)).unwrap();
        for address in [format!("/tiny/{path}"), format!("/tiny/@{id}/{path}")] {
            let (head, body) = server.get(&address, &[]);
            assert!(head.starts_with("HTTP/1.1 200 OK") && body == bytes, "{address}: {head}");
            let digest = format!("etag: \"b3-{}\"", cache::BlobDigest::of(&bytes));
            assert!(head.contains(&digest), "{address}: {head}");
            assert_eq!(head.contains("immutable"), address.contains('@'), "{head}");
        }
        files += 1;
    }
    assert!(files > 8, "{set}");
    let path = format!("/tiny/@{id}/netboot/image.squashfs");
    let bytes = fs::read(live.world.path("out/tiny/netboot/image.squashfs")).unwrap();
    let (head, part) = server.get(&path, &["-r", "100-199"]);
    assert!(head.starts_with("HTTP/1.1 206") && part == bytes[100..200], "{head}");
    assert!(head.contains(&format!("content-range: bytes 100-199/{}", bytes.len())), "{head}");
    assert_eq!(server.get(&path, &["-r", "-10"]).1, bytes[bytes.len() - 10..]);
    assert_eq!(server.status(&path, &["-r", "999999999-"]), "416");
    let (head, body) = server.get(&path, &["-I"]);
    assert!(head.contains(&format!("content-length: {}", bytes.len())) && body.is_empty(), "{head}");
    let tag = format!("If-None-Match: \"b3-{}\"", cache::BlobDigest::of(&bytes));
    assert_eq!(server.status(&path, &["-H", &tag]), "304");
    assert_eq!(server.status(&path, &["-X", "POST", "-d", "x"]), "405");
    assert_eq!(server.status(&path, &["-X", "DELETE"]), "405");
}

#[test]
fn what_is_built_is_served_as_soon_as_it_is_published() {
    let live = Live::new();
    let serve = |live: &Live| {
        let mut command = live.command_of(
            Path::new(env!("CARGO_BIN_EXE_stagegraph")),
            &[
                "serve",
                &live.spec(),
                "--build",
                "--out",
                "out",
                "--store",
                "store",
                "--on",
                "lo",
                "--http",
                "0",
            ],
        );
        command.stderr(Stdio::piped());
        command
    };
    let server = Server::start(serve(&live));
    let works =
        |server: &Server| -> serde_json::Value { serde_json::from_str(&server.text("/api/works")).unwrap() };
    let until = Instant::now() + Duration::from_secs(60);
    while works(&server)[0]["state"] != "done" || server.text("/api/sets") == "[]" {
        assert!(Instant::now() < until && works(&server)[0]["state"] != "failed", "{}", works(&server));
        std::thread::sleep(Duration::from_millis(100));
    }
    let parts = works(&server)[0]["parts"].as_array().unwrap().clone();
    assert!(parts.len() == 15 && parts.iter().all(|part| part["state"] == "done"), "{parts:?}");
    let picture = server.text("/works/tiny.svg");
    assert!(picture.starts_with("<svg") && picture.contains("squashfs"), "{picture}");
    assert_eq!(server.status("/works/other.svg", &[]), "404");
    assert_eq!(server.status("/tiny/boot.ipxe", &[]), "200");
    drop(server);
    // What was published stays, where the next build fails.
    let fails = "[node.r]\nstep = \"run\"\nargv = [\"sh\", \"-c\", \"echo so it is >&2; exit 1\"]\n\
                 outputs = { x = \"x/\" }\n[publish]\nx = [\"r.x\"]\n";
    live.write_spec("path = \"root\"\n", fails);
    let server = Server::start(serve(&live));
    let until = Instant::now() + Duration::from_secs(60);
    while works(&server)[0]["state"] != "failed" {
        assert!(Instant::now() < until, "{}", works(&server));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.status("/tiny/boot.ipxe", &[]), "200");
    drop(server);
    // Where there is nothing to serve, it ends as the build does.
    fs::remove_dir_all(live.world.path("out")).unwrap();
    let output = serve(&live).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("the build ended"), "{output:?}");
    live.write_spec("path = \"nowhere\"\n", "");
    assert_eq!(serve(&live).output().unwrap().status.code(), Some(2), "the spec is wrong");
    let output = live.stagegraph(&["serve", "--build"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_build_ends_with_the_server_that_began_it() {
    let live = Live::new();
    let sleeps = "[node.r]\nstep = \"run\"\nargv = [\"sleep\", \"120\"]\ntools = [\"sleep\"]\n\
                  outputs = { x = \"x/\" }\n[publish]\nx = [\"r.x\"]\n";
    live.write_spec("path = \"root\"\n", sleeps);
    let mut command = live.command(&["build", &live.spec(), "--json", "--ends-with-parent"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_it = |line: &String| line.contains("\"started\",\"node\":\"r\"");
    assert!(lines.map_while(Result::ok).any(|line| is_it(&line)), "the node runs");
    // Whoever holds the other end is gone: as the system does it for a process that ends.
    drop(child.stdin.take());
    let until = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(143));
}

#[test]
fn programs_find_what_there_is_to_boot() {
    let (live, server) = published();
    let treeinfo = server.text("/tiny/.treeinfo");
    let value = |key: &str| {
        let line = treeinfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
        line.unwrap_or_else(|| panic!("{key}: {treeinfo}")).to_owned()
    };
    assert_eq!((value("arch"), value("family")), ("x86_64".to_owned(), "Tiny".to_owned()));
    for file in [value("kernel"), value("initrd"), value("boot.iso")] {
        let bytes = fs::read(live.world.path("out/tiny").join(&file)).unwrap();
        assert_eq!(value(&file), format!("sha256:{}", sha256(&bytes)), "{file}");
        assert_eq!(server.get(&format!("/tiny/{file}"), &[]).1, bytes);
    }
    let stream: serde_json::Value = serde_json::from_str(&server.text("/streams/tiny.json")).unwrap();
    let pxe = &stream["architectures"]["x86_64"]["artifacts"]["metal"]["formats"]["pxe"];
    for part in ["kernel", "initramfs", "rootfs"] {
        let location = pxe[part]["location"].as_str().unwrap().strip_prefix(&server.url).unwrap();
        let (_, bytes) = server.get(location, &[]);
        assert_eq!(pxe[part]["sha256"], sha256(&bytes), "{location}");
    }
    let latest = server.text("/latest-tiny.txt");
    let (path, size) = latest.lines().last().unwrap().split_once(' ').unwrap();
    assert_eq!(server.get(&format!("/{path}"), &[]).1.len().to_string(), size);
    assert_eq!(server.status("/streams/other.json", &[]), "404");
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Digest::finalize(sha2::Digest::chain_update(sha2::Sha256::default(), bytes))
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn a_build_that_is_published_again_takes_the_place_of_a_damaged_one() {
    let (live, server) = published();
    let (tiny, copy) = (live.world.path("out/tiny"), live.world.path("copy"));
    run("cp", &["-a", tiny.to_str().unwrap(), copy.to_str().unwrap()]);
    let id = || -> String {
        let sets: serde_json::Value = serde_json::from_str(&server.text("/api/sets")).unwrap();
        sets[0]["id"].as_str().unwrap().to_owned()
    };
    let fetched = |address: &str| {
        let url = format!("{}{address}", server.url);
        let output = Command::new("curl").args(["-sf", "--max-time", "5", &url]).output().unwrap();
        output.status.success().then_some(output.stdout)
    };
    let before = id();
    let kernel = format!("/tiny/@{before}/netboot/gentoo.vmlinuz");
    let bytes = fetched(&kernel).unwrap();
    // What is published may not be written to by accident.
    let at = tiny.join("netboot/gentoo.vmlinuz");
    fs::set_permissions(&at, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&at, "something else").unwrap();
    assert_eq!(fetched(&kernel), None, "what was written to is sent to nobody");
    let exchange = |with: &Path| {
        fs::rename(&tiny, live.world.path("damaged")).unwrap();
        fs::rename(with, &tiny).unwrap();
    };
    exchange(&copy);
    let until = Instant::now() + Duration::from_secs(20);
    while fetched(&kernel).as_ref() != Some(&bytes) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(id(), before, "the same files have the same address");
    // Another file, and the same manifest: another address.
    fs::remove_dir_all(live.world.path("damaged")).unwrap();
    run("cp", &["-a", tiny.to_str().unwrap(), copy.to_str().unwrap()]);
    fs::remove_file(copy.join("netboot/boot.ipxe")).unwrap();
    fs::write(copy.join("netboot/boot.ipxe"), "#!ipxe\nshell\n").unwrap();
    exchange(&copy);
    let until = Instant::now() + Duration::from_secs(20);
    while id() == before {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(server.text(&format!("/tiny/@{}/netboot/boot.ipxe", id())), "#!ipxe\nshell\n");
}

#[test]
fn what_is_in_the_way_is_said_and_nothing_is_served() {
    let (live, server) = published();
    drop(server);
    let check = |more: &[&str]| {
        let output = live.stagegraph(&[&["serve", "--check", "--on", "lo", "--http", "0"], more].concat());
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said, _) = check(&["tiny"]);
    assert!(code == Some(0) && said.contains("nothing is in the way"), "{said}");
    fs::create_dir(live.world.path("bare")).unwrap();
    fs::write(live.world.path("bare/boot.ipxe"), "#!ipxe\n").unwrap();
    let (code, said, _) = check(&["bare"]);
    assert!(code == Some(1) && said.contains("bare: how much memory it needs is not known"), "{said}");
    let (code, _, said) = check(&["tiny", "--only", "52:54"]);
    assert!(code == Some(2) && said.contains("is no MAC"), "{said}");
    let (code, _, said) = check(&["nothing"]);
    assert!(code == Some(2) && said.contains("nothing"), "{said}");
}

#[test]
fn sockets_may_be_opened_by_somebody_else() {
    let (live, first) = published();
    drop(first);
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = live.command_of(
        Path::new("systemd-socket-activate"),
        &[
            "-l",
            &format!("127.0.0.1:{port}"),
            env!("CARGO_BIN_EXE_stagegraph"),
            "serve",
            "tiny",
            "--out",
            "out",
            "--on",
            "lo",
        ],
    );
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let answer = loop {
        let output = Command::new("curl")
            .args(["-s", "--max-time", "5", &format!("http://127.0.0.1:{port}/tiny/netboot/boot.ipxe")])
            .output()
            .unwrap();
        if output.status.success() {
            break output.stdout;
        }
        assert!(Instant::now() < until, "{output:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer, fs::read(live.world.path("out/tiny/netboot/boot.ipxe")).unwrap());
}

#[test]
fn a_client_of_nfs_gets_what_was_published() {
    let live = Live::new();
    live.build(&[]);
    let server = Server::start(live.command_of(
        Path::new(env!("CARGO_BIN_EXE_stagegraph")),
        &["serve", "tiny", "--out", "out", "--on", "lo", "--http", "0", "--nfs", "0"],
    ));
    let port = server.said.lines().find_map(|line| line.strip_prefix("over NFS:")?.split("port ").nth(2));
    let port = port.unwrap().split(',').next().unwrap();
    let ask = |program: &str, path: &str| {
        let url = format!("nfs://127.0.0.1/{path}?version=3&nfsport={port}&mountport={port}");
        Command::new(program).arg(url).output().unwrap()
    };
    let set: serde_json::Value = serde_json::from_str(&server.text("/api/sets")).unwrap();
    let id = set[0]["id"].as_str().unwrap();
    for file in set[0]["files"].as_array().unwrap() {
        let path = file["path"].as_str().unwrap();
        let bytes = fs::read(live.world.path("out/tiny").join(path)).unwrap();
        for path in [format!("tiny/{path}"), format!("tiny/@{id}/{path}")] {
            let output = ask("nfs-cat", &path);
            assert!(output.status.success() && output.stdout == bytes, "{path}: {:?}", output.stderr);
        }
    }
    let listed = |path: &str| String::from_utf8(ask("nfs-ls", path).stdout).unwrap();
    assert!(listed("").contains(" tiny\n"), "{}", listed(""));
    let names = listed("tiny/netboot");
    assert!(names.contains(" image.squashfs\n") && names.lines().count() > 5, "{names}");
    for missing in [
        "tiny/netboot/nothing",
        "tiny/@0000000000000000/netboot/boot.ipxe",
        "tiny/../../etc/passwd",
        "other/x",
    ] {
        let output = ask("nfs-cat", missing);
        assert!(!output.status.success() && output.stdout.is_empty(), "{missing}: {output:?}");
    }
    // A length of 2 GiB: nothing is set aside for it, the connection ends, and the server goes on.
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    stream.write_all(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3]).unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(ask("nfs-cat", "tiny/netboot/boot.ipxe").status.success());
}

#[test]
fn no_name_gets_to_a_file_system() {
    let (live, server) = published();
    for path in [
        "/../out/tiny/netboot/boot.ipxe",
        "/tiny/../../../../../../etc/passwd",
        "/tiny/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/tiny/..%2f..%2f..%2fetc/passwd",
        "/tiny/netboot\\boot.ipxe",
        "/tiny/netboot/boot.ipxe%00.txt",
        "/tiny/.stagegraph.json",
        "/tiny/netboot/",
        "/tiny",
        "//etc/passwd",
        "/tiny/@0000000000000000/netboot/boot.ipxe",
        &format!("/tiny/{}", "a".repeat(4096)),
    ] {
        assert_eq!(server.status(path, &[]), "404", "{path}");
    }
    // A name that is far too long, a head that never ends: the connection is closed, and the server goes on.
    let host = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)).as_bytes()).unwrap_or(());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(!answer.contains("200 OK"), "{answer}");
    assert_eq!(server.status("/", &[]), "200");
    drop(live);
}

#[test]
fn the_page_is_all_from_here() {
    let (_live, server) = published();
    let (head, body) = server.get("/", &[]);
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("/page.js"));
    for path in ["/page.js", "/page.css", "/api/machines"] {
        assert_eq!(server.status(path, &[]), "200", "{path}");
    }
    let events = Command::new("curl")
        .args(["-sN", "--max-time", "1", &format!("{}/events", server.url)])
        .output()
        .unwrap();
    let text = String::from_utf8(events.stdout).unwrap();
    assert!(text.contains("event: machines\ndata: ["), "{text}");
}

#[test]
fn a_boot_is_of_one_build_whatever_is_published_meanwhile() {
    let (live, server) = published();
    let id = |server: &Server| {
        let set: serde_json::Value = serde_json::from_str(&server.text("/api/sets")).unwrap();
        set[0]["id"].as_str().unwrap().to_owned()
    };
    let before = id(&server);
    let squashfs = |id: &str| server.get(&format!("/tiny/@{id}/netboot/image.squashfs"), &[]).1;
    let old = squashfs(&before);
    assert!(server.text("/boot.ipxe").contains(&format!("/tiny/@{before}/way.ipxe")));
    fs::write(live.root().join("etc/more"), "a file more").unwrap();
    let built = live.stagegraph(&["build", &live.spec(), "--store", "store", "--out", "out"]);
    assert_eq!(built.status.code(), Some(0), "{built:?}");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while id(&server) == before {
        assert!(std::time::Instant::now() < until, "what is published anew is served");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let after = id(&server);
    assert!(squashfs(&before) == old, "who has begun goes on with what there was");
    assert!(squashfs(&after) != old);
    assert!(server.text("/tiny/boot.ipxe").contains(&format!("/tiny/@{after}/way.ipxe")));
}

#[test]
fn an_iso_is_served_as_its_netboot_set_and_leaves_nothing() {
    let (live, server) = published();
    drop(server);
    let iso = fs::read_dir(live.world.path("out/tiny")).unwrap().map(|entry| entry.unwrap().path());
    let iso = iso.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "iso")).unwrap();
    let server = Server::start(live.command_of(
        Path::new(env!("CARGO_BIN_EXE_stagegraph")),
        &["serve", iso.to_str().unwrap(), "--on", "lo", "--http", "0"],
    ));
    let set: serde_json::Value = serde_json::from_str(&server.text("/api/sets")).unwrap();
    let (name, id) = (set[0]["name"].as_str().unwrap(), set[0]["id"].as_str().unwrap());
    let (_, body) = server.get(&format!("/{name}/@{id}/image.squashfs"), &[]);
    assert!(body == fs::read(live.world.path("out/tiny/netboot/image.squashfs")).unwrap());
    let left = fs::read_dir("/var/tmp").unwrap().flatten();
    let left: Vec<_> =
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with("stagegraph-serve-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn what_cannot_be_served_is_said() {
    let live = Live::new();
    let run = |args: &[&str]| {
        let output = live.stagegraph(args);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, errors) = run(&["serve", "--out", "out"]);
    assert!(code == Some(2) && errors.contains("nothing is published under out"), "{code:?}: {errors}");
    let (code, errors) = run(&["serve", "nowhere", "--out", "out"]);
    assert!(code == Some(2) && errors.contains("stagegraph build nowhere"), "{code:?}: {errors}");
    let (code, errors) = run(&["serve", "root", "--on", "lo"]);
    assert!(code == Some(2) && errors.contains("nothing in it boots"), "{code:?}: {errors}");
    fs::create_dir(live.world.path("set")).unwrap();
    fs::write(live.world.path("set/boot.ipxe"), "#!ipxe\n").unwrap();
    let (code, errors) = run(&["serve", "set", "--on", "nothing0"]);
    assert!(code == Some(2) && errors.contains("lo (127.0.0.1)"), "{code:?}: {errors}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, errors) = run(&["serve", "set", "--on", "lo", "--http", &port]);
    assert!(code == Some(3) && errors.contains(&format!("HTTP at 127.0.0.1:{port}")), "{code:?}: {errors}");
}

/// A network namespace that has nothing but itself.
struct Alone(String);

impl Alone {
    fn new() -> Self {
        let name = format!("sg{}-alone", std::process::id());
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).args(words);
        command
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn tftp_clients_get_loaders_and_nothing_else() {
    if !needs(Need::Root) {
        return;
    }
    let folder = Folder::new();
    let set = folder.join("set");
    fs::create_dir_all(set.join("pxelinux.cfg")).unwrap();
    fs::write(set.join("boot.ipxe"), "#!ipxe\n").unwrap();
    fs::write(set.join("pxelinux.cfg/default"), "DEFAULT x\n").unwrap();
    // More blocks than there are numbers, of an odd length, and of none.
    let large: Vec<u8> = (0..9_000_001u32).flat_map(u32::to_le_bytes).collect();
    fs::write(set.join("large.efi"), &large).unwrap();
    fs::write(set.join("even.efi"), &large[..1024]).unwrap();
    fs::write(set.join("empty.efi"), "").unwrap();
    symlink("/etc/passwd", set.join("link.efi")).unwrap();
    let alone = Alone::new();
    let program = env!("CARGO_BIN_EXE_stagegraph");
    let _server = Server::start(alone.command(&[
        program,
        "serve",
        set.to_str().unwrap(),
        "--on",
        "lo",
        "--room",
        "--http",
        "8080",
    ]));
    let got = folder.join("got");
    let fetch = |words: &[&str]| {
        let _ = fs::remove_file(&got);
        let output = alone.command(words).current_dir(folder.path()).output().unwrap();
        (
            fs::read(&got).unwrap_or_default(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let hpa = |name: &str| fetch(&["tftp", "127.0.0.1", "-m", "binary", "-c", "get", name, "got"]);
    for (name, bytes) in [
        ("large.efi", &large[..]),
        ("even.efi", &large[..1024]),
        ("empty.efi", b""),
        ("/pxelinux.cfg/default", b"DEFAULT x\n"),
        ("boot.ipxe", b"#!ipxe\n"),
    ] {
        let (found, said) = hpa(name);
        assert!(found == bytes && !said.contains("Error"), "{name}: {} bytes, {said}", found.len());
    }
    for options in
        [["blksize 1428", "windowsize 16"], ["blksize 512", "windowsize 64"], ["tsize 0", "timeout 2"]]
    {
        let mut words = vec!["atftp", "--get", "--remote-file", "large.efi", "--local-file", "got"];
        options.iter().for_each(|option| words.extend(["--option", option]));
        words.push("127.0.0.1");
        let (found, said) = fetch(&words);
        assert!(found == large, "{options:?}: {} bytes, {said}", found.len());
    }
    for name in ["link.efi", "../set/large.efi", "/etc/passwd", "none.efi", "pxelinux.cfg"] {
        let (found, said) = hpa(name);
        assert!(found.is_empty() && said.contains("there is no such file"), "{name}: {said}");
    }
    let put = alone
        .command(&["tftp", "127.0.0.1", "-m", "binary", "-c", "put", "got", "large.efi"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&put.stdout).contains("nothing can be written here"), "{put:?}");
}

#[test]
fn recipes_are_read_by_the_programs_they_are_for() {
    let live = Live::new();
    let built = live.stagegraph(&["build", &live.spec(), "--store", "store", "--out", "out"]);
    assert_eq!(built.status.code(), Some(0), "{built:?}");
    let recipe = |kind: &str| {
        let output = live.stagegraph(&["recipe", kind, "tiny", "--on", "lo"]);
        assert_eq!(output.status.code(), Some(0), "{kind}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let folder = Folder::new();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let check = |program: &str, args: &[&str]| {
        let output =
            Command::new(program).args(args).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    };
    let dnsmasq = write("dnsmasq", &recipe("dnsmasq"));
    check("dnsmasq", &["--test", &format!("--conf-file={dnsmasq}")]);
    let net = "subnet 10.0.0.0 netmask 255.255.255.0 { range 10.0.0.5 10.0.0.9; }\n";
    let isc = write("isc", &(recipe("isc") + net));
    check("dhcpd", &["-t", "-cf", &isc]);
    let kea = write("kea", &format!("{{ \"Dhcp4\": {{ {} }} }}", recipe("kea")));
    check("kea-dhcp4", &["-t", &kea]);
    let nginx = format!(
        "pid {0}/pid; error_log stderr; events {{}} http {{ access_log off; client_body_temp_path {0}/a; proxy_temp_path {0}/b; \
         fastcgi_temp_path {0}/c; uwsgi_temp_path {0}/d; scgi_temp_path {0}/e; {1} }}",
        folder.path().display(),
        recipe("nginx").replace("listen 80;", "listen 8099;")
    );
    check("nginx", &["-t", "-e", "stderr", "-c", &write("nginx", &nginx)]);
    check("grub-script-check", &[&write("grub", &recipe("grub"))]);
    for kind in ["openwrt", "mikrotik", "qemu", "virt-install", "ipxe"] {
        assert!(recipe(kind).contains("127.0.0.1/tiny/netboot") || kind == "openwrt", "{kind}");
    }
    let wrong = live.stagegraph(&["recipe", "bootp", "tiny"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("dnsmasq, openwrt, kea"), "{wrong:?}");
}
