//! The catalyst that is installed, and how it is configured: it is asked itself, once.

use std::path::{Path, PathBuf};
use std::process::Command;

use cache::file::OnFile;
use graph::{Resolving, StepError};
use serde::{Deserialize, Serialize};

/// Prints catalyst's settings as JSON.
const ASK: &str = "import sys, json, os, catalyst\n\
                   from catalyst import main\n\
                   main.parse_config(sys.argv[1:])\n\
                   values = main.conf_values\n\
                   names = ('storedir', 'sharedir', 'repo_name', 'envscript')\n\
                   found = {name: values[name] for name in names if name in values}\n\
                   found['options'] = sorted(values['options'])\n\
                   found['package'] = os.path.dirname(os.path.abspath(catalyst.__file__))\n\
                   sys.stdout.write('\\n' + json.dumps(found))";

/// Where catalyst is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) conf: PathBuf,
    pub(super) python: String,
    pub(super) dir: Option<PathBuf>,
}

/// The catalyst of this machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Installed {
    /// Where builds, snapshots and seeds are.
    pub(super) storedir: PathBuf,
    /// Its scripts and other data.
    pub(super) sharedir: PathBuf,
    /// The repository's name, which is in the snapshots' names.
    pub(super) repo_name: String,
    /// A script that it runs everywhere.
    pub(super) envscript: Option<PathBuf>,
    /// Its options.
    pub(super) options: Vec<String>,
    /// Its Python package.
    pub(super) package: PathBuf,
    #[serde(skip)]
    pub(super) conf: PathBuf,
    #[serde(skip)]
    python: PathBuf,
    #[serde(skip)]
    dir: Option<PathBuf>,
    /// util-linux's program, which gives a process a PID namespace.
    #[serde(skip)]
    pub(super) unshare: PathBuf,
}

impl Installed {
    /// Finds it and asks how it is configured; the answer holds as long as the configuration is the same.
    pub(super) fn find(resolving: &Resolving<'_>, place: &Place) -> Result<Self, StepError> {
        let python = if place.python.contains('/') {
            Some(PathBuf::from(&place.python)).filter(|path| path.is_file())
        } else {
            resolving.tools.locate(&place.python)
        };
        let python = python.ok_or_else(|| {
            StepError::environment(format!("{}, which is to run catalyst, is not there", place.python))
                .with_hint("name another with the setting `python`")
        })?;
        if !place.conf.is_file() {
            return Err(StepError::environment(format!("{} is not there", place.conf.display()))
                .with_hint("it is catalyst's configuration; name another with the setting `conf`"));
        }
        let conf = place.conf.canonicalize().on_file("resolve", &place.conf)?;
        let unshare = resolving.tools.locate("unshare").ok_or_else(|| {
            StepError::environment("unshare is not installed").with_hint("it is part of util-linux")
        })?;
        let key = format!("{} {:?} {}", python.display(), place.dir, resolving.objects.file_digest(&conf)?);
        let placed = |found: Self| Self {
            conf: conf.clone(),
            python: python.clone(),
            dir: place.dir.clone(),
            unshare: unshare.clone(),
            ..found
        };
        let known = resolving.objects.memo("catalyst", &key)?;
        let known: Option<Self> = known.and_then(|text| serde_json::from_str(&text).ok());
        if let Some(known) = known.filter(|known| known.package.is_dir()) {
            return Ok(placed(known));
        }
        let mut command = python_command(&python, place.dir.as_deref(), ASK);
        let output = command.arg(&conf).output().map_err(|error| {
            StepError::environment(format!(
                "{}, which is to run catalyst, cannot be run: {error}",
                python.display()
            ))
            .with_hint("name another with the setting `python`")
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("nothing").to_owned();
            return Err(StepError::environment(format!(
                "{} does not run catalyst: {said}",
                python.display()
            ))
            .with_hint("install catalyst, or name the folder that holds its Python package with `dir`"));
        }
        let found: Self = serde_json::from_str(last).map_err(|error| {
            StepError::environment(format!("catalyst's settings cannot be read: {error}"))
        })?;
        resolving.objects.set_memo("catalyst", &key, last)?;
        Ok(placed(found))
    }

    /// Returns the command that runs a script with catalyst in reach.
    pub(super) fn command(&self, script: &str) -> Command {
        python_command(&self.python, self.dir.as_deref(), script)
    }
}

fn python_command(python: &Path, dir: Option<&Path>, script: &str) -> Command {
    let mut command = Command::new(python);
    // No byte code is left behind, and no warnings about it.
    command.args(["-B", "-c", script]).env_clear();
    for (name, value) in
        [("PATH", graph::tool::PATH), ("HOME", "/root"), ("TERM", "dumb"), ("LC_ALL", "C.UTF-8")]
    {
        command.env(name, value);
    }
    command.envs(dir.map(|dir| ("PYTHONPATH", dir)));
    command
}
