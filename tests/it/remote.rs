//! The program over upstreams: real servers, a proxy that misbehaves before one, mirrors.
//!
//! Whatever an upstream does, what is published is what is published without one, and the exit code is 0.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use ::remote::testing::{Act, BuildGrid, Call, Casd, Code, Proxy};

use crate::live::{Live, hashes};
use crate::world::run;

/// Several builders of one spec, each with a store of its own, and keys.
struct Team {
    live: Live,
    program: PathBuf,
}

impl Team {
    fn new() -> Self {
        let live = Live::new();
        let team = Self { live, program: env!("CARGO_BIN_EXE_stagegraph").into() };
        let lines = team.ok(&["remote", "keygen", "ci", "--out", "key"]);
        fs::write(team.path("trust"), lines).unwrap();
        team
    }

    fn path(&self, name: &str) -> PathBuf {
        self.live.world.path(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.live.command_of(&self.program, args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {text}\n{errors}");
        text
    }

    /// Builds with the store and the output folder of a builder.
    fn build(&self, builder: &str, more: &[&str]) -> Built {
        let (store, out) = (format!("store-{builder}"), format!("out-{builder}"));
        let began = Instant::now();
        let output = self
            .run(&[&["build", &self.live.spec(), "--store", &store, "--out", &out, "--json"], more].concat());
        let errors = String::from_utf8(output.stderr).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let code = output.status.code();
        Built { code, took: began.elapsed(), events, errors, out: self.path(&out).join("tiny") }
    }

    /// Builds without upstreams, and offers the upstream all of it.
    fn first(&self, address: &str) -> Built {
        let built =
            self.build("first", &["--remote", address, "--remote-trust", "trust", "--remote-key", "key"]);
        assert_eq!(built.code, Some(0), "{}", built.errors);
        assert_eq!(built.remote()["not_offered"], 0, "{:?}", built.events);
        built
    }

    /// Has the second builder begin anew.
    fn forget(&self) {
        for folder in ["store-second", "out-second"] {
            let _ = fs::remove_dir_all(self.path(folder));
        }
    }

    /// Builds with a store that is empty.
    fn second(&self, address: &str, more: &[&str]) -> Built {
        self.forget();
        self.build("second", &[&["--remote", address, "--remote-trust", "trust"], more].concat())
    }
}

struct Built {
    code: Option<i32>,
    took: Duration,
    events: Vec<serde_json::Value>,
    errors: String,
    out: PathBuf,
}

impl Built {
    /// Returns the nodes that ran.
    fn ran(&self) -> Vec<&str> {
        let ran = self
            .events
            .iter()
            .filter(|event| event["event"] == "finished" && !event["milliseconds"].is_null());
        let mut ran: Vec<&str> = ran.map(|event| event["node"].as_str().unwrap()).collect();
        ran.sort_unstable();
        ran
    }

    /// Returns the upstream and the signer of each node that was fetched.
    fn fetched(&self) -> Vec<(&str, &str)> {
        let reasons = self.events.iter().filter(|event| event["event"] == "finished");
        reasons
            .filter_map(|event| {
                let fetched = event["reason"].get("fetched")?;
                Some((event["node"].as_str()?, fetched["signer"].as_str().unwrap_or("nobody")))
            })
            .collect()
    }

    fn remote(&self) -> &serde_json::Value {
        let mut remote = self.events.iter().filter(|event| event["event"] == "remote");
        remote.next().unwrap_or_else(|| panic!("nothing was asked of anybody: {}", self.errors))
    }

    fn assert_same(&self, other: &Built, when: &str) {
        assert_eq!((self.code, other.code), (Some(0), Some(0)), "{when}: {}{}", self.errors, other.errors);
        assert_eq!(hashes(&self.out), hashes(&other.out), "{when}");
    }
}

/// What every builder makes by itself: a folder and programs of its own machine.
const OWN: [&str; 2] = ["stage2", "tools"];

#[test]
fn a_second_builder_makes_nothing_and_publishes_the_same() {
    let casd = Casd::start();
    let team = Team::new();
    let first = team.first(&casd.address());
    let second = team.second(&casd.address(), &[]);
    second.assert_same(&first, "over casd");
    assert!(second.ran().iter().all(|node| OWN.contains(node)), "{:?}", second.ran());
    assert!(second.fetched().len() > 8 && second.fetched().iter().all(|(_, signer)| *signer == "ci"));
    let again = team.build("second", &["--remote", &casd.address(), "--remote-trust", "trust"]);
    assert_eq!((again.ran().len(), again.fetched().len()), (0, 0));
    // A third one that uploads what it makes of a variant has the fourth make nothing.
    let variant = ["--set", "image.title=Other"];
    let key = ["--remote-key", "key"];
    let third = team.second(&casd.address(), &[&variant[..], &key].concat());
    assert!(third.ran().len() > 3 && third.remote()["offered"].as_u64() > Some(3), "{:?}", third.events);
    let fourth = team.second(&casd.address(), &variant);
    assert!(fourth.ran().iter().all(|node| OWN.contains(node)), "{:?}", fourth.ran());
    fourth.assert_same(&third, "a variant");
    let text = team.ok(&["why", &team.live.spec(), "squashfs", "--store", "store-second"]);
    assert!(text.contains("signed ci"), "{text}");
}

#[test]
fn a_mirror_in_a_folder_and_on_a_web_server_serves_as_well() {
    let team = Team::new();
    let first = team.build("first", &[]);
    let spec = team.live.spec();
    let push = ["store", "push", &spec, "--store", "store-first", "--to", "file:mirror"];
    let refused = team.run(&[&push[..], &["--remote-trust", "trust"]].concat());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let text = team.ok(&[&push[..], &["--remote-trust", "trust", "--remote-key", "key"]].concat());
    assert!(text.contains("offered"), "{text}");
    let text = team.ok(&[&push[..], &["--remote-trust", "trust", "--remote-key", "key"]].concat());
    assert!(text.contains("remote: 0 found, 0 offered (0 B sent)"), "{text}");
    let second = team.second("file:mirror", &[]);
    second.assert_same(&first, "over a folder");
    assert!(second.ran().iter().all(|node| OWN.contains(node)), "{:?}", second.ran());
    let server = Web::start(&team.path("mirror"));
    let third = team.second(&server.address, &["--remote-required"]);
    third.assert_same(&first, "over a web server");
    assert_eq!(third.fetched().len(), second.fetched().len());
    let pushed = team.run(&[
        "store",
        "push",
        &spec,
        "--store",
        "store-first",
        "--to",
        &server.address,
        "--remote-trust",
        "trust",
        "--remote-key",
        "key",
    ]);
    assert_eq!(pushed.status.code(), Some(3), "{pushed:?}");
    assert!(String::from_utf8_lossy(&pushed.stderr).contains("only read"), "{pushed:?}");
}

/// nginx over a folder.
struct Web {
    nginx: std::process::Child,
    address: String,
    _dir: cache::testing::Folder,
}

impl Web {
    fn start(folder: &Path) -> Self {
        let dir = cache::testing::Folder::new();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let top = dir.path().display();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; pid {top}/pid; error_log {top}/error; {user}\nevents {{}}\nhttp {{ access_log off;\n\
             client_body_temp_path {top}/a; proxy_temp_path {top}/b; fastcgi_temp_path {top}/c; uwsgi_temp_path {top}/d; scgi_temp_path {top}/e;\n\
             server {{ listen 127.0.0.1:{port}; root {}; }} }}\n",
            folder.display()
        );
        fs::write(dir.join("conf"), config).unwrap();
        let nginx =
            std::process::Command::new("/usr/sbin/nginx").arg("-c").arg(dir.join("conf")).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "nginx did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { nginx, address: format!("http://127.0.0.1:{port}"), _dir: dir }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        run("kill", &[&self.nginx.id().to_string()]);
        let _ = self.nginx.wait();
    }
}

/// A way to misbehave, and its name.
type Row = (&'static str, Box<dyn FnMut(Call) -> Act + Send>);

fn row(name: &'static str, mischief: impl FnMut(Call) -> Act + Send + 'static) -> Row {
    (name, Box::new(mischief))
}

fn on(method: &'static str, act: Act) -> impl FnMut(Call) -> Act {
    move |call| if call.method == method { act } else { Act::Pass }
}

/// Does something to some of the calls that read blobs.
fn on_blobs(act: Act, some: fn(usize) -> bool) -> impl FnMut(Call) -> Act {
    move |call| match call.method {
        "read" | "read-batch" if some(call.number) => act,
        _ => Act::Pass,
    }
}

/// What a server can say that is no use.
fn useless_answers() -> Vec<Row> {
    vec![
        row("busy at first", |call| match call.number {
            0 => Act::Say(Code::ResourceExhausted),
            1 => Act::Say(Code::Unavailable),
            _ => Act::Pass,
        }),
        row("no capabilities", on("capabilities", Act::Say(Code::Unimplemented))),
        row("capabilities refused", on("capabilities", Act::Say(Code::PermissionDenied))),
        row("wrong token", |_| Act::Say(Code::Unauthenticated)),
        row("broken", |_| Act::Say(Code::Internal)),
        row("BLAKE3 listed and refused", |call| match call.method {
            "capabilities" => Act::Capabilities(|said| {
                said.cache_capabilities.get_or_insert_default().digest_functions.push(9);
            }),
            "find" => Act::Say(Code::InvalidArgument),
            _ => Act::Pass,
        }),
        row("results lost", on("result", Act::Lose)),
        row("results altered", on("result", Act::Alter)),
        row("a failure kept", on("result", Act::Result(|result| result.exit_code = 1))),
        row("no statement", on("result", Act::Result(|result| result.output_files.clear()))),
        row(
            "no signature",
            on(
                "result",
                Act::Result(|result| result.output_files.retain(|file| file.path != "statement.sig")),
            ),
        ),
        row(
            "contents not inlined",
            on(
                "result",
                Act::Result(|result| result.output_files.iter_mut().for_each(|file| file.contents.clear())),
            ),
        ),
    ]
}

/// What can be wrong with blobs, and how slowly they can come.
fn useless_blobs() -> Vec<Row> {
    vec![
        row("all blobs gone", on_blobs(Act::Lose, |_| true)),
        row("all blobs altered", on_blobs(Act::Alter, |_| true)),
        row("some blobs gone", on_blobs(Act::Lose, |number| number % 3 == 1)),
        row("some blobs altered", on_blobs(Act::Alter, |number| number % 5 == 4)),
        row("streams cut off", on("read", Act::Cut)),
        row("reading fails now and then", on_blobs(Act::Say(Code::Internal), |number| number % 4 == 3)),
        row("slow", |_| Act::Delay(Duration::from_millis(20))),
    ]
}

#[test]
fn whatever_an_upstream_does_the_same_is_published() {
    let casd = Casd::start();
    let team = Team::new();
    let first = team.first(&casd.address());
    let proxy = Proxy::start(&casd.address());
    for (what, mischief) in useless_answers().into_iter().chain(useless_blobs()) {
        proxy.misbehave(mischief);
        let second = team.second(&proxy.address(), &[]);
        second.assert_same(&first, what);
        let verified = team.run(&["store", "verify", "--store", "store-second"]);
        assert_eq!(verified.status.code(), Some(0), "{what}: {verified:?}");
    }
    proxy.misbehave(|_| Act::Pass);
    let second = team.second(&proxy.address(), &[]);
    assert!(second.ran().iter().all(|node| OWN.contains(node)), "it works again: {:?}", second.ran());
}

#[test]
fn an_upstream_that_is_dead_or_frozen_costs_little() {
    let casd = Casd::start();
    let team = Team::new();
    let first = team.first(&casd.address());
    let said = |built: &Built, what: &str| {
        let count = built.errors.matches("this build goes on without it").count();
        assert_eq!(count, 1, "{what}: said once: {}", built.errors);
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = team.second(&format!("grpc://127.0.0.1:{port}"), &[]);
    refused.assert_same(&first, "refused");
    said(&refused, "refused");
    let nobody = team.second("grpc://nobody.invalid:1", &[]);
    nobody.assert_same(&first, "no such host");
    let proxy = Proxy::start(&casd.address());
    proxy.misbehave(|_| Act::Freeze);
    let frozen = team.second(&proxy.address(), &[]);
    frozen.assert_same(&first, "frozen");
    said(&frozen, "frozen");
    let more = frozen.took.saturating_sub(refused.took);
    assert!(more < Duration::from_secs(15), "a frozen server cost {more:?}");
    // Frozen in the middle.
    proxy.misbehave(|call| if call.method.starts_with("read") { Act::Freeze } else { Act::Pass });
    team.second(&proxy.address(), &[]).assert_same(&first, "frozen in the middle");
    for (address, what) in
        [(format!("grpc://127.0.0.1:{port}"), "refused"), ("file:nowhere".to_owned(), "no folder")]
    {
        let required = team.second(&address, &["--remote-required"]);
        assert_eq!(required.code, Some(3), "{what}: {}", required.errors);
        assert!(required.errors.contains("hint: `stagegraph remote check"), "{}", required.errors);
    }
    let offline = team.second(&format!("grpc://127.0.0.1:{port}"), &["--offline"]);
    assert!(offline.errors.is_empty() && offline.code == Some(0), "{}", offline.errors);
}

#[test]
fn what_is_lost_between_two_builds_is_made_again_in_one() {
    let mut casd = Casd::start();
    let team = Team::new();
    let first = team.first(&casd.address());
    let known = team.second(&casd.address(), &["--to", "manifest"]);
    assert!(known.ran().iter().all(|node| OWN.contains(node)), "{:?}", known.ran());
    let spec = team.live.spec();
    let address = casd.address();
    let verify =
        ["remote", "check", &address, "--remote-trust", "trust", "--store", "store-first", "--verify", &spec];
    let text = team.ok(&verify);
    assert!(text.contains("  verified ") && !text.contains("altered"), "{text}");
    // Rot on the server's disk: it goes on saying that it has them.
    let mut rotten = Vec::new();
    for blob in casd.blobs() {
        let mut bytes = fs::read(&blob).unwrap();
        if bytes.len() > 4096 {
            bytes[2000] ^= 1;
            let time = blob.metadata().unwrap().modified().unwrap();
            run("chmod", &["u+w", blob.to_str().unwrap()]);
            fs::write(&blob, bytes).unwrap();
            fs::File::options().write(true).open(&blob).unwrap().set_modified(time).unwrap();
            let [folder, file] = [blob.parent().unwrap(), &blob].map(|path| path.file_name().unwrap());
            rotten.push(format!("{}{}", folder.to_str().unwrap(), file.to_str().unwrap()));
        }
    }
    let found = team.run(&verify);
    let text = String::from_utf8(found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(3), "{text}");
    let named =
        rotten.iter().filter(|name| text.contains(&format!("altered              SHA-256 {name}"))).count();
    assert!(named > 3 && named == text.matches("altered").count(), "{named} of {}: {text}", rotten.len());
    let rotten = rotten.len();
    assert!(rotten > 3, "{rotten}");
    let rot = team.build("second", &["--remote", &casd.address(), "--remote-trust", "trust"]);
    rot.assert_same(&first, "rot");
    // Gone altogether, and then the server as well.
    let known = team.second(&casd.address(), &["--to", "manifest"]);
    assert_eq!(known.code, Some(0));
    casd.stop();
    let gone = team.build("second", &["--remote", &casd.address(), "--remote-trust", "trust"]);
    gone.assert_same(&first, "gone");
    assert!(gone.errors.contains("cannot be reached"), "{}", gone.errors);
    let alone = team.build("second", &[]);
    assert_eq!((alone.code, alone.ran().len()), (Some(0), 0), "{}", alone.errors);
}

#[test]
fn results_count_by_who_signed_them() {
    let casd = Casd::start();
    let team = Team::new();
    let address = casd.address();
    team.first(&address);
    // Nobody said whose results count; a list that has another key; none that can be read.
    let unsaid = team.build("second", &["--remote", &address]);
    assert_eq!(unsaid.code, Some(2), "{}", unsaid.errors);
    assert!(unsaid.errors.contains("--remote-trust FILE"), "{}", unsaid.errors);
    let other = team.ok(&["remote", "keygen", "other", "--out", "key-other"]);
    fs::write(team.path("trust-other"), &other).unwrap();
    let trust = |list: &str| team.build("second", &["--remote", &address, "--remote-trust", list]);
    let distrusted = trust("trust-other");
    assert!(distrusted.fetched().is_empty() && distrusted.code == Some(0));
    assert!(distrusted.errors.contains("signed by ci, with no key that is trusted"), "{}", distrusted.errors);
    // The name alone is not enough.
    fs::write(team.path("trust-forged"), other.replace("other ", "ci ")).unwrap();
    let forged = team.second(&address, &["--remote-trust=trust-forged"]);
    assert_eq!(forged.code, Some(2), "given twice");
    team.forget();
    let forged = trust("trust-forged");
    assert!(forged.fetched().is_empty(), "{:?}", forged.fetched());
    // Rotation: both count; then the old one is taken out, and its results are asked for anew.
    fs::write(team.path("trust-both"), fs::read_to_string(team.path("trust")).unwrap() + &other).unwrap();
    team.forget();
    assert!(trust("trust-both").fetched().len() > 8);
    let revoked = trust("trust-other");
    assert!(revoked.fetched().is_empty() && revoked.ran().len() > 8, "{:?}", revoked.ran());
    // Whoever trusts all takes all.
    assert!(team.second(&address, &[]).fetched().len() > 8);
    team.forget();
    let all = trust("all");
    assert!(all.fetched().iter().all(|(_, signer)| *signer == "nobody") && all.fetched().len() > 8);
    // An unsigned result that is there is replaced by a signed one.
    let key = ["--remote", &address, "--remote-trust", "trust-other", "--remote-key", "key-other"];
    team.forget();
    let signed = team.build("second", &key);
    assert!(signed.remote()["offered"].as_u64() > Some(8), "{:?}", signed.events);
}

#[test]
fn tls_client_certificates_tokens_and_instances() {
    let grid = BuildGrid::start();
    let team = Team::new();
    let file = |name: &str| grid.file(name).display().to_string();
    let (ca, cert, key, token) = (file("ca.pem"), file("client.pem"), file("client.key"), file("token"));
    let all =
        ["--remote-ca", &ca, "--remote-cert", &cert, "--remote-cert-key", &key, "--remote-token", &token];
    let remote = ["--remote", &grid.address(), "--remote-trust", "trust", "--remote-key", "key"];
    let first = team.build("first", &[&remote[..], &all].concat());
    assert_eq!((first.code, &first.remote()["not_offered"]), (Some(0), &0.into()), "{}", first.errors);
    let second = team.second(&grid.address(), &all);
    second.assert_same(&first, "over TLS");
    assert!(second.ran().iter().all(|node| OWN.contains(node)), "{:?}", second.ran());
    // With less than all of it, the server says no, and the build goes on.
    fs::write(team.path("bad-token"), "no.token.this\n").unwrap();
    let lacking: [(&str, Vec<&str>); 4] = [
        ("no authority", all[2..].to_vec()),
        ("no certificate", [&all[..2], &all[6..]].concat()),
        ("no token", all[..6].to_vec()),
        ("a bad token", [&all[..6], &["--remote-token", "bad-token"]].concat()),
    ];
    for (what, args) in lacking {
        let without = team.second(&grid.address(), &args);
        without.assert_same(&first, what);
        assert!(without.fetched().is_empty(), "{what}");
        assert_eq!(
            without.errors.matches("this build goes on without it").count(),
            1,
            "{what}: {}",
            without.errors
        );
        let required = team.second(&grid.address(), &[&args[..], &["--remote-required"]].concat());
        assert_eq!(required.code, Some(3), "{what}: {}", required.errors);
    }
    let settings = format!(
        "remote = [\"{}\"]\ntrust = \"{}\"\nca = \"{ca}\"\ncert = \"{cert}\"\ncert_key = \"{key}\"\ntoken = \"{token}\"\n\n[headers]\nx-team = \"media\"\n",
        grid.address(),
        team.path("trust").display()
    );
    fs::create_dir_all(team.path("config/stagegraph")).unwrap();
    fs::write(team.path("config/stagegraph/remote.toml"), settings).unwrap();
    let mut check = team.live.command(&["remote", "check", &grid.address(), "--write"]);
    let check = check.env("XDG_CONFIG_HOME", team.path("config")).output().unwrap();
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    for says in ["reached              yes", "SHA-256", "takes blobs", "trusted              ci"] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let spec = team.live.spec();
    let mut build = team.live.command(&["build", &spec, "--store", "store-third", "--out", "out-third"]);
    let build = build.env("XDG_CONFIG_HOME", team.path("config")).output().unwrap();
    let text = String::from_utf8_lossy(&build.stdout).into_owned();
    assert!(text.contains("fetched from grpcs://localhost") && text.contains("signed ci"), "{text}");
}

#[test]
fn what_was_pulled_needs_no_upstream_and_what_is_wrong_says_so() {
    let mut casd = Casd::start();
    let team = Team::new();
    let address = casd.address();
    let first = team.first(&address);
    let second = team.second(&address, &["--to", "squashfs"]);
    assert_eq!(second.code, Some(0), "{}", second.errors);
    let spec = team.live.spec();
    let pull =
        ["store", "pull", &spec, "--store", "store-second", "--from", &address, "--remote-trust", "trust"];
    let unbuilt = team.run(&pull);
    assert_eq!(unbuilt.status.code(), Some(3), "{unbuilt:?}");
    assert!(String::from_utf8_lossy(&unbuilt.stderr).contains("has no result in this store"), "{unbuilt:?}");
    assert_eq!(team.build("second", &["--remote", &address, "--remote-trust", "trust"]).code, Some(0));
    team.ok(&pull);
    casd.stop();
    let text = team.ok(&["store", "stat", "--store", "store-second"]);
    assert!(
        text.lines().any(|line| line.contains("elsewhere, and not here") && line.contains(" 0 ")),
        "{text}"
    );
    let alone = team.build("second", &[]);
    alone.assert_same(&first, "pulled");
    for (args, says) in [
        (vec!["--remote", "cache:8980"], "is no address of an upstream"),
        (vec!["--remote", "grpc://u:p@cache:8980"], "--remote-token FILE"),
        (vec!["--remote", &address, "--remote-trust", "nowhere"], "nowhere"),
        (vec!["--remote", &address, "--remote-trust", "key"], "line 1"),
        (vec!["--remote", &address, "--remote-trust", "trust", "--remote-key", "trust"], "others may read"),
        (vec!["--remote", &address, "--remote-trust", "trust", "--remote-upload"], "--remote-key FILE"),
        (vec!["--remote", &address, "--remote-trust", "all", "--remote-header", "none"], "NAME: VALUE"),
        (vec!["--remote", &address, "--remote-trust", "all", "--remote-ca", "trust"], ""),
    ] {
        let wrong = team.build("second", &args);
        let is_fine = says.is_empty() && wrong.code == Some(0);
        assert!(wrong.code == Some(2) || is_fine, "{args:?}: {:?} {}", wrong.code, wrong.errors);
        assert!(wrong.errors.contains(says), "{args:?}: {}", wrong.errors);
    }
}

#[test]
fn workers_that_die_fail_or_hang_cost_time_and_nothing_else() {
    let mut team = Team::new();
    let program = team.path("stagegraph");
    run("strip", &["-o", program.to_str().unwrap(), env!("CARGO_BIN_EXE_stagegraph")]);
    team.program = program;
    let text: Vec<u8> = (0..9_000_000u32).flat_map(|i| (i / 3 * 7).to_string().into_bytes()).collect();
    fs::write(team.live.root().join("etc/much"), text).unwrap();
    team.live.write_spec("path = \"root\"\n", "[node.squashfs]\ncompressor = \"xz\"\nlevel = 9\n");
    let alone = team.build("first", &[]);
    for (what, conduct, says) in [
        ("killed", "kill -9 $$", true),
        ("out of disk", "echo 'no space left on device' >&2; exit 1", true),
        ("leaves nothing", "exit 0", true),
        ("hangs", "exec sleep 60", false),
    ] {
        // Two of three do it; the third one works.
        let count = team.path("count");
        fs::write(&count, "").unwrap();
        let casd = Casd::start_scripted(|real| {
            format!(
                "#!/bin/sh\necho >> {0}\n[ $(($(wc -l < {0}) % 3)) = 0 ] || {{ {conduct}; }}\nexec {1} \"$@\"\n",
                count.display(),
                real.display()
            )
        });
        team.forget();
        let address = casd.address();
        let args =
            ["--remote", &address, "--remote-trust", "trust", "--remote-execute", "--remote-jobs", "2"];
        let built = team.build("second", &args);
        built.assert_same(&alone, what);
        assert!(!fs::read_to_string(&count).unwrap().is_empty(), "{what}: no worker was asked");
        assert_eq!(built.errors.contains("as workers: "), says, "{what}: {}", built.errors);
    }
}

#[test]
fn a_root_that_changed_a_little_is_packed_from_parts_of_the_image_before() {
    let casd = Casd::start();
    let team = Team::new();
    let text: Vec<u8> = (0..6_000_000u32).flat_map(|i| (i / 3 * 7).to_string().into_bytes()).collect();
    fs::write(team.live.root().join("etc/much"), text).unwrap();
    let first = team.first(&casd.address());
    assert_eq!(first.remote()["slices"], 0, "{:?}", first.remote());
    fs::write(team.live.root().join("etc/more"), "one file more").unwrap();
    let alone = team.build("third", &[]);
    let mirror = format!("file:{}", team.path("mirror").display());
    let spec = team.live.spec();
    let push = ["store", "push", &spec, "--store", "store-first", "--to", &mirror];
    team.ok(&[&push[..], &["--remote-trust", "trust", "--remote-key", "key"]].concat());
    for address in [casd.address(), mirror] {
        let second = team.second(&address, &[]);
        second.assert_same(&alone, &address);
        assert!(second.ran().contains(&"squashfs"), "{:?}", second.ran());
        assert!(second.remote()["slices"].as_u64() > Some(3), "{:?}", second.remote());
        // What is made again to be compared is made of nothing that others made.
        let check = team.build("second", &["--remote", &address, "--remote-trust", "trust", "--check"]);
        assert_eq!((check.code, check.errors.as_str()), (Some(0), ""), "{address}");
        assert!(!check.events.iter().any(|event| event["slices"].as_u64() > Some(0)), "{:?}", check.events);
    }
}

#[test]
fn workers_of_a_server_compress_and_nothing_else_changes() {
    let casd = Casd::start();
    let mut team = Team::new();
    let root = team.live.root();
    // It travels to the workers, and with what debuggers want it is ten times as large.
    let program = team.path("stagegraph");
    run("strip", &["-o", program.to_str().unwrap(), env!("CARGO_BIN_EXE_stagegraph")]);
    team.program = program;
    let text: Vec<u8> = (0..6_000_000u32).flat_map(|i| (i / 3 * 7).to_string().into_bytes()).collect();
    fs::write(root.join("etc/much"), text).unwrap();
    team.live.write_spec("path = \"root\"\n", "[node.squashfs]\ncompressor = \"xz\"\nlevel = 9\n");
    let alone = team.build("first", &[]);
    let address = casd.address();
    let remote = ["--remote", &address, "--remote-trust", "trust", "--remote-execute", "--remote-jobs", "3"];
    let with = team.build("second", &remote);
    with.assert_same(&alone, "with workers");
    assert!(with.remote()["shards"].as_u64() > Some(0), "{:?}", with.remote());
    // A worker is this program with its libraries, in a folder of its own; nothing is said of it that goes well.
    assert!(with.errors.is_empty(), "{}", with.errors);
    // A server without workers, and one that is not there.
    let proxy = Proxy::start(&address);
    for (address, says) in
        [(proxy.address(), "as workers: "), ("grpc://127.0.0.1:9".to_owned(), "cannot be reached")]
    {
        team.forget();
        let args = ["--remote", &address, "--remote-trust", "trust", "--remote-execute"];
        let without = team.build("second", &args);
        without.assert_same(&alone, says);
        assert!(without.errors.contains(says), "{}", without.errors);
    }
    let folder =
        team.build("second", &["--remote", "file:mirror", "--remote-trust", "trust", "--remote-execute"]);
    assert_eq!(folder.code, Some(2), "{}", folder.errors);
    assert!(folder.errors.contains("needs a server"), "{}", folder.errors);
}

#[test]
fn a_mirror_is_one_and_is_repaired_and_signed_by_several() {
    let team = Team::new();
    let first = team.build("first", &[]);
    let spec = team.live.spec();
    let push = |key: &str, trust: &str, to: &str, more: &[&str]| {
        let args = ["store", "push", &spec, "--store", "store-first", "--to", to];
        team.run(&[&args[..], &["--remote-trust", trust, "--remote-key", key], more].concat())
    };
    let text = |output: &Output| {
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    // A folder of somebody else's becomes none.
    fs::create_dir(team.path("somebodys")).unwrap();
    fs::write(team.path("somebodys/file"), "mine").unwrap();
    let refused = push("key", "trust", "file:somebodys", &[]);
    assert_eq!((refused.status.code(), fs::read_dir(team.path("somebodys")).unwrap().count()), (Some(3), 1));
    assert!(text(&refused).contains("something else in it"), "{}", text(&refused));
    assert_eq!(push("key", "trust", "file:mirror", &[]).status.code(), Some(0));
    // What is gone or altered is put there again.
    let objects = run("find", &[team.path("mirror/objects").to_str().unwrap(), "-type", "f"]);
    let objects: Vec<&str> = objects.lines().collect();
    for (number, object) in objects.iter().enumerate() {
        match number % 3 {
            0 => fs::remove_file(object).unwrap(),
            1 => fs::write(object, vec![0; fs::metadata(object).unwrap().len() as usize]).unwrap(),
            _ => {}
        }
    }
    team.second("file:mirror", &[]).assert_same(&first, "a damaged mirror");
    assert_eq!(push("key", "trust", "file:mirror", &[]).status.code(), Some(0));
    let repaired = team.second("file:mirror", &[]);
    assert!(repaired.ran().iter().all(|node| OWN.contains(node)), "{:?}", repaired.ran());
    // Another team signs what is the same, and takes nothing away.
    let other = team.ok(&["remote", "keygen", "other", "--out", "key-other"]);
    fs::write(team.path("trust-other"), other).unwrap();
    assert_eq!(push("key-other", "trust-other", "file:mirror", &[]).status.code(), Some(0));
    for trust in ["trust", "trust-other"] {
        team.forget();
        let built = team.build("second", &["--remote", "file:mirror", "--remote-trust", trust]);
        assert!(built.fetched().len() > 8, "{trust}: {:?}", built.ran());
    }
    // Another word is another set of results.
    let salted = team.second("file:mirror", &["--remote-salt", "again"]);
    assert!(salted.fetched().is_empty());
    // What is no mirror says so once; pipes and links to devices hold nobody up.
    for what in ["nowhere", "somebodys"] {
        let built = team.second(&format!("file:{what}"), &[]);
        built.assert_same(&first, what);
        assert_eq!(built.errors.matches("there is no mirror").count(), 1, "{what}: {}", built.errors);
    }
    for result in run("find", &[team.path("mirror/results").to_str().unwrap(), "-type", "f"]).lines() {
        fs::remove_file(result).unwrap();
        run("mkfifo", &[result]);
    }
    team.second("file:mirror", &[]).assert_same(&first, "pipes");
    // What is required has to be there.
    let required = team.build("second", &["--remote-required"]);
    assert_eq!(required.code, Some(2), "{}", required.errors);
    let own = team.build(
        "second",
        &["--remote", "file:mirror", "--remote-trust", "trust-other", "--remote-key", "key"],
    );
    assert!(own.errors.contains("is not among the trusted keys"), "{}", own.errors);
}

#[test]
fn what_no_longer_counts_does_not_where_nobody_is_asked_either() {
    let team = Team::new();
    team.build("first", &[]);
    let spec = team.live.spec();
    let push =
        ["store", "push", &spec, "--store", "store-first", "--to", "file:mirror", "--remote-trust", "trust"];
    team.ok(&[&push[..], &["--remote-key", "key"]].concat());
    assert!(team.second("file:mirror", &[]).fetched().len() > 8);
    let other = team.ok(&["remote", "keygen", "other", "--out", "key-other"]);
    fs::write(team.path("trust-other"), other).unwrap();
    let offline =
        team.build("second", &["--offline", "--remote", "file:mirror", "--remote-trust", "trust-other"]);
    assert!(offline.ran().len() > 8, "{:?}", offline.ran());
    // Pushing with another list takes nothing away.
    team.second("file:mirror", &[]);
    let to = ["--store", "store-second", "--to", "file:third", "--remote-trust", "trust-other"];
    let push = [&["store", "push", &spec][..], &to, &["--remote-key", "key-other"]].concat();
    let lacking = team.run(&push);
    assert_eq!(lacking.status.code(), Some(3), "{lacking:?}");
    let said = String::from_utf8_lossy(&lacking.stderr).into_owned();
    assert!(said.contains("hint: fetch what is elsewhere first"), "{said}");
    let from = ["--store", "store-second", "--from", "file:mirror", "--remote-trust", "trust"];
    team.ok(&[&["store", "pull", &spec][..], &from].concat());
    team.ok(&push);
    assert!(team.build("second", &[]).ran().is_empty());
}

#[test]
fn secrets_and_escapes_stay_where_they_are() {
    let team = Team::new();
    let secret = team.build("second", &["--remote", "grpc://user:hidden@cache:1", "--remote-trust", "all"]);
    assert!(secret.code == Some(2) && !secret.errors.contains("hidden"), "{}", secret.errors);
    let header = ["--remote", "file:m", "--remote-trust", "all", "--remote-header", "Bearer hidden"];
    let secret = team.build("second", &header);
    assert!(secret.code == Some(2) && !secret.errors.contains("hidden"), "{}", secret.errors);
    // A result that wants to move the terminal, or to say something of its own.
    let casd = Casd::start();
    team.first(&casd.address());
    let proxy = Proxy::start(&casd.address());
    proxy.misbehave(on(
        "result",
        Act::Result(|result| {
            let text = b"{\"statement\":1,\"\x1b]0;pwned\x07\\nerror: forged\":1}".to_vec();
            result.output_files.iter_mut().for_each(|file| {
                file.digest = None;
                file.contents = text.clone();
            });
        }),
    ));
    let spec = team.live.spec();
    let args =
        ["build", &spec, "--store", "store-second", "--out", "out-second", "--remote", &proxy.address()];
    let output = team.run(&[&args[..], &["--remote-trust", "all"]].concat());
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("does not count") && !said.contains('\u{1b}') && !said.contains("\nerror: forged"),
        "{said}"
    );
}
