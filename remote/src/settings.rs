//! How upstreams are used.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::sign::{Key, Trust};

/// How to reach a server over TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The authorities that a server's certificate may come from, in PEM; those of the system, where nothing is said.
    pub authorities: Option<PathBuf>,
    /// This client's certificate and private key, in PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// How upstreams are used.
#[derive(Clone)]
pub struct Settings {
    /// Whose results count.
    pub trust: Trust,
    /// Signs what is offered.
    pub key: Option<Arc<Key>>,
    /// How to reach it over TLS.
    pub tls: Tls,
    /// A file with a bearer token, read again when it changes.
    pub token: Option<PathBuf>,
    /// More headers of each request.
    pub headers: Vec<(String, String)>,
    /// A word that is part of every key there: another one abandons all results.
    pub salt: String,
    /// Set where everything that takes long is to stop.
    pub stop: Arc<AtomicBool>,
    /// Told why an upstream is given up, and other things that people should read.
    pub say: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may be secrets.
        f.debug_struct("Settings").field("trust", &self.trust).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Settings {
    /// Trusts these, and does nothing else that is special.
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            key: None,
            tls: Tls::default(),
            token: None,
            headers: Vec::new(),
            salt: String::new(),
            stop: Arc::default(),
            say: Arc::new(|_| ()),
        }
    }
}
