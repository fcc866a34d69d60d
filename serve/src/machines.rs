//! The machines that boot, and how far each is: told by what they ask of the servers, and by nothing else.
//!
//! A machine is known by its MAC where DHCP or iPXE tells it, else by its address. Its steps are those of a boot, in order: asked (DHCP),
//! loader, script, kernel, initrd, root. What is said of a machine that stands still is a guess, and named as one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use crate::scripts::Machine as Told;
use crate::site::Role;

/// Machines that are remembered: the longest unseen one makes room.
const MACHINES: usize = 1000;

/// Files that are remembered of a machine's boot.
const STEPS: usize = 32;

/// Characters of what a client says of itself.
const LONGEST: usize = 100;

/// How long a machine may do nothing before it is looked at.
const QUIET: Duration = Duration::from_secs(30);

/// How soon after it fetched a loader firmware comes back that could not start it.
const RETURNING: Duration = Duration::from_secs(180);

/// How long without a word a boot is over, and another one a new boot.
const OVER: Duration = Duration::from_secs(600);

/// How a machine got a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    Http,
    Tftp,
    /// It stays on the server; what is done is what was read.
    Nfs,
}

/// What a machine did.
#[derive(Debug, Clone, Serialize)]
struct Step {
    role: Role,
    /// The file.
    name: String,
    /// Bytes of it that were sent, and that it has.
    done: u64,
    size: u64,
    over: Over,
    #[serde(skip)]
    at: Option<Instant>,
}

/// A machine.
#[derive(Debug, Clone, Default)]
struct Machine {
    address: Option<IpAddr>,
    told: Told,
    /// The architecture that its firmware asked DHCP with, and how often it asked since it last did anything else.
    firmware: Option<String>,
    asked: u32,
    /// What DHCP answered last.
    answered: Option<String>,
    agent: Option<String>,
    steps: Vec<Step>,
    /// A file that it asked for in vain.
    missed: Option<String>,
    /// Whether it had all that it takes to run.
    has_booted: bool,
    /// Why it is not answered.
    left_alone: Option<&'static str>,
    seen: Option<Instant>,
}

/// A machine, for the page.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    id: &'a str,
    address: Option<IpAddr>,
    #[serde(flatten)]
    told: &'a Told,
    firmware: Option<&'a str>,
    asked: u32,
    answered: Option<&'a str>,
    agent: Option<&'a str>,
    steps: &'a [Step],
    missed: Option<&'a str>,
    /// Seconds since it was last heard of.
    quiet: u64,
    /// What may be wrong, and what to do.
    hint: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    machines: BTreeMap<String, Machine>,
    /// Which machine has an address.
    addresses: BTreeMap<IpAddr, String>,
}

/// All machines.
#[derive(Debug)]
pub struct Machines {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Default for Machines {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::channel(0).0 }
    }
}

impl State {
    /// Returns the machine of a name, a new one where there is none.
    fn machine(&mut self, id: &str) -> &mut Machine {
        if !self.machines.contains_key(id) && self.machines.len() >= MACHINES {
            let oldest =
                self.machines.iter().min_by_key(|(_, machine)| machine.seen).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                self.machines.remove(&oldest);
                self.addresses.retain(|_, id| *id != oldest);
            }
        }
        let machine = self.machines.entry(id.to_owned()).or_default();
        let is_over = machine.seen.is_some_and(|seen| seen.elapsed() > OVER);
        if is_over {
            machine.steps.clear();
            machine.missed = None;
        }
        machine.seen = Some(Instant::now());
        machine
    }

    fn at(&mut self, address: IpAddr) -> &mut Machine {
        let id = self.addresses.entry(address).or_insert_with(|| address.to_string()).clone();
        let machine = self.machine(&id);
        machine.address = Some(address);
        machine
    }

    /// Ties an address to a name: what was known by the address is known by the name then.
    fn tie(&mut self, address: IpAddr, id: &str) {
        // A machine has one address; what it had before may be another one's next.
        let old = self.machines.get(id).and_then(|machine| machine.address).filter(|old| *old != address);
        if let Some(old) = old {
            self.addresses.remove(&old);
        }
        let before = self.addresses.insert(address, id.to_owned());
        let known = before.filter(|before| before != id).and_then(|before| self.machines.remove(&before));
        let machine = self.machine(id);
        machine.address = Some(address);
        if let Some(known) = known {
            machine.steps.extend(known.steps);
            machine.steps.truncate(STEPS);
            machine.agent = known.agent.or(machine.agent.take());
        }
    }
}

impl Machines {
    fn change<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let done = work(&mut self.state());
        self.changes.send_modify(|number| *number += 1);
        done
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who watch, for something else that changed.
    pub(crate) fn tell(&self) {
        self.changes.send_modify(|number| *number += 1);
    }

    /// Tells of changes, by their number.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Firmware, or iPXE, asked DHCP: `answer` is what it was given, if anything.
    pub(crate) fn asked(&self, mac: &str, firmware: &str, is_ipxe: bool, answer: Option<&str>) {
        self.change(|state| {
            let machine = state.machine(mac);
            machine.asked += 1;
            machine.answered = answer.map(str::to_owned);
            machine.left_alone = None;
            // iPXE goes on with what the firmware began.
            if is_ipxe && !machine.steps.is_empty() {
                return;
            }
            machine.firmware = Some(firmware.to_owned());
            if machine.asked == 1 {
                machine.steps.clear();
                machine.missed = None;
            }
        });
    }

    /// Firmware, or iPXE, asked DHCP, and is not answered.
    pub(crate) fn left_alone(&self, mac: &str, firmware: &str, why: &'static str) {
        self.change(|state| {
            let machine = state.machine(mac);
            machine.firmware = Some(firmware.to_owned());
            machine.left_alone = Some(why);
        });
    }

    /// Tells whether a machine had all that it takes to run.
    pub(crate) fn has_booted(&self, mac: &str) -> bool {
        self.state().machines.get(mac).is_some_and(|machine| machine.has_booted)
    }

    /// Returns the loader that a machine fetched a moment ago, and did nothing after it: firmware that comes back did not start it.
    pub(crate) fn came_back(&self, mac: &str) -> Option<String> {
        let state = self.state();
        let last = state.machines.get(mac)?.steps.last()?;
        let is_recent = last.at.is_some_and(|at| at.elapsed() < RETURNING);
        (last.role == Role::Loader && last.done >= last.size && is_recent).then(|| last.name.clone())
    }

    /// A DHCP server gave a machine an address, or it asked for that one.
    pub(crate) fn has_address(&self, mac: &str, address: IpAddr) {
        self.change(|state| state.tie(address, mac));
    }

    /// iPXE told what machine it is on.
    pub(crate) fn told(&self, address: IpAddr, told: &Told) {
        self.change(|state| {
            if let Some(mac) = &told.mac {
                state.tie(address, mac);
            }
            state.at(address).told = told.clone();
        });
    }

    /// A file is being sent over HTTP.
    pub(crate) fn began(&self, address: IpAddr, agent: Option<&str>, role: Role, name: &str, size: u64) {
        self.change(|state| {
            let machine = state.at(address);
            if let Some(agent) = agent {
                machine.agent = Some(agent.chars().filter(|c| !c.is_control()).take(LONGEST).collect());
            }
            machine.begin(role, name, size, Over::Http);
        });
    }

    /// A file is being sent over TFTP.
    pub(crate) fn began_tftp(&self, address: IpAddr, role: Role, name: &str, size: u64) {
        self.change(|state| state.at(address).begin(role, name, size, Over::Tftp));
    }

    /// A file is being read over NFS.
    pub(crate) fn began_nfs(&self, address: IpAddr, role: Role, name: &str, size: u64) {
        self.change(|state| state.at(address).begin(role, name, size, Over::Nfs));
    }

    /// So many bytes of a file were sent.
    pub(crate) fn moved(&self, address: IpAddr, name: &str, done: u64) {
        self.change(|state| {
            let machine = state.at(address);
            let Some(step) = machine.steps.iter_mut().rev().find(|step| step.name == name) else { return };
            step.done = step.done.max(done).min(step.size);
            step.at = Some(Instant::now());
            // Of an initrd that fetches its root, nobody knows whether it is the last.
            let is_whole = step.done >= step.size && step.over != Over::Nfs;
            machine.has_booted |= matches!(step.role, Role::Initrd | Role::Root) && is_whole;
        });
    }

    /// A file was asked for that there is not. Who has asked for nothing else is no machine that boots.
    pub(crate) fn missed(&self, address: IpAddr, name: &str) {
        if !self.state().addresses.contains_key(&address) {
            return;
        }
        self.change(|state| {
            state.at(address).missed = Some(name.chars().filter(|c| !c.is_control()).take(LONGEST).collect());
        });
    }

    /// Returns all machines as JSON, the last seen one first.
    pub fn json(&self) -> String {
        let state = self.state();
        let mut shown: Vec<(Option<Instant>, Shown<'_>)> = state
            .machines
            .iter()
            .map(|(id, machine)| (machine.seen, machine.shown(id, Instant::now())))
            .collect();
        shown.sort_by_key(|(seen, _)| std::cmp::Reverse(*seen));
        let machines: Vec<Shown<'_>> = shown.into_iter().map(|(_, shown)| shown).collect();
        serde_json::to_string(&machines).unwrap_or_else(|_| "[]".to_owned())
    }
}

impl Machine {
    fn begin(&mut self, role: Role, name: &str, size: u64, over: Over) {
        self.asked = 0;
        // A loader looks for its menu under several names.
        self.missed = None;
        let at = Some(Instant::now());
        if let Some(step) = self.steps.iter_mut().find(|step| step.name == name) {
            // It reads the file in parts, or once more.
            step.at = at;
        } else if self.steps.len() < STEPS {
            self.steps.push(Step { role, name: name.to_owned(), done: 0, size, over, at });
        }
    }

    fn shown<'a>(&'a self, id: &'a str, now: Instant) -> Shown<'a> {
        let quiet = self.seen.map_or(Duration::ZERO, |seen| now.saturating_duration_since(seen));
        Shown {
            id,
            address: self.address,
            told: &self.told,
            firmware: self.firmware.as_deref(),
            asked: self.asked,
            answered: self.answered.as_deref(),
            agent: self.agent.as_deref(),
            steps: &self.steps,
            missed: self.missed.as_deref(),
            quiet: quiet.as_secs(),
            hint: self.hint(quiet),
        }
    }

    /// Guesses why it does nothing.
    fn hint(&self, quiet: Duration) -> Option<String> {
        if let Some(why) = self.left_alone {
            return Some(format!("it asked, and is not answered: {why}"));
        }
        if let Some(missed) = &self.missed {
            return Some(format!("it asked for {missed}, which there is not"));
        }
        let last = self.steps.last();
        if self.asked > 0 && last.is_none() {
            let firmware = self.firmware.as_deref().unwrap_or("firmware");
            return match &self.answered {
                None => Some(format!("{firmware} asked, and no set has a loader for it")),
                Some(answer) if self.asked >= 4 || quiet > QUIET => Some(format!(
                    "asked {} times and never fetched {answer}: does a firewall drop UDP 69 and TCP 80 to this machine, or did \
                     another DHCP server's answer win?",
                    self.asked
                )),
                Some(_) => None,
            };
        }
        let step = last.filter(|_| quiet > QUIET)?;
        let is_whole = step.done >= step.size;
        match (step.role, is_whole) {
            // A system that runs reads what it needs, when it needs it.
            (_, _) if step.over == Over::Nfs => None,
            (_, false) => Some(format!("{} stopped at {} of {} bytes: is the machine off, or the cable out?", step.name, step.done, step.size)),
            (Role::Loader, true) => Some(
                "the loader was fetched and did not start: Secure Boot refuses loaders that nobody signed; another loader \
                 may suit this network card"
                    .to_owned(),
            ),
            (Role::Script, true) => Some("the script was fetched, and nothing after it: look at the machine's screen".to_owned()),
            (Role::Kernel, true) => Some("the kernel was fetched, and no initrd: too little memory, or Secure Boot".to_owned()),
            // It may be running by now, or never: who has all files does not ask any more.
            (Role::Initrd, true) => Some("kernel and initrd were fetched; it runs, or has too little memory".to_owned()),
            (Role::Root | Role::Other, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(machines: &Machines) -> serde_json::Value {
        serde_json::from_str(&machines.json()).unwrap()
    }

    const MAC: &str = "52:54:00:00:00:01";

    #[test]
    fn a_boot_is_one_machine_from_the_first_question_to_the_root() {
        let machines = Machines::default();
        let address: IpAddr = "10.0.0.50".parse().unwrap();
        machines.asked(MAC, "x86 BIOS", false, Some("undionly.kpxe"));
        machines.began_tftp(address, Role::Loader, "a/undionly.kpxe", 100);
        machines.has_address(MAC, address);
        machines.moved(address, "a/undionly.kpxe", 100);
        assert_eq!(machines.came_back(MAC).as_deref(), Some("a/undionly.kpxe"));
        machines.asked(MAC, "iPXE, x86 BIOS", true, Some("http"));
        machines.began(address, Some("iPXE/1.0\u{1b}"), Role::Kernel, "a/kernel", 10);
        machines.moved(address, "a/kernel", 10);
        machines.told(address, &Told { mac: Some(MAC.to_owned()), memory_mib: Some(640), ..Told::default() });
        let all = json(&machines);
        assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
        let machine = &all[0];
        assert_eq!((&machine["id"], &machine["address"]), (&MAC.into(), &"10.0.0.50".into()));
        assert_eq!((&machine["memory_mib"], &machine["agent"]), (&640.into(), &"iPXE/1.0".into()));
        let steps: Vec<&str> =
            machine["steps"].as_array().unwrap().iter().map(|step| step["role"].as_str().unwrap()).collect();
        assert_eq!(steps, ["loader", "kernel"]);
        assert_eq!(machine["hint"], serde_json::Value::Null);
    }

    #[test]
    fn what_stands_still_is_told_why() {
        let quiet = QUIET * 2;
        let machine = |role, done| {
            let mut machine = Machine::default();
            machine.begin(role, "a/file", 100, Over::Http);
            machine.steps[0].done = done;
            machine
        };
        for (machine, says) in [
            (machine(Role::Loader, 100), "Secure Boot"),
            (machine(Role::Kernel, 100), "no initrd"),
            (machine(Role::Initrd, 40), "stopped at 40 of 100"),
            (machine(Role::Initrd, 100), "too little memory"),
            (
                Machine { asked: 1, firmware: Some("ia64".to_owned()), ..Machine::default() },
                "no set has a loader",
            ),
            (
                Machine { asked: 4, answered: Some("x.efi".to_owned()), ..Machine::default() },
                "never fetched x.efi: does a firewall",
            ),
            (
                Machine { missed: Some("pxelinux.cfg/x".to_owned()), ..Machine::default() },
                "which there is not",
            ),
        ] {
            let hint = machine.hint(quiet).unwrap();
            assert!(hint.contains(says), "{hint}");
        }
        assert_eq!(machine(Role::Root, 100).hint(quiet), None);
        assert_eq!(machine(Role::Kernel, 100).hint(Duration::from_secs(1)), None);
        let mut running = Machine::default();
        running.begin(Role::Root, "a/image.squashfs", 100, Over::Nfs);
        assert_eq!(running.hint(quiet), None, "it has not read all of it, and may never");
    }

    #[test]
    fn a_machine_has_booted_when_it_has_all_that_it_takes() {
        let machines = Machines::default();
        let address: IpAddr = "10.0.0.50".parse().unwrap();
        machines.asked(MAC, "x86 BIOS", false, Some("undionly.kpxe"));
        machines.has_address(MAC, address);
        for (role, name) in
            [(Role::Loader, "a/loader"), (Role::Kernel, "a/kernel"), (Role::Initrd, "a/initrd")]
        {
            assert!(!machines.has_booted(MAC), "before {name}");
            machines.began(address, None, role, name, 10);
            machines.moved(address, name, 10);
        }
        assert!(machines.has_booted(MAC) && !machines.has_booted("other"));
        machines.left_alone(MAC, "x86 BIOS", "it was so");
        assert!(json(&machines)[0]["hint"].as_str().unwrap().contains("it was so"));
        machines.asked(MAC, "x86 BIOS", false, Some("undionly.kpxe"));
        assert!(!json(&machines).to_string().contains("it was so"));
    }

    #[test]
    fn a_machine_that_asks_for_every_address_has_one() {
        let machines = Machines::default();
        for number in 0..5000u32 {
            machines.has_address(MAC, IpAddr::from(number.to_be_bytes()));
        }
        let state = machines.state();
        assert_eq!((state.addresses.len(), state.machines.len()), (1, 1));
    }

    #[test]
    fn a_crowd_is_not_remembered_for_ever() {
        let machines = Machines::default();
        for number in 0..MACHINES + 50 {
            machines.asked(&format!("{number}"), "x", false, None);
        }
        assert_eq!(machines.state().machines.len(), MACHINES);
    }
}
