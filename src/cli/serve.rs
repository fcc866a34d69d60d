//! `serve`: boot files over HTTP, and for a room of machines also TFTP and proxyDHCP.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::serve::{ListenError, Local, Room, Sockets, Wish};
use clap::Args;
use graph::sandbox::Mode;

use super::args::{self, StoreArgs};
use super::building::Builder;
use super::failure::{DONE, ENVIRONMENT, FAILED, Failure, WRONG, note, print};
use crate::recipes::{self, KINDS, RecipeError, Target};
use crate::serving::{ServeError, Served};

/// How often it is looked whether something was published anew.
const LOOKING: Duration = Duration::from_secs(1);

/// Where the set of an ISO is written, which may be large.
const PLACE: &str = "/var/tmp";

/// Serves what was built, so that machines boot from it.
///
/// Files are served over HTTP, with a page that shows the machines and how far each is. With --room, machines that know nothing boot as
/// well: a proxyDHCP beside the DHCP server that is there tells them where to go, and TFTP gives them their loaders. NFS lets a machine with little memory leave its root here. Nothing is ever
/// written for anybody, and no name that a client sends gets to a file system. ctrl-C ends it.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Specs that were published under the output folder, folders with boot files, or ISOs, of which the netboot set is made first
    /// [default: all that is published]
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
    /// The output folder
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Build WHAT first, with the page showing how far it is; a set is served as soon as it is published
    #[arg(long)]
    build: bool,
    #[command(flatten)]
    store: StoreArgs,
    /// Where: an interface or an address of this machine [default: the one that its default route leaves by]
    #[arg(long, value_name = "IFACE | ADDRESS")]
    on: Option<String>,
    /// The port of HTTP [default: 80 if it may be had, else 8080]
    #[arg(long, value_name = "PORT")]
    http: Option<u16>,
    /// Answer machines that know nothing, too: TFTP, proxyDHCP and NFS. Needs root, or CAP_NET_BIND_SERVICE and CAP_NET_RAW
    #[arg(long)]
    room: bool,
    /// Tell this machine only what to boot, by its MAC; may be repeated. One that knows an address gets what is there
    #[arg(long, value_name = "MAC")]
    only: Vec<String>,
    /// Tell no machine again what to boot that has booted from here: one that installs a system starts that next
    #[arg(long)]
    once: bool,
    /// Serve nothing: say what is in the way of it
    #[arg(long, conflicts_with = "build")]
    check: bool,
    /// The port of NFS, by which a machine leaves its root on the server [default: with --room 2049 if it may be had, else 20049;
    /// without it, no NFS]
    #[arg(long, value_name = "PORT")]
    nfs: Option<u16>,
    /// Words that go behind the kernel's command line, such as `console=ttyS0,115200`
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// Serve at a public address
    #[arg(long)]
    public: bool,
    /// Whom to become once all ports are open, where this is root
    #[arg(long, value_name = "USER", default_value = "nobody")]
    user: String,
}

/// Refuses what would be more than words in a script of iPXE's.
fn check_append(words: &str) -> Result<(), Failure> {
    let is_odd = |c: char| c.is_control() || matches!(c, '$' | '#' | ';' | '|' | '&');
    match words.chars().find(|c| is_odd(*c)) {
        None => Ok(()),
        Some(odd) => Err(Failure::wrong(format!("--append {words:?}: {odd:?} means something else to iPXE"))
            .with_hint("say words of a kernel's command line, such as console=ttyS0,115200")),
    }
}

impl Serve {
    pub(super) fn run(&self) -> Result<u8, Failure> {
        check_append(&self.append)?;
        let only = self.macs()?;
        // What stops it is said before anything is read.
        let local = Local::find(self.on.as_deref()).map_err(unreachable)?;
        if !self.public {
            local.check_private().map_err(unreachable)?;
        }
        let sockets = Sockets::open(&Wish { local, http: self.http, room: self.room, nfs: self.nfs })
            .map_err(unreachable)?;
        if self.check {
            return self.look_around(sockets);
        }
        // It keeps the rights that are given up here, and is told nothing by anybody.
        let mut builder = self.builder()?;
        let mut served = self.served(builder.as_ref())?;
        let sets = match self.sets(&mut served, builder.is_some())? {
            Ok(sets) => sets,
            Err(code) => return Ok(code),
        };
        let machine = args::machine(Mode::Off)?;
        let is_another = ::serve::give_up_rights(&self.user).map_err(unreachable)?;
        for place in served.iter().filter(|place| is_another && place.folder().exists()) {
            if let Err(error) = place.check() {
                let why = cache::causes(&error).join(": ");
                let user = &self.user;
                note(&format!(
                    "{user} cannot read what will be published anew ({why}); make it readable, or name another with --user"
                ));
            }
        }
        // A folder that is published is exchanged as a whole: the one that it is in has to be read.
        let above =
            |place: &Served| place.folder().canonicalize().unwrap_or_else(|_| place.folder().to_owned());
        // A link on the way may lead elsewhere later.
        let links = |place: &Served| -> Vec<PathBuf> {
            let path = std::path::absolute(place.folder()).unwrap_or_else(|_| place.folder().to_owned());
            let links = path.ancestors().filter(|at| at.is_symlink());
            links.filter_map(|link| link.parent().map(Path::to_owned)).collect()
        };
        let own = served.iter().filter_map(|place| above(place).parent().map(Path::to_owned));
        let folders: Vec<PathBuf> = own.chain(served.iter().flat_map(links)).collect();
        let is_confined = ::serve::confine(&folders);
        is_confined.map_err(|error| Failure::environment(format!("files cannot be given up: {error}")))?;
        self.say(&sockets, &sets)?;
        let room = Room::new(sets, note).appending(&self.append).with_nfs(sockets.nfs_port);
        let room = Arc::new(room.answering(only, self.once));
        if let Some(builder) = &mut builder {
            builder.show(&room);
        }
        // How the build ended, where there is nothing to serve then.
        let nothing = std::cell::Cell::new(None);
        let mut looked = Instant::now();
        let mut said = BTreeSet::new();
        let mut each = || {
            if looked.elapsed() >= LOOKING {
                looked = Instant::now();
                // It ends before it is looked what it published: what it did publish is found then.
                let ended = builder.as_mut().and_then(Builder::ended);
                served.iter_mut().for_each(|place| look(place, &room, &mut said));
                room.site().sweep();
                if let Some(code) = ended {
                    builder = None;
                    // Nobody waits for a set that does not come.
                    nothing.set(Some(code).filter(|_| room.site().sets().is_empty() && code != DONE));
                }
            }
        };
        let is_over = || machine.signal().is_some() || nothing.get().is_some();
        ::serve::serve(&room, sockets, &is_over, &mut each)
            .map_err(|error| Failure::environment(format!("a server failed: {error}")))?;
        Ok(nothing.get().unwrap_or(DONE))
    }

    /// Reads the MACs of the machines that are to be answered.
    fn macs(&self) -> Result<BTreeSet<String>, Failure> {
        let read = |text: &String| {
            ::serve::mac(text).ok_or_else(|| {
                Failure::wrong(format!(
                    "--only {text:?} is no MAC; expected six bytes such as 52:54:00:12:34:56"
                ))
            })
        };
        self.only.iter().map(read).collect()
    }

    /// Says what is in the way of serving: the ports could be opened, so it is not they.
    fn look_around(&self, sockets: Sockets) -> Result<u8, Failure> {
        let mut found = Vec::new();
        let mut served = self.served(None)?;
        let sets = match self.sets(&mut served, false)? {
            Ok(sets) => sets,
            Err(code) => return Ok(code),
        };
        for set in &sets {
            for (firmware, loaders) in ::serve::missing_loaders(set).into_iter().filter(|_| self.room) {
                let loaders = loaders.join(" nor ");
                found.push(format!(
                    "{}: machines with {firmware} get no loader: there is neither {loaders}",
                    set.name
                ));
            }
            if set.ways.iter().all(|way| way.least_ram_mib == 0) {
                found
                    .push(format!("{}: how much memory it needs is not known: it has no manifest", set.name));
            }
        }
        let failed =
            |error: std::io::Error| Failure::environment(format!("the network cannot be asked: {error}"));
        found.extend(::serve::look_around(sockets).map_err(failed)?);
        let is_another = ::serve::give_up_rights(&self.user).map_err(unreachable)?;
        for place in served.iter().filter(|_| is_another) {
            if let Err(error) = place.check() {
                found.push(format!("{} cannot read it: {}", self.user, cache::causes(&error).join(": ")));
            }
        }
        let text = match found.is_empty() {
            true => "nothing is in the way; firewalls were not looked at\n".to_owned(),
            false => found.iter().map(|line| format!("{line}\n")).collect(),
        };
        print(text.as_bytes())?;
        Ok(if found.is_empty() { DONE } else { FAILED })
    }

    /// Reads what is there to be served; the exit code, where there is nothing of an ISO.
    fn sets(&self, served: &mut [Served], is_built: bool) -> Result<Result<Vec<::serve::Set>, u8>, Failure> {
        let mut sets: Vec<::serve::Set> = Vec::new();
        for place in served {
            match place.read() {
                Ok(set) => sets.extend(set),
                // It is not there yet.
                Err(_) if is_built && !place.folder().exists() => {}
                Err(error) => return Err(failure(&error)),
            }
        }
        for iso in self.what.iter().map(Path::new).filter(|what| !is_built && what.is_file()) {
            match set_of_iso(iso)? {
                Ok(set) => sets.push(set),
                Err(code) => return Ok(Err(code)),
            }
        }
        let is_twice = |(i, set): &(usize, &::serve::Set)| sets[..*i].iter().any(|s| s.name == set.name);
        match sets.iter().enumerate().find(is_twice) {
            None => Ok(Ok(sets)),
            Some((_, twice)) => Err(Failure::wrong(format!(
                "two of these are called {}; each needs a name of its own",
                twice.name
            ))),
        }
    }

    /// Begins the build that is wanted, if one is.
    fn builder(&self) -> Result<Option<Builder>, Failure> {
        if !self.build {
            return Ok(None);
        }
        if self.what.is_empty() {
            return Err(
                Failure::wrong("--build builds what is named").with_hint("stagegraph serve SPEC --build")
            );
        }
        Builder::start(&self.what, &self.out, &self.store).map(Some)
    }

    /// Finds what is to be served; what is being built need not be there yet.
    fn served(&self, builder: Option<&Builder>) -> Result<Vec<Served>, Failure> {
        if let Some(builder) = builder {
            let served = builder.names().map(|name| Served::later(&self.out.join(name), name.to_owned()));
            return served.collect::<Result<_, _>>().map_err(|error| failure(&error));
        }
        let folders: Vec<PathBuf> = match self.what.is_empty() {
            true => published(&self.out)?,
            false => {
                let folders = self.what.iter().filter(|what| !Path::new(what).is_file());
                folders.map(|what| folder(&self.out, what)).collect::<Result<_, Failure>>()?
            }
        };
        let served = folders.iter().map(|folder| Served::of(folder));
        served.collect::<Result<_, _>>().map_err(|error| failure(&error))
    }

    fn say(&self, sockets: &Sockets, sets: &[::serve::Set]) -> Result<(), Failure> {
        let url = format!("http://{}", sockets.address);
        let mut text = format!("serving at {url}/\n");
        for set in sets {
            text.push_str(&format!("  {url}/{}/boot.ipxe  {}\n", set.name, set.title));
            for way in &set.ways {
                let needs = match way.least_ram_mib {
                    0 => "how much memory it needs is not known".to_owned(),
                    mib => format!("from {mib} MiB of memory"),
                };
                text.push_str(&format!("    {:<14} {needs}\n", way.name));
            }
        }
        if let Some(port) = sockets.nfs_port {
            let host = ::serve::nfs_host(sockets.address.ip());
            text.push_str(&format!(
                "over NFS:   {host}:/, version 3, port and mount port {port}, read-only\n"
            ));
        }
        text.push_str(&format!("from iPXE:  dhcp && chain {url}/boot.ipxe\n"));
        if self.room {
            text.push_str("machines on this network that boot by PXE or UEFI HTTP are answered\n");
        }
        print(text.as_bytes()).map(drop)
    }
}

/// Returns the folders that are published.
fn published(out: &Path) -> Result<Vec<PathBuf>, Failure> {
    let shown = out.display();
    let nothing = || {
        Failure::wrong(format!("nothing is published under {shown}")).with_hint(
            "build something first (stagegraph build amd64-minimal), or name a folder with boot files",
        )
    };
    let entries = std::fs::read_dir(out).map_err(|_| nothing())?;
    let boots = |path: &PathBuf| {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && (path.join("boot.ipxe").is_file() || path.join("netboot/boot.ipxe").is_file())
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(boots).collect();
    found.sort();
    if found.is_empty() { Err(nothing()) } else { Ok(found) }
}

/// Makes the set of an ISO. Its files are opened, and have no names any more: they go with this process. The exit code, where there is none.
fn set_of_iso(iso: &Path) -> Result<Result<::serve::Set, u8>, Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("a folder below {PLACE}: {error}"));
    let place = tempfile::Builder::new().prefix("stagegraph-serve-").tempdir_in(PLACE).map_err(failed)?;
    let name = iso.file_stem().unwrap_or_default().to_string_lossy();
    let fitting = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let dir = place.path().join(name.trim_start_matches('.').chars().map(fitting).collect::<String>());
    let code = super::extract::write(iso, &dir, &[])?;
    if code != DONE {
        return Ok(Err(code));
    }
    let set = Served::of(&dir).and_then(|mut served| served.read()).map_err(|error| failure(&error))?;
    set.map(Ok).ok_or_else(|| Failure::environment(format!("{} changed while it was read", dir.display())))
}

/// Finds the folder that a word means: one that is there, or what a spec of that name published.
fn folder(out: &Path, what: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(what);
    if path.is_file() {
        let message = format!("{what} is a file; a folder with boot files is served");
        let hint = format!("of an ISO, make its netboot set first: stagegraph extract {what} DIR");
        return Err(Failure::wrong(message).with_hint(hint));
    }
    let name = path.file_stem().unwrap_or_default();
    let places = [path.to_owned(), out.join(what), out.join(name)];
    let found = places.into_iter().find(|place| place.is_dir());
    found.ok_or_else(|| {
        Failure::wrong(format!(
            "there is neither a folder {what} nor one of that name under {}",
            out.display()
        ))
        .with_hint(format!("build it first: stagegraph build {what}"))
    })
}

/// Prints the lines by which other servers and programs boot a set.
///
/// They are for who keeps a boot server of their own; the files are to be served by it, or by `stagegraph serve`.
#[derive(Debug, Args)]
pub(super) struct Recipe {
    /// Whose lines: dnsmasq, openwrt, kea, isc, mikrotik, nginx, qemu, virt-install, ipxe or grub
    #[arg(value_name = "PROGRAM")]
    kind: String,
    /// A spec that was published under the output folder, or a folder with boot files [default: the only one that is published]
    #[arg(value_name = "WHAT")]
    what: Option<String>,
    /// The output folder
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// The machine that serves it: an interface or an address of this one [default: the one that its default route leaves by]
    #[arg(long, value_name = "IFACE | ADDRESS")]
    on: Option<String>,
    /// The port that `serve` has HTTP at
    #[arg(long, value_name = "PORT", default_value = "80")]
    http: u16,
    /// The address of the folder with boot.ipxe over HTTP [default: where `serve` has it]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Recipe {
    pub(super) fn run(&self) -> Result<u8, Failure> {
        let kind = KINDS.iter().find(|(name, _)| *name == self.kind).ok_or_else(|| {
            let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            Failure::wrong(format!("there is no recipe for {:?}; there are {}", self.kind, known.join(", ")))
        })?;
        let place = match &self.what {
            Some(what) => folder(&self.out, what)?,
            None => match &published(&self.out)?[..] {
                [only] => only.clone(),
                _ => return Err(Failure::wrong("several are published; name one")),
            },
        };
        let set = Served::of(&place).and_then(|mut served| served.read()).map_err(|error| failure(&error))?;
        let Some(set) = set else { return Ok(DONE) };
        let local = Local::find(self.on.as_deref()).map_err(unreachable)?;
        let host = local.address.to_string();
        let below = set.folder.trim_end_matches('/');
        let url = match &self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let port = if self.http == 80 { String::new() } else { format!(":{}", self.http) };
                format!("http://{host}{port}/{}/{below}", set.name).trim_end_matches('/').to_owned()
            }
        };
        let full = std::fs::canonicalize(&place)
            .map_err(|error| Failure::environment(format!("{}: {error}", place.display())))?;
        let folder = full.join(below).display().to_string();
        let kernel = crate::serving::kernel(&set);
        let beside = set.files.keys().filter_map(|path| path.strip_prefix(&set.folder));
        let loaders = beside.map(str::to_owned).collect();
        let folder = folder.trim_end_matches('/').to_owned();
        let place = Target { host, url, folder, loaders, kernel };
        let lines = recipes::lines(kind.1, &place).map_err(|error| {
            let failure = Failure::of(WRONG, &error);
            match error {
                RecipeError::NoKernel => failure,
                RecipeError::Port(_) => {
                    failure.with_hint("serve with --http 80, and leave --http and --url out here")
                }
            }
        })?;
        print(lines.as_bytes())
    }
}

/// Serves a folder anew where it was published anew.
fn look(place: &mut Served, room: &Room, said: &mut BTreeSet<String>) {
    match place.read() {
        Ok(None) => {}
        Ok(Some(set)) => {
            let is_new = room.site().sets().iter().all(|known| known.name != set.name);
            note(&match is_new {
                true => format!("{} is published, and served", set.name),
                false => format!(
                    "{} was published anew; machines that boot go on with the build they began with",
                    set.name
                ),
            });
            room.replace(set);
        }
        // What was opened is served on. A folder that is being exchanged is there again the next time.
        Err(error) => {
            let why = cache::causes(&error).join(": ");
            let text = format!("{}: {why}; what was read before is served on", place.folder().display());
            if said.insert(text.clone()) && place.folder().exists() {
                note(&text);
            }
        }
    }
}

fn failure(error: &ServeError) -> Failure {
    let code = match error {
        ServeError::File(_) => ENVIRONMENT,
        ServeError::Manifest { .. }
        | ServeError::NothingBoots(_)
        | ServeError::TooMany(_)
        | ServeError::Name(_) => WRONG,
    };
    let failure = Failure::of(code, error);
    match error {
        ServeError::NothingBoots(folder) => failure
            .with_hint(format!("if {0} is an output folder: stagegraph serve --out {0}", folder.display())),
        _ => failure,
    }
}

fn unreachable(error: ListenError) -> Failure {
    match error {
        ListenError::Interface(..)
        | ListenError::Public(_)
        | ListenError::NotV4(_)
        | ListenError::Inherited(_)
        | ListenError::NotGiven(_)
        | ListenError::NoUser(_) => Failure::of(WRONG, &error),
        ListenError::Port { .. } => Failure::of(ENVIRONMENT, &error).with_hint(
            "another server has the port, or the right to open it is missing (root, or CAP_NET_BIND_SERVICE)",
        ),
        _ => Failure::of(ENVIRONMENT, &error),
    }
}
