//! `stagegraph catalyst`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};
use graph::sandbox::Mode;

use super::args::finder;
use super::failure::{ENVIRONMENT, Failure, WRONG, complain, print, refused, with_causes};
use super::machine::{self, Machine};
use crate::catalyst::{Request, RequestError, RequestOutput, RequestResult, SCHEMA, TARGET, TARGET_PATH};
use crate::publish;
use crate::report::{Reporter, Style};
use crate::spec::{Overrides, Spec};

#[derive(Debug, Args)]
pub(super) struct Catalyst {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Puts the target livecd-stagegraph into catalyst: one Python file
    Install {
        #[command(flatten)]
        place: Place,
    },
    /// Takes the target out of catalyst
    Uninstall {
        #[command(flatten)]
        place: Place,
    },
    /// Packs what catalyst made: ISO, netboot set, digests; the target calls this
    Finish {
        /// The request that the target wrote; it can be run again as long as catalyst keeps its work folder
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// Print what tools print
        #[arg(short, long)]
        verbose: bool,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// The folder that holds catalyst/targets [default: where python3 finds catalyst]
    #[arg(long, value_name = "DIR")]
    catalyst_dir: Option<PathBuf>,
}

impl Place {
    fn file(&self) -> Result<PathBuf, Failure> {
        if let Some(dir) = &self.catalyst_dir {
            return Ok(dir.join(TARGET_PATH));
        }
        let script = "import catalyst, os; print(os.path.dirname(os.path.dirname(os.path.abspath(catalyst.__file__))))";
        let output = Command::new("python3").args(["-c", script]).output();
        match output {
            Ok(output) if output.status.success() => {
                Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join(TARGET_PATH))
            }
            _ => Err(Failure::environment(
                "python3 does not find catalyst; name the folder that holds catalyst/targets with --catalyst-dir",
            )),
        }
    }
}

impl Catalyst {
    pub(super) fn run(self) -> Result<u8, Failure> {
        match self.verb {
            Verb::Install { place } => install(&place.file()?),
            Verb::Uninstall { place } => uninstall(&place.file()?),
            Verb::Finish { request, verbose } => finish(&request, verbose),
        }
    }
}

/// Tells whether a file is the target, of whatever version.
fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("class livecd_stagegraph(livecd_stage2)"))
}

fn install(path: &Path) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::environment(format!("write {}: {error}", path.display()));
    if path.exists() && !is_ours(path) {
        return Err(Failure::environment(format!(
            "{} is there, and is not stagegraph's; move it away",
            path.display()
        )));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    // Below an empty folder it is made; beside other things, the folder is another one than was meant.
    let top = folder.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    let is_empty = std::fs::read_dir(top).is_ok_and(|mut entries| entries.next().is_none());
    if top.exists() && !is_empty && !folder.is_dir() {
        return Err(Failure::environment(format!(
            "{} is not there; name the folder that holds catalyst/targets with --catalyst-dir",
            folder.display()
        )));
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    std::fs::write(&fresh, TARGET)
        .and_then(|()| std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o644)))
        .and_then(|()| std::fs::rename(&fresh, path))
        .map_err(failed)?;
    print(format!("installed {}; say `target: livecd-stagegraph` in a spec\n", path.display()).as_bytes())
}

fn uninstall(path: &Path) -> Result<u8, Failure> {
    if !path.exists() {
        return print(format!("{} is not there\n", path.display()).as_bytes());
    }
    if !is_ours(path) {
        return Err(Failure::environment(format!("{} is not stagegraph's; it stays", path.display())));
    }
    std::fs::remove_file(path)
        .map_err(|error| Failure::environment(format!("remove {}: {error}", path.display())))?;
    print(format!("removed {}\n", path.display()).as_bytes())
}

fn request_failure(error: &RequestError) -> Failure {
    let code = match error {
        RequestError::Read { .. } => ENVIRONMENT,
        RequestError::Syntax { .. }
        | RequestError::Schema { .. }
        | RequestError::Relative { .. }
        | RequestError::Wanted(_) => WRONG,
    };
    Failure { code, message: with_causes(error) }
}

/// Ends this process when catalyst ends: catalyst leaves its children behind.
fn die_with_catalyst() -> Result<(), Failure> {
    let failed = |error| Failure::environment(format!("ask to be told of catalyst's end: {error}"));
    let before = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM)).map_err(failed)?;
    // It may have ended between the two.
    if rustix::process::getppid() != before {
        return Err(Failure::environment("catalyst has ended"));
    }
    Ok(())
}

fn finish(path: &Path, verbose: bool) -> Result<u8, Failure> {
    let machine = Machine::new(Mode::On)?;
    die_with_catalyst()?;
    let request = Request::read(path).map_err(|error| request_failure(&error))?;
    let text = request.spec().map_err(|error| request_failure(&error))?;
    let (Some(folder), Some(name)) = (request.image.iso.parent(), request.image.iso.file_name()) else {
        return Err(Failure { code: WRONG, message: "livecd/iso names no file".to_owned() });
    };
    let name = name.to_string_lossy().into_owned();
    if !request.image.has_iso() && request.image.iso.exists() {
        return Err(Failure::environment(format!(
            "{} is there, of an earlier run that made it; beside another netboot set it would not match: move it and its \
             lists away",
            request.image.iso.display()
        )));
    }
    let fresh = request.result.with_extension("new");
    let unwritten =
        |error: std::io::Error| Failure::environment(format!("write {}: {error}", request.result.display()));
    // Found out before anything is published.
    std::fs::write(&fresh, "").map_err(unwritten)?;
    let store = cache::Store::open(&request.store)?;
    let work = store.work_dir()?;
    let file = work.path().join("catalyst-request.toml");
    std::fs::write(&file, text)
        .map_err(|error| Failure::environment(format!("write {}: {error}", file.display())))?;
    let overrides = Overrides { set: request.set.clone(), epoch: None };
    let spec = Spec::load(&finder(), &file.to_string_lossy(), &overrides)?;
    let reporter = Reporter::new(Style { json: false, verbose });
    let wanted: Vec<_> = spec.dag.nodes().keys().cloned().collect();
    let built = machine.build(&store, &spec, &wanted, &reporter, &machine::usual(name.clone()))?;
    reporter.finish(&built);
    if let Some(code) = machine.stopped() {
        complain("error: stopped; what was finished is kept");
        return Ok(code);
    }
    if let Some(fault) = built.fault() {
        return Ok(machine::code(fault));
    }
    let published = publish::publish_beside(&store, &spec, &built, folder, &name)?;
    // What is published is kept as long as it lies there.
    let kept = published.files.keys().find(|file| **file == name).or_else(|| published.files.keys().next());
    if let Some(kept) = kept {
        store.set_root(&folder.join(kept), &name, &built.actions())?;
    }
    let outputs = published
        .files
        .iter()
        .map(|(file, digest)| RequestOutput { path: folder.join(file), blake3: *digest })
        .collect();
    let mut text = serde_json::to_vec_pretty(&RequestResult { schema: SCHEMA, outputs })
        .map_err(|error| Failure::environment(error.to_string()))?;
    text.push(b'\n');
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, &request.result))
        .map_err(unwritten)?;
    reporter.published(folder, &published);
    Ok(refused(request.image.refused_iso().as_deref()))
}
