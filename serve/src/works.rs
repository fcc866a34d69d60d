//! What is being made while this serves, for the page: its parts, how far each is, and a picture of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for others.
    Waiting,
    /// It is being made.
    Running,
    /// It was there already.
    Cached,
    /// It was made.
    Done,
    /// It could not be made.
    Failed,
}

/// A part of something that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// How far it is.
    pub state: State,
    /// What it does, or how long it took.
    pub says: String,
}

/// Something that is being made, and is served once it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Its name: a part of addresses, as of a set.
    pub name: String,
    /// How far it is.
    pub state: State,
    /// What became of it.
    pub says: String,
    /// Its parts, in the order in which they are made.
    pub parts: Vec<Part>,
    /// A picture of them, as SVG.
    #[serde(skip)]
    pub picture: String,
}

/// All that is being made.
#[derive(Debug, Default)]
pub(crate) struct Works(Mutex<Vec<Work>>);

impl Works {
    fn all(&self) -> MutexGuard<'_, Vec<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows something as it is now.
    pub(crate) fn show(&self, work: Work) {
        let mut all = self.all();
        match all.iter_mut().find(|known| known.name == work.name) {
            Some(known) => *known = work,
            None => all.push(work),
        }
    }

    /// Returns all as JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(&*self.all()).unwrap_or_else(|_| "[]".to_owned())
    }

    /// Returns the picture of one of them.
    pub(crate) fn picture(&self, name: &str) -> Option<String> {
        self.all().iter().find(|work| work.name == name).map(|work| work.picture.clone())
    }
}
