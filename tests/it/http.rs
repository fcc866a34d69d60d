//! Reading from servers: a real one, and one that does all that servers should not.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stagegraph::formats::ReadAt;
use stagegraph::http::{Client, Patience};
use url::Url;

use crate::live::Live;
use crate::world::run_in;

/// nginx over a folder: plain and by TLS, with and without index pages, and a redirect.
pub(crate) struct Nginx {
    child: Child,
    pub(crate) plain: u16,
    tls: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Nginx {
    pub(crate) fn start(work: &Path, serve: &Path) -> Self {
        let (plain, tls) = (free_port(), free_port());
        fs::create_dir_all(work.join("logs")).unwrap();
        // An authority of its own, and a certificate by it.
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3 -subj /CN=Tests &&
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.csr -subj /CN=localhost &&
            printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext &&
            openssl x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3 -extfile ext -out cert.pem";
        run_in(work, "sh", &["-ec", script]);
        let user = if crate::world::is_root() { "user root;" } else { "" };
        let text = format!(
            "daemon off; {user} pid nginx.pid; error_log logs/error.log;\nevents {{}}\nhttp {{\n\
             access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n\
             server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; server_name localhost;\n\
             ssl_certificate cert.pem; ssl_certificate_key key.pem; root {0};\n\
             location /listed/ {{ alias {0}/; autoindex on; }}\n\
             location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}\n\
             location /circle/ {{ rewrite ^ /circle/again redirect; }} }} }}\n",
            serve.display()
        );
        fs::write(work.join("nginx.conf"), text).unwrap();
        let prefix = work.display().to_string();
        let child = Command::new("nginx")
            .args(["-p", &prefix, "-c", "nginx.conf"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx: {error}; `make test` installs it"));
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", plain)).is_err() {
            assert!(
                Instant::now() < deadline,
                "{}",
                fs::read_to_string(work.join("logs/error.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, plain, tls }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn sets_behind_a_real_server_are_audited_by_every_address() {
    let live = Live::new();
    live.build(&[]);
    let work = live.world.path("nginx");
    fs::create_dir(&work).unwrap();
    let nginx = Nginx::start(&work, &live.out());
    let iso = live.iso().display().to_string();
    let name = live.iso().file_name().unwrap().to_str().unwrap().to_owned();
    let (plain, tls) =
        (format!("http://localhost:{}", nginx.plain), format!("https://localhost:{}", nginx.tls));
    let audit = |args: &[&str], trusted: bool| {
        let mut command = live.command(&[&["audit", "--json"], args].concat());
        if trusted {
            command.env("SSL_CERT_FILE", work.join("ca.pem"));
        }
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let findings = serde_json::from_str::<serde_json::Value>(&text).ok().map(|report| {
            let checks = report["checks"].as_array().unwrap().iter();
            checks.flat_map(|check| check["findings"].as_array().unwrap().clone()).collect::<Vec<_>>()
        });
        (output.status.code(), findings, errors)
    };
    let matches = |args: &[&str]| {
        let (code, findings, errors) = audit(args, true);
        assert_eq!((code, findings), (Some(0), Some(Vec::new())), "{args:?}: {errors}");
    };
    // Script and folder; with and without an index page; redirected; by TLS; and the ISO itself.
    matches(&[&iso, &format!("{plain}/{name}.ipxe")]);
    matches(&[&iso, &format!("{plain}/netboot/boot.ipxe")]);
    matches(&[&iso, &format!("{plain}/netboot")]);
    matches(&[&iso, &format!("{plain}/listed/netboot/")]);
    matches(&[&iso, &format!("{plain}/moved/netboot/boot.ipxe")]);
    matches(&[&iso, &format!("{tls}/netboot/")]);
    matches(&[&format!("{tls}/{name}"), &format!("{tls}/{name}.ipxe")]);

    let (code, _, errors) = audit(&[&iso, &format!("{tls}/netboot/")], false);
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.to_lowercase().contains("certificate"), "{errors}");
    for (address, says) in [
        (format!("{plain}/gone.ipxe"), "404"),
        (format!("{plain}/circle/x.ipxe"), "redirect"),
        (format!("http://localhost:{}/x.ipxe", free_port()), "refused"),
        (format!("{plain}/netboot/grub/i386-pc"), "neither a script nor a menu"),
        ("http://no-such-host.invalid/x.ipxe".to_owned(), "no-such-host.invalid"),
    ] {
        let (code, _, errors) = audit(&[&iso, &address], true);
        assert_eq!(code, Some(3), "{address}: {errors}");
        assert!(errors.contains(says), "{address}: {errors}");
    }
    // A difference is one, wherever it is.
    let script = live.published("netboot/gentoo.initrd");
    let mut bytes = fs::read(&script).unwrap();
    bytes[5] ^= 1;
    fs::remove_file(&script).unwrap();
    fs::write(&script, bytes).unwrap();
    let (code, findings, _) = audit(&[&iso, &format!("{plain}/netboot/")], true);
    assert_eq!(code, Some(1));
    assert!(format!("{findings:?}").contains("is not /boot/gentoo.igz of the ISO"), "{findings:?}");
}

/// What a server answers where others serve files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// "Forbidden", for what is not there and to every HEAD, as storage services do.
    Forbids,
    /// No HEAD at all.
    RefusesHead,
    /// A page for every name that it does not know.
    PageForAll,
    /// An error of its own for one file.
    FailsAt(&'static str),
    /// Another length to HEAD than to GET.
    LiesToHead(&'static str),
    /// Packs one file, though nobody asked for it.
    Packs(&'static str),
    /// Sends more of one file than it said, piece by piece.
    SendsMore(&'static str),
}

/// Serves a folder in such a manner; returns the address.
fn serve_folder(folder: &Path, manner: Manner) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer_as(stream, &folder, manner));
        }
    });
    format!("http://127.0.0.1:{port}/")
}

fn answer_as(mut stream: TcpStream, folder: &Path, manner: Manner) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut request, mut range) = (String::new(), None);
    reader.read_line(&mut request)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        if let Some(asked) = header.to_lowercase().trim().strip_prefix("range: bytes=") {
            let (start, end) = asked.split_once('-').unwrap();
            range = Some((start.parse::<usize>().unwrap(), end.parse::<usize>().ok()));
        }
    }
    let mut words = request.split(' ');
    let (is_head, path) =
        (words.next() == Some("HEAD"), words.next().unwrap().trim_start_matches('/').to_owned());
    let found = fs::read(folder.join(&path)).ok();
    let refusal = match (manner, &found) {
        (Manner::Forbids, _) if is_head => Some("403 Forbidden"),
        (Manner::Forbids, None) => Some("403 Forbidden"),
        (Manner::RefusesHead, _) if is_head => Some("405 Method Not Allowed"),
        (Manner::FailsAt(name), _) if name == path => Some("500 Internal Server Error"),
        (Manner::PageForAll, None) => None,
        (_, None) => Some("404 Not Found"),
        _ => None,
    };
    if let Some(status) = refusal {
        return write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let bytes = found.unwrap_or_else(|| b"\n<!DOCTYPE html><html>Welcome</html>".to_vec());
    let (start, end) =
        range.map_or((0, bytes.len()), |(start, end)| (start, end.map_or(bytes.len(), |end| end + 1)));
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n")?;
    if range.is_some() {
        write!(stream, "Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len())?;
    }
    let mut length = end - start;
    match manner {
        Manner::SendsMore(name) if name == path && !is_head => {
            write!(stream, "Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n")?;
            stream.write_all(&bytes[start..end])?;
            return write!(stream, "\r\n4\r\nmore\r\n0\r\n\r\n");
        }
        Manner::LiesToHead(name) if name == path && is_head => length -= 1,
        Manner::Packs(name) if name == path => write!(stream, "Content-Encoding: gzip\r\n")?,
        _ => {}
    }
    write!(stream, "Content-Length: {length}\r\n\r\n")?;
    if is_head { Ok(()) } else { stream.write_all(&bytes[start..end]) }
}

#[test]
fn servers_as_they_are_are_audited_and_what_they_keep_back_is_named() {
    let live = Live::new();
    live.build(&[]);
    let iso = live.iso().display().to_string();
    let folder = live.published("netboot");
    for (manner, code, says) in [
        (Manner::Forbids, 0, ""),
        (Manner::RefusesHead, 0, ""),
        (Manner::PageForAll, 0, ""),
        (Manner::FailsAt("gentoo.initrd"), 3, "gentoo.initrd: the server says 500"),
        (Manner::FailsAt("autoexec.ipxe"), 3, "autoexec.ipxe: the server says 500"),
        (Manner::LiesToHead("gentoo.combined"), 3, "bytes, and says"),
        (Manner::Packs("image.squashfs"), 3, "sends it packed (gzip)"),
        (Manner::SendsMore("gentoo.vmlinuz"), 3, "and sends more"),
    ] {
        let address = serve_folder(&folder, manner);
        let output = live.stagegraph(&["audit", &iso, &address]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(code), "{manner:?}: {text}");
        assert!(text.contains(says), "{manner:?}: {text}");
        // The rest of the set was read, and nothing that is there is called missing.
        assert!(!text.contains("FAIL") && !text.contains("is not there"), "{manner:?}: {text}");
    }
}

/// What a misbehaving server does with a file of these bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vice {
    /// Breaks every connection off in the middle.
    BreaksOff,
    /// As before, and knows no ranges.
    BreaksOffWithoutRanges,
    /// Promises more than it has.
    PromisesTooMuch,
    /// Begins, then says nothing more.
    FallsSilent,
    /// Accepts connections and never answers.
    NeverAnswers,
    /// Breaks off, and then has another file.
    ChangesTheFile,
    /// Answers a range with another one.
    AnswersAnotherRange,
}

fn serve(bytes: Vec<u8>, vice: Vice) -> (Url, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url =
        Url::parse(&format!("http://127.0.0.1:{}/file", listener.local_addr().unwrap().port())).unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (bytes, counted) = (bytes.clone(), Arc::clone(&counted));
            std::thread::spawn(move || answer(stream, &bytes, vice, &counted));
        }
    });
    (url, requests)
}

fn answer(mut stream: TcpStream, bytes: &[u8], vice: Vice, counted: &AtomicUsize) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut start = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let lower = header.to_lowercase();
        if let Some(range) = lower.strip_prefix("range: bytes=") {
            start = range.split('-').next().unwrap_or_default().parse().unwrap_or(0);
        }
    }
    if vice == Vice::NeverAnswers {
        std::thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let is_head = request.starts_with("HEAD");
    let number = if is_head { 0 } else { counted.fetch_add(1, Ordering::Relaxed) + 1 };
    let tag = if vice == Vice::ChangesTheFile && number > 1 { "\"two\"" } else { "\"one\"" };
    if vice == Vice::BreaksOffWithoutRanges || tag == "\"two\"" {
        start = 0;
    }
    let said = bytes.len() + if vice == Vice::PromisesTooMuch { 10 } else { 0 } - start;
    let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
    let shown = if vice == Vice::AnswersAnotherRange { start / 2 } else { start };
    let range = if start > 0 {
        format!("Content-Range: bytes {shown}-{}/{}\r\n", bytes.len() - 1, bytes.len())
    } else {
        String::new()
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {said}\r\n{range}ETag: {tag}\r\nConnection: close\r\n\r\n"
    )?;
    if is_head {
        return Ok(());
    }
    let rest = &bytes[start..];
    match vice {
        Vice::PromisesTooMuch => stream.write_all(rest)?,
        Vice::FallsSilent => {
            stream.write_all(&rest[..rest.len() / 2])?;
            stream.flush()?;
            std::thread::sleep(Duration::from_secs(60));
        }
        // A third of the file at a time: three connections bring it all.
        Vice::BreaksOffWithoutRanges => {
            stream.write_all(&rest[..(bytes.len() / 3 * number + 1).min(rest.len())])?
        }
        _ => stream.write_all(&rest[..(bytes.len() / 3 + 1).min(rest.len())])?,
    }
    stream.flush()
}

fn read(vice: Vice) -> (io::Result<Vec<u8>>, usize, Vec<u8>) {
    let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n % 253) as u8).collect();
    let (url, requests) = serve(bytes.clone(), vice);
    let patience = Patience {
        connect: Duration::from_secs(2),
        respond: Duration::from_millis(500),
        stall: Duration::from_millis(300),
    };
    let client = Client::new(patience);
    let mut found = Vec::new();
    let result =
        client.find(&url).map_err(io::Error::other).and_then(|file| file.reader().read_to_end(&mut found));
    (result.map(|_| found), requests.load(Ordering::Relaxed), bytes)
}

#[test]
fn a_reading_that_breaks_off_goes_on_where_it_stopped() {
    for vice in [Vice::BreaksOff, Vice::BreaksOffWithoutRanges] {
        let (result, requests, bytes) = read(vice);
        assert!(result.unwrap() == bytes);
        assert_eq!(requests, 3);
    }
}

#[test]
fn a_server_that_lies_falls_silent_or_changes_the_file_is_named() {
    for (vice, says) in [
        (Vice::PromisesTooMuch, "at byte 1000000: "),
        (Vice::FallsSilent, "nothing came for 0.3 s"),
        (Vice::NeverAnswers, "timeout"),
        (Vice::ChangesTheFile, "changed while it was read"),
        (Vice::AnswersAnotherRange, "asked for bytes from"),
    ] {
        let began = Instant::now();
        let (result, ..) = read(vice);
        let error = result.unwrap_err();
        let text = crate::http::with_causes(&error);
        assert!(text.contains(says), "{says}: {text}");
        assert!(began.elapsed() < Duration::from_secs(20), "{says}");
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[test]
fn parts_are_read_from_their_places() {
    let live = Live::new();
    let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    fs::write(live.world.path("file"), &bytes).unwrap();
    let work = live.world.path("nginx");
    fs::create_dir(&work).unwrap();
    let nginx = Nginx::start(&work, live.world.dir.path());
    let url = Url::parse(&format!("http://localhost:{}/file", nginx.plain)).unwrap();
    let file = Client::new(Patience::default()).find(&url).unwrap();
    let mut part = [0; 1000];
    file.read_exact_at(&mut part, 77_777).unwrap();
    assert!(part[..] == bytes[77_777..78_777]);
    assert!(file.read_exact_at(&mut part, 99_500).is_err());
}
