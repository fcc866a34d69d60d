//! How upstreams are used.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};

use cache::statement::Statement;
use cache::upstream::Signed;

use crate::sign::{Key, Trust, distrusted};

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
    /// Whether to go on where bytes are altered: somebody looks for all of them.
    pub examines: bool,
    /// Told why an upstream is given up, and other things that people should read.
    pub say: Arc<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may be secrets.
        f.debug_struct("Settings").field("trust", &self.trust).field("key", &self.key).finish_non_exhaustive()
    }
}

/// What becomes of an offer, by what is there.
pub(crate) enum Offering {
    /// The result that is there counts, and stays.
    There(Vec<u8>),
    /// This statement goes there, with these signatures.
    Put(Vec<u8>, Vec<u8>),
}

impl Offering {
    /// Returns the statement, and the signatures.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Offering::There(statement) => (statement, Vec::new()),
            Offering::Put(statement, signatures) => (statement, signatures),
        }
    }
}

impl Settings {
    /// Returns what an upstream has, if it counts; that some does not is said once.
    pub(crate) fn counts(
        &self,
        name: &str,
        said: &Once,
        statement: Vec<u8>,
        signatures: &[u8],
    ) -> Option<Signed> {
        match self.trust.judge(&statement, signatures) {
            Ok(signer) => Some(Signed { statement, signer }),
            Err(names) => {
                said.call_once(|| (self.say)(&distrusted(name, &names)));
                None
            }
        }
    }

    /// Finds out what becomes of an offer: a result that counts stays; one that says the same is signed as well; any other goes.
    pub(crate) fn offering(&self, statement: &[u8], there: Option<(Vec<u8>, Vec<u8>)>) -> Offering {
        let sign = |statement: &[u8]| {
            self.key.as_ref().map_or_else(String::new, |key| key.sign(statement)).into_bytes()
        };
        if let Some((other, signatures)) = there {
            if self.trust.judge(&other, &signatures).is_ok() {
                return Offering::There(other);
            }
            let same = Statement::decode(&other).ok().zip(Statement::decode(statement).ok());
            if same.is_some_and(|(other, own)| own.agrees(&other)) {
                let mut signatures = signatures;
                if !signatures.is_empty() && !signatures.ends_with(b"\n") {
                    signatures.push(b'\n');
                }
                signatures.extend(sign(&other));
                return Offering::Put(other, signatures);
            }
        }
        Offering::Put(statement.to_vec(), sign(statement))
    }

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
            examines: false,
            say: Arc::new(|_| ()),
        }
    }
}
