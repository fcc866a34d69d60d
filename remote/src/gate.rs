//! The gate before an upstream: one that does not answer is left alone, for a while or for good.
//!
//! Two failures in a row close it for [`REST`]; then one caller may try again, and the others go without. What a build waits in
//! vain is limited: after [`PATIENCE`] in all, the gate stays closed. So does one whose server refuses, or has altered bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::settings::Settings;

/// Failures in a row that close it.
const FAILURES: u32 = 2;

/// How long it stays closed.
const REST: Duration = Duration::from_secs(30);

/// How long one process waits in vain, in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many of them in a build.
const ALTERED: u32 = 3;

#[derive(Default)]
struct State {
    failures: u32,
    altered: u32,
    closed_until: Option<Instant>,
    /// Why it stays closed.
    closed: Option<String>,
    wasted: Duration,
    /// Until when the waiting of one or more callers is counted.
    counted: Option<Instant>,
    /// The last failure.
    failure: Option<String>,
    said: Vec<String>,
}

/// Says whether to ask.
pub(crate) struct Gate {
    /// Who is behind it, for people.
    name: String,
    /// What is not done without it.
    without: &'static str,
    say: Arc<dyn Fn(&str) + Send + Sync>,
    /// Chunks with other bytes than their names say, before nothing more is asked for.
    altered: u32,
    state: Mutex<State>,
}

impl Gate {
    pub(crate) fn new(name: String, without: &'static str, settings: &Settings) -> Self {
        let altered = if settings.examines { u32::MAX } else { ALTERED };
        Self { name, without, say: Arc::clone(&settings.say), altered, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether to ask now; why not, otherwise.
    pub(crate) fn enter(&self) -> Result<(), String> {
        let mut state = self.state();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        match state.closed_until {
            Some(until) if until > Instant::now() => Err(state.failure.clone().unwrap_or_default()),
            // One tries; meanwhile the others go without.
            Some(_) => {
                state.closed_until = Some(Instant::now() + REST);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// It answered.
    pub(crate) fn worked(&self) {
        let mut state = self.state();
        (state.failures, state.closed_until, state.failure) = (0, None, None);
    }

    /// It did not answer somebody who has waited since `began`; `is_certain` where it is useless to try once more.
    pub(crate) fn failed(&self, why: &str, began: Instant, is_certain: bool) {
        let mut state = self.state();
        state.failures += 1;
        // Who waits at the same time waits once.
        let (now, from) = (Instant::now(), state.counted.map_or(began, |counted| counted.max(began)));
        state.wasted += now.saturating_duration_since(from);
        state.counted = Some(now);
        state.failure = Some(why.to_owned());
        if is_certain || state.failures >= FAILURES {
            state.closed_until = Some(Instant::now() + REST);
            self.say_once(&mut state, why);
        }
        if state.wasted > PATIENCE {
            state.closed = Some(why.to_owned());
            self.say_once(&mut state, why);
        }
    }

    /// It refuses: no later try helps.
    pub(crate) fn refused(&self, why: &str) {
        let mut state = self.state();
        state.failure = Some(why.to_owned());
        state.closed = Some(why.to_owned());
        self.say_once(&mut state, why);
    }

    /// It has other bytes under a name.
    pub(crate) fn altered(&self, name: &str) {
        let mut state = self.state();
        state.altered += 1;
        if state.altered >= self.altered {
            let why = format!("{} of its blobs are altered, the last one {name}", state.altered);
            state.failure = Some(why.clone());
            state.closed = Some(why.clone());
            self.say_once(&mut state, &why);
        }
    }

    /// Returns why it is closed, or was last.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state().failure.clone()
    }

    fn say_once(&self, state: &mut State, why: &str) {
        let text = format!("{}: {why}; {}", self.name, self.without);
        if !state.said.contains(&text) {
            (self.say)(&text);
            state.said.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> (Gate, Arc<Mutex<Vec<String>>>) {
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&said);
        let say = move |text: &str| log.lock().unwrap().push(text.to_owned());
        let mut settings = Settings::new(crate::sign::Trust::All);
        settings.say = Arc::new(say);
        (Gate::new("cache".to_owned(), "without", &settings), said)
    }

    #[test]
    fn two_failures_in_a_row_close_it_and_success_opens_it() {
        let (gate, said) = gate();
        gate.failed("late", Instant::now(), false);
        gate.worked();
        gate.failed("late", Instant::now(), false);
        assert!(gate.enter().is_ok());
        gate.failed("late", Instant::now(), false);
        assert_eq!(gate.enter(), Err("late".to_owned()));
        gate.failed("late", Instant::now(), false);
        assert_eq!(*said.lock().unwrap(), ["cache: late; without"], "said once");
        gate.state().closed_until = Some(Instant::now());
        assert_eq!((gate.enter(), gate.enter().is_ok()), (Ok(()), false), "one tries again");
        gate.worked();
        assert!(gate.enter().is_ok() && gate.failure().is_none());
    }

    #[test]
    fn nobody_waits_in_vain_for_long() {
        let (gate, _) = gate();
        let now = Instant::now();
        for _ in 0..3 {
            gate.failed("late", now.checked_sub(Duration::from_secs(6)).unwrap(), false);
        }
        gate.worked();
        assert!(gate.enter().is_ok(), "all three waited at once");
        gate.failed("late", now.checked_sub(Duration::from_secs(6)).unwrap(), false);
        gate.state().wasted += Duration::from_secs(6);
        gate.failed("late", now, false);
        gate.worked();
        assert!(gate.enter().is_err(), "12 seconds are enough");
    }

    #[test]
    fn what_refuses_or_alters_is_not_asked_again() {
        let (gate, said) = gate();
        gate.altered("a");
        gate.altered("b");
        assert!(gate.enter().is_ok());
        gate.altered("c");
        assert!(gate.enter().unwrap_err().contains("3 of its blobs are altered, the last one c"));
        gate.refused("no");
        assert_eq!((gate.enter(), said.lock().unwrap().len()), (Err("no".to_owned()), 2));
    }
}
