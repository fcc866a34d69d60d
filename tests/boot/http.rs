//! A web server in the test's own process; its log is an assertion, too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub(crate) struct Server {
    pub(crate) port: u16,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves the files below `dir`, and as `/test.ipxe` what `script` gives for the port.
    pub(crate) fn start(dir: &Path, script: &dyn Fn(u16) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (dir, script, shared) = (dir.to_owned(), script(port), Arc::clone(&log));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (dir, script, log) = (dir.clone(), script.clone(), Arc::clone(&shared));
                // A client that goes away is its own business.
                std::thread::spawn(move || answer(stream, &dir, &script, &log));
            }
        });
        Self { port, log }
    }

    /// Returns the paths that were asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, dir: &Path, script: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? <= 2 {
                break;
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        log.lock().unwrap().push(path.to_owned());
        let file: PathBuf = dir.join(path.trim_start_matches('/'));
        let (status, mut body, length): (_, Box<dyn io::Read>, u64) = if path == "/test.ipxe" {
            ("200 OK", Box::new(io::Cursor::new(script.to_owned())), script.len() as u64)
        } else if let (Ok(file), false) = (File::open(&file), path.contains("..")) {
            let length = file.metadata()?.len();
            ("200 OK", Box::new(file), length)
        } else {
            ("404 Not Found", Box::new(io::empty()), 0)
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n")?;
        if method != "HEAD" {
            io::copy(&mut body, &mut stream)?;
        }
        stream.flush()?;
    }
}
