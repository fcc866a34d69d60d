//! Serves boot files to a room of machines.
//!
//! One web server for files, scripts and a page; for machines that know nothing, TFTP for their loaders and a proxyDHCP beside the DHCP
//! server that is there; for those with little memory, NFS. This crate knows names, bytes and machines. What a set is made of, and what a
//! kernel's command line says, it has not heard of: whoever calls it hands over finished [`Set`]s.

mod answers;
mod confine;
mod connections;
mod datagram;
mod dhcp;
mod http;
mod listen;
mod lookout;
mod machines;
mod nfs;
mod page;
mod ports;
mod room;
mod scripts;
mod site;
mod tftp;
mod web;
mod works;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};

pub use self::confine::confine;
pub use self::dhcp::{BootServer, Kind, Outcome, Packet, Reply, answer as answer_dhcp, missing_loaders};
pub use self::listen::{ListenError, Local, Sockets, Wish, give_up_rights};
pub use self::machines::Machines;
pub use self::nfs::answer as answer_nfs;
pub use self::room::Room;
pub use self::scripts::{Machine, mac, nfs_host};
pub use self::site::{Asked, BASE, Content, Digests, Entry, Found, Role, Set, Site, Way};
pub use self::tftp::{Refusal, Request, parse as parse_tftp};
pub use self::works::{Part, State, Work};

/// Threads that serve; files are read on others.
const THREADS: usize = 2;

/// How often it is asked whether to stop.
const INTERVAL: Duration = Duration::from_millis(100);

/// Allows as many open files as the system lets this process have: each file of a set is open, and so is each connection.
fn allow_files() {
    let (_, most) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap_or((0, 0));
    if let Err(error) = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most)
    {
        tracing::debug!(%error, "open files");
    }
}

/// Looks what is in the way of a room, and serves nothing: a DHCP server has to answer, and nobody else may say what to boot.
///
/// # Errors
/// A socket failed.
pub fn look_around(sockets: Sockets) -> io::Result<Vec<String>> {
    let Some(listen::RoomSockets { place, is_shared, lookout: Some(socket), interface, .. }) = sockets.room
    else {
        return Ok(Vec::new());
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        lookout::look_once(&UdpSocket::from_std(socket)?, place, (interface, is_shared)).await
    })
}

/// Serves until `is_over` says so; `each` is called now and then.
///
/// # Errors
/// A socket failed.
pub fn serve(
    room: &Arc<Room>,
    sockets: Sockets,
    is_over: &dyn Fn() -> bool,
    each: &mut dyn FnMut(),
) -> io::Result<()> {
    allow_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
    let run = |work: std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send>>| {
        let failed = failed.clone();
        // One that panicked is over as well, and nobody else would say so.
        let worked = runtime.spawn(work);
        runtime.spawn(async move {
            let ended = worked.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            failed.send(ended)
        });
    };
    let entered = runtime.enter();
    run(Box::pin(web::serve(Arc::clone(room), TcpListener::from_std(sockets.http)?)));
    if let Some(listener) = sockets.nfs {
        run(Box::pin(nfs::serve(Arc::clone(room), TcpListener::from_std(listener)?)));
    }
    if let Some(listen::RoomSockets { place, tftp, dhcp, boot_server, is_shared, lookout, interface }) =
        sockets.room
    {
        if let Some(socket) = lookout {
            runtime.spawn(lookout::look(
                Arc::clone(room),
                UdpSocket::from_std(socket)?,
                place,
                (interface, is_shared),
            ));
        }
        run(Box::pin(tftp::serve(Arc::clone(room), UdpSocket::from_std(tftp)?, place.server.into())));
        for (socket, is_boot_server) in [(dhcp, false), (boot_server, true)] {
            run(Box::pin(dhcp::serve(Arc::clone(room), UdpSocket::from_std(socket)?, place, is_boot_server)));
        }
    }
    drop(entered);
    let ended = loop {
        let failure = runtime.block_on(async { tokio::time::timeout(INTERVAL, failures.recv()).await });
        match failure {
            Ok(Some(ended)) => break ended,
            Ok(None) => break Ok(()),
            Err(_) if is_over() => break Ok(()),
            Err(_) => each(),
        }
    };
    // Transfers end with the process; nobody waits for a client that reads slowly.
    runtime.shutdown_background();
    ended
}
