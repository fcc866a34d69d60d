//! The build that `serve --build` begins: another process of this program, which keeps the rights that the server gives up.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use ::serve::Room;

use super::args::{SpecArgs, StoreArgs, finder};
use super::failure::{DONE, FAILED, Failure, note};
use crate::building::{Building, Taken};
use crate::config::SpecErrors;
use crate::spec::Spec;

/// A build that runs. It ends with this: it reads from what this process holds open, whoever that is by then, and keeps what it has made.
pub(super) struct Builder {
    child: Child,
    /// The names of the specs.
    names: Vec<String>,
    building: Option<Building>,
    reader: Option<JoinHandle<()>>,
}

impl Builder {
    /// Begins to build these.
    pub(super) fn start(what: &[String], out: &Path, store: &StoreArgs) -> Result<Self, Failure> {
        let overrides = SpecArgs { set: Vec::new() }.overrides();
        let mut errors = SpecErrors::default();
        let specs = what.iter().map(|name| errors.check(Spec::load(&finder(), name, &overrides)));
        let specs: Vec<Spec> = specs.collect::<Vec<_>>().into_iter().flatten().collect();
        let specs = errors.or(specs)?;
        let failed =
            |error: std::io::Error| Failure::environment(format!("the build cannot be started: {error}"));
        // The server gives up all files but those below it.
        std::fs::create_dir_all(out)
            .map_err(|error| Failure::environment(format!("make {}: {error}", out.display())))?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(["build", "--json", "--ends-with-parent", "--out"]).arg(out);
        command.arg("--store").arg(store.dir()?).arg("--").args(what);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let names = specs.iter().map(|spec| spec.name.clone()).collect();
        Ok(Self { child, names, building: Some(Building::new(specs)), reader: None })
    }

    /// Returns the names of the specs, which are those of the folders that they are published in.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Shows how far it is, until it is over.
    pub(super) fn show(&mut self, room: &Arc<Room>) {
        let (Some(stdout), Some(mut building)) = (self.child.stdout.take(), self.building.take()) else {
            return;
        };
        let room = Arc::clone(room);
        building.works().for_each(|work| room.show(work));
        self.reader = Some(std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let taken = building.take(&line);
                if let Taken::Failed(why) = &taken {
                    note(why);
                }
                if taken != Taken::Nothing {
                    building.works().for_each(|work| room.show(work));
                }
            }
            building.over();
            building.works().for_each(|work| room.show(work));
        }));
    }

    /// Returns its exit code, once it has ended, and says so.
    pub(super) fn ended(&mut self) -> Option<u8> {
        let status = self.child.try_wait().ok()??;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if status.success() {
            note("what was to be built is built");
            return Some(DONE);
        }
        note(&format!("the build ended ({status}); what is published is served"));
        Some(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
    }
}
