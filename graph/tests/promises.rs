//! The engine's promises, on random graphs with a step that counts its runs.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use cache::offering::Offering;
use cache::testing::{Folder, Memory};
use cache::upstream::Upstream;
use cache::{ActionDigest, BlobDigest, Object, Output, Store};
use graph::build::{Backend, Built, Options, Outcome, build};
use graph::dag::{Dag, DagError, Derivation};
use graph::explain::Reason;
use graph::name::{NodeName, OutputRef};
use graph::sandbox::{Mode, Sandbox};
use graph::tool::ToolSpec;
use graph::{Cancel, Event, Fault, Job, Resolved, Resolving, Step, StepError, Tools};
use proptest::prelude::*;

/// What every run of every fake step writes down.
#[derive(Default)]
struct Journal {
    runs: Mutex<Vec<(NodeName, ActionDigest)>>,
    running: Mutex<BTreeSet<ActionDigest>>,
}

/// Gives `seed` modulo `modulus` and its inputs' bytes: changing the seed by the modulus changes the
/// action and not the bytes.
#[derive(Clone)]
struct Fake {
    seed: u32,
    modulus: u32,
    fails: bool,
    journal: Arc<Journal>,
}

impl Step for Fake {
    fn kind(&self) -> &'static str {
        "fake"
    }

    fn version(&self) -> u32 {
        1
    }

    fn params(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("seed".to_owned(), self.seed.to_string())])
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        let digest = job.action.digest();
        assert!(self.journal.running.lock().unwrap().insert(digest), "two runs of one action at once");
        self.journal.runs.lock().unwrap().push((job.node.clone(), digest));
        let read = || {
            let mut bytes = (self.seed % self.modulus).to_le_bytes().to_vec();
            for name in job.inputs.keys() {
                // Fails where the input is not there yet.
                bytes.extend(job.objects.read(&job.blob(name)?.digest)?);
            }
            Ok::<_, StepError>(bytes)
        };
        let bytes = read();
        assert!(self.journal.running.lock().unwrap().remove(&digest));
        // Too large to come along with a result: it is fetched when somebody reads it.
        let mut large = vec![0; 65 << 10];
        large[..32].copy_from_slice(BlobDigest::of(&bytes?).as_bytes());
        let output = job.objects.put(&large)?;
        if self.fails {
            return Err(StepError::action("asked to fail"));
        }
        Ok(BTreeMap::from([("out".to_owned(), output.into())]))
    }
}

/// A random graph: node i may take from nodes before it.
#[derive(Debug, Clone)]
struct Plan {
    nodes: Vec<(u32, bool, Vec<usize>)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let node =
        (0u32..4, prop::bool::weighted(0.1), prop::collection::vec(any::<prop::sample::Index>(), 0..4));
    prop::collection::vec(node, 1..16).prop_map(|nodes| Plan {
        nodes: nodes
            .into_iter()
            .enumerate()
            .map(|(i, (seed, fails, inputs))| {
                let inputs: BTreeSet<usize> = inputs.iter().filter(|_| i > 0).map(|x| x.index(i)).collect();
                (seed, fails, inputs.into_iter().collect())
            })
            .collect(),
    })
}

fn name(i: usize) -> NodeName {
    NodeName::new(&format!("n{i:02}")).unwrap()
}

struct World {
    _dir: Folder,
    store: Store,
    journal: Arc<Journal>,
}

impl World {
    fn new() -> Self {
        let dir = Folder::new();
        let store = dir.store();
        Self { _dir: dir, store, journal: Arc::default() }
    }

    fn dag(&self, plan: &Plan) -> Dag {
        let derivation = |(seed, fails, inputs): &(u32, bool, Vec<usize>)| {
            let step = Fake { seed: *seed, modulus: 100, fails: *fails, journal: self.journal.clone() };
            let input = |i: &usize| (format!("i{i}"), OutputRef { node: name(*i), output: "out".into() });
            let inputs = inputs.iter().map(input).collect();
            Derivation::new(Arc::new(step), inputs, BTreeSet::from(["out".to_owned()]))
        };
        Dag::new(plan.nodes.iter().enumerate().map(|(i, node)| (name(i), derivation(node))).collect())
            .unwrap()
    }

    /// Builds everything; returns the outcome and the nodes that ran.
    fn build(&self, plan: &Plan, jobs: usize, check: bool) -> (Built, Vec<NodeName>) {
        self.journal.runs.lock().unwrap().clear();
        let dag = self.dag(plan);
        let wanted: Vec<_> = dag.nodes().keys().cloned().collect();
        let sandbox = Sandbox::new(Mode::On, None);
        let backend = Backend {
            store: &self.store,
            sandbox: &sandbox,
            tools: &Tools::new(Vec::new()),
            workers: None,
            cancel: &Cancel::default(),
            listener: &|_: Event| {},
            hints: &|_| None,
        };
        let options = Options { graph: "test".into(), jobs, check, offline: true };
        let built = build(&dag, &wanted, &backend, &options).unwrap();
        (built, self.journal.runs.lock().unwrap().iter().map(|(node, _)| node.clone()).collect())
    }
}

impl World {
    /// A world whose store fetches from an upstream.
    fn over(upstream: &Arc<Memory>) -> Self {
        let world = Self::new();
        world.store.set_upstreams(vec![Arc::clone(upstream) as Arc<dyn Upstream>]);
        world
    }

    fn offer(&self, built: &Built, upstream: &Memory) {
        for action in built.actions() {
            let offered = self.store.offer(upstream, &action).unwrap();
            assert!(matches!(offered, Offering::Sent(_) | Offering::There), "{offered:?}");
        }
    }
}

fn objects(built: &Built) -> BTreeMap<NodeName, Object> {
    built
        .nodes
        .keys()
        .filter_map(|n| Some((n.clone(), built.done(n)?.result.outputs.get("out")?.object)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_second_build_runs_nothing_and_gives_the_same(mut plan in plan(), jobs in 1usize..5) {
        plan.nodes.iter_mut().for_each(|node| node.1 = false);
        let world = World::new();
        let (first, _) = world.build(&plan, jobs, false);
        prop_assert!(first.fault().is_none());
        let (second, ran) = world.build(&plan, 1, false);
        prop_assert_eq!(ran, vec![]);
        prop_assert_eq!(objects(&first), objects(&second));
    }

    #[test]
    fn one_action_runs_once_however_many_nodes_resolve_to_it(mut plan in plan(), jobs in 1usize..5) {
        plan.nodes.iter_mut().for_each(|node| node.1 = false);
        let world = World::new();
        let (built, ran) = world.build(&plan, jobs, false);
        let actions: BTreeSet<_> = built.nodes.keys().map(|n| built.done(n).unwrap().digest).collect();
        prop_assert_eq!(ran.len(), actions.len());
    }

    #[test]
    fn a_failure_stops_exactly_the_nodes_that_need_it(plan in plan(), jobs in 1usize..5) {
        let world = World::new();
        let (built, _) = world.build(&plan, jobs, false);
        // Nodes that resolve to one action fail together, so whether one fails is asked of its action.
        let mut good: Vec<bool> = Vec::new();
        for (i, (_, _, inputs)) in plan.nodes.iter().enumerate() {
            let inputs_good = inputs.iter().all(|input| good[*input]);
            match &built.nodes[&name(i)] {
                Outcome::Done(_) => prop_assert!(inputs_good),
                Outcome::Failed(fault) => prop_assert!(inputs_good && *fault == Fault::Action),
                Outcome::Skipped(because) => {
                    prop_assert!(!inputs_good);
                    prop_assert!(matches!(built.nodes[because], Outcome::Failed(_)));
                }
                Outcome::Stopped => prop_assert!(false, "nothing was stopped"),
            }
            good.push(matches!(built.nodes[&name(i)], Outcome::Done(_)));
        }
    }

    #[test]
    fn a_node_that_yields_the_same_bytes_stops_the_wave(
        mut plan in plan(), which in any::<prop::sample::Index>(), jobs in 1usize..5,
    ) {
        plan.nodes.iter_mut().for_each(|node| node.1 = false);
        let world = World::new();
        let (first, _) = world.build(&plan, jobs, false);
        let changed = which.index(plan.nodes.len());
        plan.nodes[changed].0 += 100;
        let (second, ran) = world.build(&plan, jobs, false);
        prop_assert_eq!(ran, vec![name(changed)]);
        prop_assert_eq!(objects(&first), objects(&second));
    }

    #[test]
    fn changing_a_node_runs_only_nodes_that_need_it(
        mut plan in plan(), which in any::<prop::sample::Index>(), jobs in 1usize..5,
    ) {
        plan.nodes.iter_mut().for_each(|node| node.1 = false);
        let world = World::new();
        world.build(&plan, jobs, false);
        let changed = which.index(plan.nodes.len());
        plan.nodes[changed].0 += 50;
        let (_, ran) = world.build(&plan, jobs, false);
        prop_assert!(ran.contains(&name(changed)));
        let dag = world.dag(&plan);
        for node in ran {
            prop_assert!(dag.closure([&node]).contains(&name(changed)), "{} ran", node);
        }
    }
}

fn two(first: u32, second: u32) -> Plan {
    Plan { nodes: vec![(first, false, vec![]), (second, false, vec![0])] }
}

#[test]
fn a_check_runs_everything_again_and_passes_where_the_bytes_are_the_same() {
    let world = World::new();
    world.build(&two(1, 2), 2, false);
    let (built, ran) = world.build(&two(1, 2), 2, true);
    assert_eq!(ran.len(), 2);
    assert!(built.fault().is_none());
    assert_eq!(built.done(&name(0)).unwrap().reason, Reason::Check);
}

#[test]
fn the_reason_names_the_field_that_changed() {
    let world = World::new();
    let (built, _) = world.build(&two(1, 2), 2, false);
    assert_eq!(built.done(&name(0)).unwrap().reason, Reason::First);
    let (built, _) = world.build(&two(9, 2), 2, false);
    assert_eq!(built.done(&name(0)).unwrap().reason.to_string(), "param seed changed");
    assert_eq!(built.done(&name(1)).unwrap().reason.to_string(), "input i0 changed");
    let (built, _) = world.build(&two(1, 2), 2, false);
    assert_eq!(built.done(&name(1)).unwrap().reason.to_string(), "input i0 changed back");
}

#[test]
fn a_lost_object_is_made_again() {
    let world = World::new();
    let (built, _) = world.build(&two(1, 2), 2, false);
    let Object::Blob(blob) = objects(&built)[&name(1)] else { panic!("a blob") };
    std::fs::remove_file(world.store.object_path(&blob.digest)).unwrap();
    let (built, ran) = world.build(&two(1, 2), 2, false);
    assert_eq!(ran, [name(1)]);
    assert_eq!(built.done(&name(1)).unwrap().reason, Reason::Gone);
}

#[test]
fn circles_unknown_nodes_and_unknown_outputs_are_named() {
    let world = World::new();
    let fake: Arc<dyn Step> =
        Arc::new(Fake { seed: 0, modulus: 1, fails: false, journal: world.journal.clone() });
    let node = |from: &str, output: &str| {
        let from = OutputRef { node: NodeName::new(from).unwrap(), output: output.to_owned() };
        let inputs = BTreeMap::from([("in".to_owned(), from)]);
        Derivation::new(fake.clone(), inputs, BTreeSet::from(["out".to_owned()]))
    };
    let named = |names: &[(&str, Derivation)]| {
        Dag::new(names.iter().map(|(n, d)| (NodeName::new(n).unwrap(), d.clone())).collect())
            .err()
            .unwrap()
            .remove(0)
    };
    let error = named(&[("a", node("b", "out")), ("b", node("c", "out")), ("c", node("b", "out"))]);
    assert_eq!(error.to_string(), "the graph goes round in a circle: b → c → b");
    let error = named(&[("a", node("gone", "out"))]);
    assert!(error.to_string().contains("no node \"gone\""), "{error}");
    let error = named(&[("a", node("a", "image"))]);
    assert!(matches!(error, DagError::UnknownOutput { .. }) && error.to_string().contains("a gives out"));
}

/// Runs while somebody installs another version of its tool.
struct Upgraded {
    bin: std::path::PathBuf,
    /// When that is: while it is resolved, or while it runs.
    upgraded: Option<When>,
    fails: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    Waiting,
    Running,
}

impl Upgraded {
    fn install(&self, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.bin.join("upgraded");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn upgrade(&self, now: When) {
        if self.upgraded == Some(now) {
            self.install("#!/bin/sh\nexit 2\n");
        }
    }
}

impl Step for Upgraded {
    fn kind(&self) -> &'static str {
        "upgraded"
    }

    fn version(&self) -> u32 {
        1
    }

    fn params(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn resolve(&self, resolving: &Resolving<'_>) -> Result<Resolved, StepError> {
        let spec =
            ToolSpec { name: "upgraded", programs: &[], data: &[], data_places: &[], package: "upgraded" };
        let resolved = Resolved::with_tools(resolving, &[spec])?;
        self.upgrade(When::Waiting);
        Ok(resolved)
    }

    fn run(&self, job: &Job<'_>) -> Result<BTreeMap<String, Output>, StepError> {
        assert!(self.upgraded != Some(When::Waiting), "it runs with another tool than its key says");
        self.upgrade(When::Running);
        match self.fails {
            true => Err(StepError::action("the tool crashed")),
            false => Ok(BTreeMap::from([("out".to_owned(), job.objects.put(b"made")?.into())])),
        }
    }
}

#[test]
fn what_a_tool_gave_that_changed_meanwhile_is_not_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let outcome = |upgraded, fails| {
        let step = Upgraded { bin: dir.path().to_owned(), upgraded, fails };
        step.install("#!/bin/sh\nexit 0\n");
        let outputs = BTreeSet::from(["out".to_owned()]);
        let derivation = Derivation::new(Arc::new(step), BTreeMap::new(), outputs);
        let dag = Dag::new(BTreeMap::from([(name(0), derivation)])).unwrap();
        let errors = Mutex::new(Vec::new());
        let backend = Backend {
            store: &store,
            sandbox: &Sandbox::new(Mode::On, None),
            tools: &Tools::new([dir.path(), "/usr/bin".as_ref(), "/bin".as_ref()].map(Into::into).to_vec()),
            workers: None,
            cancel: &Cancel::default(),
            listener: &|event| errors.lock().unwrap().push(format!("{event:?}")),
            hints: &|_| None,
        };
        let options = Options { graph: "test".into(), jobs: 1, check: false, offline: true };
        let built = build(&dag, &[name(0)], &backend, &options).unwrap();
        let ran = built.done(&name(0)).map(|done| done.ran);
        (ran, built.fault(), errors.into_inner().unwrap().join("\n"))
    };
    for (when, fails) in [(When::Waiting, false), (When::Running, false), (When::Running, true)] {
        let (ran, fault, told) = outcome(Some(when), fails);
        assert_eq!((ran, fault), (None, Some(Fault::Environment)));
        assert!(told.contains("changed since this build looked at it"), "{told}");
    }
    assert_eq!(outcome(None, false).0, Some(true), "nothing was recorded under the old tool's key");
    assert_eq!(outcome(None, false).0, Some(false));
}

#[test]
fn what_nodes_need_is_looked_for_without_building_them_and_all_that_is_missing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let node = || {
        let step = Upgraded { bin: dir.path().to_owned(), upgraded: Some(When::Waiting), fails: true };
        Derivation::new(Arc::new(step), BTreeMap::new(), BTreeSet::from(["out".to_owned()]))
    };
    let dag = Dag::new((0..3).map(|number| (name(number), node())).collect()).unwrap();
    let told = Mutex::new(Vec::new());
    let (sandbox, tools, cancel) =
        (Sandbox::new(Mode::Off, None), Tools::new(vec![dir.path().to_owned()]), Cancel::default());
    let backend = Backend {
        store: &store,
        sandbox: &sandbox,
        tools: &tools,
        workers: None,
        cancel: &cancel,
        listener: &|event| told.lock().unwrap().push(format!("{event:?}")),
        hints: &|_| Some("install it".to_owned()),
    };
    let options = Options { graph: "test".into(), jobs: 1, check: false, offline: true };
    let fault = graph::build::check(&dag, &[name(0), name(2)], &backend, &options).unwrap();
    assert_eq!(fault, Some(Fault::Environment));
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 2, "{told:?}");
    for (node, told) in [name(0), name(2)].iter().zip(&told) {
        assert!(told.contains(node.as_str()) && told.contains("install it"), "{told}");
    }
    assert!(!dir.path().join("upgraded").exists(), "nothing was run");
    let forbidden = Sandbox::new(Mode::On, None);
    let backend = Backend { sandbox: &forbidden, ..backend };
    assert!(graph::build::check(&dag, &[], &backend, &options).is_err());
}

/// Numbers that look random, the same for the same seed.
fn dice(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    }
}

#[test]
fn a_second_builder_runs_nothing_and_fetches_nothing_that_nobody_reads() {
    let upstream = Arc::new(Memory::default());
    let first = World::over(&upstream);
    let chain = Plan { nodes: vec![(0, false, vec![]), (1, false, vec![0]), (2, false, vec![1])] };
    let (built, ran) = first.build(&chain, 2, false);
    assert_eq!(ran.len(), 3);
    first.offer(&built, &upstream);
    let second = World::over(&upstream);
    let (again, ran) = second.build(&chain, 2, false);
    assert_eq!((ran.len(), objects(&again)), (0, objects(&built)));
    let fetched = Reason::Fetched { from: "memory".to_owned(), signer: None };
    assert_eq!(again.done(&name(0)).unwrap().reason, fetched);
    assert_eq!(second.store.usage().unwrap().elsewhere.objects, 3);
    // One more step reads what the last one gave, and nothing below it.
    let longer = Plan { nodes: [&chain.nodes[..], &[(3, false, vec![2])]].concat() };
    let (_, ran) = second.build(&longer, 2, false);
    assert_eq!((ran, second.store.usage().unwrap().elsewhere.objects), (vec![name(3)], 2));
}

#[test]
fn what_turns_out_to_be_nowhere_is_made_again_in_the_same_build() {
    let upstream = Arc::new(Memory::default());
    let first = World::over(&upstream);
    let chain = Plan { nodes: vec![(0, false, vec![]), (1, false, vec![0]), (2, false, vec![1])] };
    let (built, _) = first.build(&chain, 2, false);
    first.offer(&built, &upstream);
    for lose in ["gone", "altered", "unreachable"] {
        let second = World::over(&upstream);
        assert!(second.build(&chain, 2, false).1.is_empty());
        match lose {
            "gone" => upstream.spoil(|_| None),
            "altered" => upstream.spoil(|bytes| Some(bytes[1..].to_vec())),
            _ => *upstream.fails.lock().unwrap() = Some(Box::new(|| true)),
        }
        let longer = Plan { nodes: [&chain.nodes[..], &[(3, false, vec![2])]].concat() };
        let (again, ran) = second.build(&longer, 2, false);
        let alone = World::new().build(&longer, 1, false).0;
        assert_eq!((again.fault(), objects(&again)), (None, objects(&alone)), "{lose}");
        // The last one was tried once in vain for each object that was not there.
        let made: BTreeSet<_> = ran.iter().cloned().collect();
        assert_eq!(made.len(), 4, "{lose}: {ran:?}");
        *upstream.fails.lock().unwrap() = None;
        upstream.spoil(|_| None);
        first.offer_anew(&built, &upstream);
    }
}

impl World {
    /// Sends everything again, as if nothing had been there.
    fn offer_anew(&self, built: &Built, upstream: &Memory) {
        upstream.clear();
        self.offer(built, upstream);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn an_upstream_that_fails_at_random_changes_nothing(
        mut plan in plan(), seed in any::<u64>(), odds in 2u64..9
    ) {
        // Whether a step fails is no part of its action: one that does is to be like no other.
        plan.nodes.iter_mut().filter(|(_, fails, _)| *fails).for_each(|(seed, ..)| *seed += 50);
        let (alone, _) = World::new().build(&plan, 2, false);
        let upstream = Arc::new(Memory::default());
        let first = World::over(&upstream);
        let (built, _) = first.build(&plan, 2, false);
        first.offer(&built, &upstream);
        let mut roll = dice(seed);
        upstream.spoil(|bytes| match roll() % odds {
            0 => None,
            1 => Some(bytes.iter().rev().copied().collect()),
            _ => Some(bytes.to_vec()),
        });
        *upstream.fails.lock().unwrap() = Some(Box::new(move || roll().is_multiple_of(odds)));
        let second = World::over(&upstream);
        for _ in 0..2 {
            let (again, _) = second.build(&plan, 2, false);
            prop_assert_eq!(objects(&again), objects(&alone));
            for (node, outcome) in &alone.nodes {
                let same = matches!(
                    (outcome, &again.nodes[node]),
                    (Outcome::Done(_), Outcome::Done(_))
                        | (Outcome::Failed(_), Outcome::Failed(_))
                        | (Outcome::Skipped(_), Outcome::Skipped(_))
                );
                prop_assert!(same, "{}: {:?}", node, again.nodes[node]);
            }
        }
    }
}
