//! Hands things from threads to threads, as many at once as have come: a lock and no wake-up for each of many.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue that can be closed.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

struct State<T> {
    things: VecDeque<T>,
    /// How many threads wait for things.
    waiting: usize,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { things: VecDeque::new(), waiting: 0, closed: false };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds things at the end, and wakes those that wait for them if it is urgent.
    pub(super) fn push(&self, things: impl IntoIterator<Item = T>, urgent: bool) {
        let mut state = self.state();
        let before = state.things.len();
        state.things.extend(things);
        let wanted = if urgent { state.waiting.min(state.things.len() - before) } else { 0 };
        drop(state);
        for _ in 0..wanted {
            self.arrived.notify_one();
        }
    }

    /// Takes the first thing, waiting for one; `None` once the queue is closed.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(thing) = state.things.pop_front() {
                return Some(thing);
            }
            state.waiting += 1;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Returns how many things there are.
    pub(super) fn len(&self) -> usize {
        self.state().things.len()
    }

    /// Takes all things there are, waiting for some for a while.
    pub(super) fn take(&self, patience: Duration) -> VecDeque<T> {
        let mut state = self.state();
        if state.things.is_empty() && !state.closed {
            state.waiting += 1;
            (state, _) = self.arrived.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        std::mem::take(&mut state.things)
    }

    /// Closes the queue when what is returned is dropped: nobody takes anything from it any more.
    pub(super) fn closing(&self) -> Closing<'_, T> {
        Closing(self)
    }
}

/// Closes a queue when dropped.
pub(super) struct Closing<'a, T>(&'a Queue<T>);

impl<T> Drop for Closing<'_, T> {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.arrived.notify_all();
    }
}
