//! A build as others see it: what `build --json` tells, as parts that are waited for, made or there, and a picture of them.

use std::collections::BTreeMap;

use graph::NodeName;
use serde::Deserialize;
use serve::{Part, State, Work};

use crate::plan;
use crate::spec::Spec;

/// The specs of a build, and how far each of their nodes is.
pub struct Building {
    specs: Vec<Of>,
}

/// One of the specs.
struct Of {
    spec: Spec,
    nodes: BTreeMap<NodeName, (State, String)>,
    state: State,
    says: String,
}

/// An event, as far as it is of interest here; `docs/plan.md` has all of them.
#[derive(Debug, Deserialize)]
struct Event {
    event: String,
    node: Option<String>,
    milliseconds: Option<u64>,
    doing: Option<String>,
    #[serde(default)]
    causes: Vec<String>,
    hint: Option<String>,
    folder: Option<String>,
}

/// What a line of a build was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Of no interest.
    Nothing,
    /// Something changed.
    Change,
    /// A node failed, and why.
    Failed(String),
}

impl Building {
    /// A build of these that has not begun.
    pub fn new(specs: Vec<Spec>) -> Self {
        let of = |spec: Spec| {
            let waiting = |node: &NodeName| (node.clone(), (State::Waiting, String::new()));
            let nodes = spec.dag.nodes().keys().map(waiting).collect();
            Of { spec, nodes, state: State::Waiting, says: "waits".to_owned() }
        };
        Self { specs: specs.into_iter().map(of).collect() }
    }

    /// Takes in a line that the build printed.
    pub fn take(&mut self, line: &str) -> Taken {
        let Ok(event) = serde_json::from_str::<Event>(line) else { return Taken::Nothing };
        if let Some(folder) = event.folder.as_deref().filter(|_| event.event == "published") {
            // DIR/SPEC
            let name = folder.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            let Some(of) = self.specs.iter_mut().find(|of| of.spec.name == name) else {
                return Taken::Nothing;
            };
            (of.state, of.says) = (State::Done, "is built, and its audit found no difference".to_owned());
            return Taken::Change;
        }
        let is_one = self.specs.len() == 1;
        let Some(name) = &event.node else { return Taken::Nothing };
        let found = self.specs.iter_mut().find_map(|of| {
            // Of several specs, a node is called SPEC:NODE.
            let own = if is_one { name } else { name.strip_prefix(&of.spec.name)?.strip_prefix(':')? };
            let node = of.nodes.keys().find(|node| node.as_str() == own)?.clone();
            Some((of, node))
        });
        let Some((of, node)) = found else { return Taken::Nothing };
        let seconds = |milliseconds: u64| format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100);
        let now = match event.event.as_str() {
            "started" => (State::Running, String::new()),
            "progress" => (State::Running, event.doing.unwrap_or_default()),
            // What did not run took no time.
            "finished" => match event.milliseconds {
                None => (State::Cached, String::new()),
                Some(milliseconds) => (State::Done, seconds(milliseconds)),
            },
            "failed" => (State::Failed, event.causes.join(": ")),
            _ => return Taken::Nothing,
        };
        if of.state == State::Waiting {
            (of.state, of.says) = (State::Running, "is being built".to_owned());
        }
        let failed = (now.0 == State::Failed).then(|| {
            let hint = event.hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
            format!("{name}: {}{hint}", now.1)
        });
        match failed {
            Some(why) => {
                of.nodes.insert(node, now);
                Taken::Failed(why)
            }
            None if of.nodes.insert(node, now.clone()).as_ref() != Some(&now) => Taken::Change,
            None => Taken::Nothing,
        }
    }

    /// The build is over: what is not published by now will not be.
    pub fn over(&mut self) {
        for of in self.specs.iter_mut().filter(|of| of.state != State::Done) {
            let failed: Vec<String> = of
                .nodes
                .iter()
                .filter(|(_, (state, _))| *state == State::Failed)
                .map(|(node, (_, why))| format!("{node}: {why}"))
                .collect();
            of.state = State::Failed;
            of.says = match failed.is_empty() {
                true => "the build ended before it was done; what was published before is served".to_owned(),
                false => format!("failed: {}; what was published before is served", failed.join("; ")),
            };
            for (state, says) in of.nodes.values_mut().filter(|(state, _)| *state == State::Running) {
                (*state, *says) = (State::Failed, "was ended".to_owned());
            }
        }
    }

    /// Returns all as the page shows them.
    pub fn works(&self) -> impl Iterator<Item = Work> {
        self.specs.iter().map(|of| {
            let state = |node: &NodeName| of.nodes.get(node).map_or(State::Waiting, |(state, _)| *state);
            let parts = of.spec.dag.order().into_iter().map(|node| {
                let (state, says) = of.nodes.get(&node).cloned().unwrap_or((State::Waiting, String::new()));
                Part { name: node.to_string(), state, says }
            });
            Work {
                name: of.spec.name.clone(),
                state: of.state,
                says: of.says.clone(),
                parts: parts.collect(),
                picture: plan::svg(&of.spec, &|node| paint(state(node))),
            }
        })
    }
}

/// How a node is painted: its inside and its edge.
fn paint(state: State) -> Option<plan::Paint> {
    let (fill, stroke) = match state {
        State::Waiting => ("#f3f4f6", "#b6bdc8"),
        State::Running => ("#fff3d6", "#b97a00"),
        State::Cached => ("#eaf0fa", "#3f67b0"),
        State::Done => ("#e3f4e8", "#2f8f4e"),
        State::Failed => ("#fde4e1", "#c0392b"),
    };
    Some(plan::Paint { fill, stroke })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Finder, Locking, Overrides};

    fn spec() -> Spec {
        let folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("specs")];
        let finder = Finder { folders, has_catalyst: false, has_apt: true, is_unboxed: false };
        let overrides = Overrides { lock: Locking::IfThere(None), ..Overrides::default() };
        Spec::load(&finder, "amd64-minimal", &overrides).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn what_a_build_tells_is_how_far_each_node_is() {
        let mut building = Building::new(vec![spec()]);
        let part = |building: &Building, name: &str| {
            let work = building.works().next().unwrap();
            let part = work.parts.iter().find(|part| part.name == name).unwrap();
            (part.state, part.says.clone())
        };
        assert_eq!(part(&building, "iso").0, State::Waiting);
        for (line, node, state, says) in [
            (r#"{"event":"started","node":"iso","reason":"first"}"#, "iso", State::Running, ""),
            (
                r#"{"event":"progress","node":"iso","doing":"writing","done":0,"total":null}"#,
                "iso",
                State::Running,
                "writing",
            ),
            (
                r#"{"event":"finished","node":"iso","reason":{},"milliseconds":1580}"#,
                "iso",
                State::Done,
                "1.5 s",
            ),
            (
                r#"{"event":"finished","node":"grub","reason":"cached","milliseconds":null}"#,
                "grub",
                State::Cached,
                "",
            ),
            (r#"{"event":"failed","node":"audit","causes":["a","b"]}"#, "audit", State::Failed, "a: b"),
        ] {
            assert_ne!(building.take(line), Taken::Nothing, "{line}");
            assert_eq!(part(&building, node), (state, says.to_owned()), "{line}");
        }
        for other in ["", "{", r#"{"event":"started","node":"nobody"}"#, r#"{"event":"planned","nodes":15}"#]
        {
            assert_eq!(building.take(other), Taken::Nothing, "{other}");
        }
        let work = building.works().next().unwrap();
        assert!(work.picture.contains("#fde4e1") && work.picture.contains("#e3f4e8"), "failed, and done");
        assert_eq!(
            building.take(r#"{"event":"failed","node":"lean","causes":["c"],"hint":"h"}"#),
            Taken::Failed("lean: c\n  hint: h".to_owned())
        );
        building.over();
        let work = building.works().next().unwrap();
        assert!(work.state == State::Failed && work.says.contains("audit: a: b; lean: c"), "{work:?}");
    }

    #[test]
    fn of_several_specs_each_has_its_own_nodes() {
        let mut other = spec();
        other.name = "other".to_owned();
        let mut building = Building::new(vec![spec(), other]);
        assert_eq!(building.take(r#"{"event":"started","node":"other:iso"}"#), Taken::Change);
        assert_eq!(building.take(r#"{"event":"started","node":"iso"}"#), Taken::Nothing);
        let states: Vec<State> = building.works().map(|work| work.state).collect();
        assert_eq!(states, [State::Waiting, State::Running]);
        assert_eq!(
            building.take(r#"{"event":"published","folder":"out/amd64-minimal","files":{}}"#),
            Taken::Change
        );
        building.over();
        let states: Vec<State> = building.works().map(|work| work.state).collect();
        assert_eq!(states, [State::Done, State::Failed], "one is published, the other is not");
        assert!(building.works().all(|work| work.parts.iter().all(|part| part.state != State::Running)));
    }
}
