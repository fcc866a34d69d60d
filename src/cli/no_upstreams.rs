//! Stands for upstreams in a program that was built without them.

use std::sync::Arc;

use cache::Store;
use clap::Args;
use graph::Event;

use super::failure::Failure;
use crate::machine::Machine;

/// Nothing that could be said of upstreams.
#[derive(Debug, Args)]
pub(super) struct Remotes {}

/// No upstreams.
pub(super) struct Upstreams;

/// Nothing that was done with upstreams.
pub(super) struct Summary {
    pub(super) sent: Sent,
}

/// Nothing that was sent.
pub(super) struct Sent {
    pub(super) remarks: Vec<String>,
}

impl Remotes {
    pub(super) fn open(&self, _: &Store, _: &mut Machine, _: bool) -> Result<Upstreams, Failure> {
        Ok(Upstreams)
    }
}

impl Upstreams {
    pub(super) fn event(&self, _: &Arc<Store>, _: &Event) {}

    pub(super) fn without_uploads(self) -> Self {
        self
    }

    pub(super) fn finish(self, _: &Store) -> (Option<Summary>, Option<String>) {
        (None, None)
    }
}

pub(super) fn line(_: &Summary) -> String {
    String::new()
}

pub(super) fn json(_: &Summary) -> serde_json::Value {
    serde_json::Value::Null
}
