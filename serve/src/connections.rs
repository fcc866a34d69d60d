//! Connections to a server: how many there may be, and how long what was sent may stay unread.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

/// How long what was sent may stay unread.
const UNREAD: Duration = Duration::from_secs(60);

/// How long to wait where the system has no room for another connection.
const FULL: Duration = Duration::from_millis(100);

/// Why a connection ended.
pub(crate) type Ended = Box<dyn std::error::Error + Send + Sync>;

/// How many connections there may be at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In all.
    pub(crate) all: usize,
    /// From one address.
    pub(crate) each: usize,
}

/// Who is connected, and how often.
type Connected = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A connection, while it lasts.
struct Slot(Connected, IpAddr);

impl Slot {
    /// Takes a place, if there is one left.
    fn take(connected: &Connected, limits: Limits, address: IpAddr) -> Option<Self> {
        let mut all = connected.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = all.values().sum();
        let own = all.get(&address).copied().unwrap_or_default();
        if total >= limits.all || own >= limits.each {
            return None;
        }
        all.insert(address, own + 1);
        drop(all);
        Some(Self(Arc::clone(connected), address))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get_mut(&self.1) {
            *own -= 1;
        }
        all.retain(|_, own| *own > 0);
    }
}

/// Returns an address as it is where IPv4 is not within IPv6: of a listener for both, all are.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Takes connections until the listener fails; `work` is done with each, beside the others.
pub(crate) async fn take<W>(
    listener: TcpListener,
    limits: Limits,
    work: impl Fn(TcpStream) -> W,
) -> std::io::Result<()>
where
    W: Future<Output = Result<(), Ended>> + Send + 'static,
{
    let connected = Connected::default();
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            // One that went again, or too many files for the moment: neither is the end of the server.
            Err(error) => {
                tracing::debug!(%error, "accept");
                tokio::time::sleep(FULL).await;
                continue;
            }
        };
        let Some(slot) = Slot::take(&connected, limits, plain(client).ip()) else { continue };
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%client, %error, "connection");
            continue;
        }
        let work = work(stream);
        tokio::spawn(async move {
            if let Err(error) = work.await {
                tracing::debug!(%client, %error, "connection");
            }
            drop(slot);
        });
    }
}

/// Sends at once, and has the kernel let who reads nothing go: it counts from the first byte that stays unread.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(UNREAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places() {
        let connected = Connected::default();
        let limits = Limits { all: 100, each: 10 };
        let address = |number: usize| IpAddr::from([10, 0, 0, number as u8]);
        let take = |number| Slot::take(&connected, limits, address(number));
        let own: Vec<_> = (0..limits.each).map(|_| take(1).unwrap()).collect();
        assert!(take(1).is_none());
        assert!(take(2).is_some());
        drop(own);
        let all: Vec<_> = (0..limits.all).map(|number| take(number % 50).unwrap()).collect();
        assert!(take(201).is_none());
        drop(all);
        assert!(connected.lock().unwrap().is_empty());
    }
}
