//! What to do about errors of the engine and of the store, which know no package manager and no option of this program.

use std::error::Error;
use std::io;

use cache::StoreError;
use graph::StepError;
use graph::sandbox::SandboxError;
use graph::tool::ToolError;

/// Returns what to do about a step's error that says nothing of it itself.
pub fn of_step(error: &StepError) -> Option<String> {
    of(error)
}

/// Returns what to do about an error, or about the first of its causes that is known here.
pub fn of(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let wraps = error.downcast_ref::<StepError>();
        let hint = wraps
            .and_then(|error| error.hint.clone())
            .or_else(|| error.downcast_ref().and_then(of_tool))
            .or_else(|| error.downcast_ref().and_then(of_sandbox))
            .or_else(|| error.downcast_ref().and_then(of_store))
            .or_else(|| error.downcast_ref().and_then(of_system));
        if hint.is_some() {
            return hint;
        }
        // These two show the error that is in them as their own, and not as a cause.
        let inside = wraps.map(StepError::cause).or_else(|| {
            let inside = error.downcast_ref::<io::Error>()?.get_ref()?;
            Some(inside as &(dyn Error + 'static))
        });
        next = inside.or_else(|| error.source());
    }
    None
}

fn of_tool(error: &ToolError) -> Option<String> {
    match error {
        ToolError::Missing { package, .. } | ToolError::MissingData { package, .. }
            if !package.is_empty() =>
        {
            Some(format!("install it; on Debian: apt-get install {package}"))
        }
        ToolError::NotInToolbox { package, .. } if !package.is_empty() => Some(format!(
            "add {package} to the packages of the node whose root is the input \"tools\""
        )),
        ToolError::NotInToolbox { .. } => Some(
            "add the package that has it to the node whose root is the input \"tools\"; a name that no package has is made \
             with links"
                .to_owned(),
        ),
        ToolError::NoExec { .. } => Some(
            "name a store elsewhere with --store, or take this machine's own programs: --set NODE.step=host, of the node whose \
             root is the input \"tools\""
                .to_owned(),
        ),
        ToolError::NeedsSandbox => Some(
            "build without --sandbox=off; or with this machine's own programs: --set NODE.step=host, of the node whose root is the \
             input \"tools\""
                .to_owned(),
        ),
        ToolError::ToolboxChanged { .. } => {
            Some("nothing it gave was recorded, and it is made again; build again".to_owned())
        }
        ToolError::Changed { .. } => {
            Some("nothing it gave was recorded; build again when nobody is installing anything".to_owned())
        }
        _ => None,
    }
}

fn of_sandbox(error: &SandboxError) -> Option<String> {
    match error {
        SandboxError::NoBubblewrap => {
            Some("install it (on Debian: apt-get install bubblewrap), or build with --sandbox=off".to_owned())
        }
        SandboxError::Forbidden(_) => Some(
            "allow user namespaces, also where root builds: sysctl kernel.unprivileged_userns_clone=1, \
             user.max_user_namespaces above 0, kernel.apparmor_restrict_unprivileged_userns=0; in a container, allow \
             unshare and mount; or build with --sandbox=off, which marks the result"
                .to_owned(),
        ),
        _ => None,
    }
}

fn of_store(error: &StoreError) -> Option<String> {
    let text = match error {
        StoreError::IndexDamaged { .. } => {
            "move it away, with the files next to it whose names begin with its name: objects stay, and what was built is \
             built again"
        }
        StoreError::Version { .. } => {
            "use the version of stagegraph that wrote it, or another folder: --store DIR"
        }
        StoreError::Damaged(_) | StoreError::Changed { .. } | StoreError::NotATree { .. } => "build again",
        _ => return None,
    };
    Some(text.to_owned())
}

fn of_system(error: &io::Error) -> Option<String> {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    is_full.then(|| "make room: `stagegraph store gc` removes what no published folder needs".to_owned())
}

#[cfg(test)]
mod tests {
    use cache::FileError;

    use super::*;

    #[test]
    fn a_hint_is_found_behind_any_number_of_causes_and_a_steps_own_goes_first() {
        let missing = || ToolError::Missing {
            name: "xorriso".to_owned(),
            searched: Vec::new(),
            package: "xorriso".to_owned(),
        };
        let deep = StepError::action(StepError::from(missing()));
        assert_eq!(of_step(&deep).unwrap(), "install it; on Debian: apt-get install xorriso");
        let own = StepError::from(missing()).with_hint("go without");
        assert_eq!(of_step(&own).unwrap(), "go without");
        assert_eq!(of_step(&StepError::action("why")), None);
    }

    #[test]
    fn a_full_disk_says_how_to_make_room() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let full = StoreError::from(FileError { what: "write", path: "/x".into(), source });
        assert!(of(&full).unwrap().contains("store gc"));
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let full = StepError::from(FileError { what: "write", path: "/x".into(), source });
        assert!(of_step(&full).unwrap().contains("store gc"));
    }
}
