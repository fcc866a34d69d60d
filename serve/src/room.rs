//! What all servers share: what is served, who boots, and whom to tell.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::machines::Machines;
use crate::site::{Set, Site};
use crate::works::{Work, Works};

/// Those who listen to events at once, so that machines have places left.
const LISTENERS: usize = 64;

/// Somebody who listens to events.
pub(crate) struct Listener(Arc<AtomicUsize>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What all servers share.
pub struct Room {
    site: RwLock<Arc<Site>>,
    machines: Machines,
    works: Works,
    append: String,
    /// The only machines that are answered, where there are any.
    only: BTreeSet<String>,
    /// Whether a machine that booted is not answered again.
    once: bool,
    /// The port of NFS, where it is served.
    nfs: Option<u16>,
    /// Whether a machine takes an address that somebody gives.
    has_addresses: AtomicBool,
    /// Who listens to events.
    listeners: Arc<AtomicUsize>,
    say: Box<dyn Fn(&str) + Send + Sync>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Room {
    /// Serves these sets; `say` is told what people should read.
    pub fn new(sets: Vec<Set>, say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let site = RwLock::new(Arc::new(Site::new(sets)));
        Self {
            site,
            machines: Machines::default(),
            works: Works::default(),
            append: String::new(),
            only: BTreeSet::new(),
            once: false,
            nfs: None,
            has_addresses: AtomicBool::new(false),
            listeners: Arc::default(),
            say: Box::new(say),
        }
    }

    /// Has scripts put these words behind every kernel's command line.
    #[must_use]
    pub fn appending(self, words: &str) -> Self {
        Self { append: words.to_owned(), ..self }
    }

    /// Has scripts lead machines to this port for a root over NFS.
    #[must_use]
    pub fn with_nfs(self, port: Option<u16>) -> Self {
        Self { nfs: port, ..self }
    }

    /// Answers these machines alone, by their MACs (all, where there are none); and with `once` none that has booted from here.
    #[must_use]
    pub fn answering(self, only: BTreeSet<String>, once: bool) -> Self {
        Self { only, once, ..self }
    }

    /// Returns why a machine that asks what to boot is not answered.
    pub(crate) fn leaves_alone(&self, mac: &str) -> Option<&'static str> {
        if !self.only.is_empty() && !self.only.contains(mac) {
            return Some("--only names others");
        }
        let has_booted = self.once && self.machines.has_booted(mac);
        has_booted.then_some(
            "it has booted once, and --once leaves it alone then: start serve again to let it boot again",
        )
    }

    /// A machine takes an address that a DHCP server gives: there is one, also where this program does not hear it.
    pub(crate) fn takes_address(&self) {
        self.has_addresses.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_addresses(&self) -> bool {
        self.has_addresses.load(Ordering::Relaxed)
    }

    pub(crate) fn nfs(&self) -> Option<u16> {
        self.nfs
    }

    pub(crate) fn append(&self) -> &str {
        &self.append
    }

    /// Returns what is served now.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Serves a newer build of a set; who uses the one before goes on with that.
    pub fn replace(&self, set: Set) {
        let mut site = self.site.write().unwrap_or_else(PoisonError::into_inner);
        *site = Arc::new(site.with(set));
    }

    /// Shows something that is being made, as it is now.
    pub fn show(&self, work: Work) {
        self.works.show(work);
        self.machines.tell();
    }

    pub(crate) fn works(&self) -> &Works {
        &self.works
    }

    /// Returns the machines.
    pub fn machines(&self) -> &Machines {
        &self.machines
    }

    /// Takes a place for somebody who listens to events, until what is returned is dropped; there are a few.
    pub(crate) fn listener(&self) -> Option<Listener> {
        let before = self.listeners.fetch_add(1, Ordering::Relaxed);
        // Dropped at once, where there are too many.
        Some(Listener(Arc::clone(&self.listeners))).filter(|_| before < LISTENERS)
    }

    pub(crate) fn say(&self, text: &str) {
        (self.say)(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::Role;

    #[test]
    fn who_is_not_meant_is_left_alone() {
        let only = BTreeSet::from(["52:54:00:00:00:01".to_owned()]);
        let room = Room::new(Vec::new(), |_| ()).answering(only, true);
        let address = std::net::IpAddr::from([10, 0, 0, 50]);
        assert!(room.leaves_alone("52:54:00:00:00:02").is_some());
        assert_eq!(room.leaves_alone("52:54:00:00:00:01"), None);
        room.machines().has_address("52:54:00:00:00:01", address);
        room.machines().began(address, None, Role::Initrd, "a/initrd", 1);
        room.machines().moved(address, "a/initrd", 1);
        assert!(room.leaves_alone("52:54:00:00:00:01").is_some_and(|why| why.contains("booted once")));
        let all = Room::new(Vec::new(), |_| ());
        assert_eq!(all.leaves_alone("52:54:00:00:00:02"), None);
    }
}
