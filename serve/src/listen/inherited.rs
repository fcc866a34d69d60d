//! Sockets that whoever started this process opened for it, so that it needs no rights of its own (`sd_listen_fds(3)`).
//!
//! Each is known by its port, as it would be opened here.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use listenfd::ListenFd;

use crate::ports::{BOOT_SERVER, DHCP, NFS, OTHER_NFS, TFTP};

/// What was handed over.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) http: Option<(TcpListener, SocketAddr)>,
    pub(super) nfs: Option<(TcpListener, SocketAddr)>,
    pub(super) tftp: Option<UdpSocket>,
    pub(super) dhcp: Option<UdpSocket>,
    pub(super) boot_server: Option<UdpSocket>,
}

impl Given {
    /// Takes what was handed over; nothing, where nothing was.
    ///
    /// # Errors
    /// Why one of them is of no use.
    pub(super) fn take() -> Result<Option<Self>, String> {
        let mut fds = ListenFd::from_env();
        if fds.len() == 0 {
            return Ok(None);
        }
        let mut given = Self::default();
        for index in 0..fds.len() {
            let failed = |error: std::io::Error| error.to_string();
            if let Ok(Some(listener)) = fds.take_tcp_listener(index) {
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                let place = match address.port() {
                    NFS | OTHER_NFS => &mut given.nfs,
                    _ => &mut given.http,
                };
                if let Some((_, other)) = place.replace((listener, address)) {
                    return Err(format!("{other} and {address} are for one server"));
                }
                continue;
            }
            let socket = fds.take_udp_socket(index).map_err(failed)?;
            let Some(socket) = socket else { continue };
            socket.set_nonblocking(true).map_err(failed)?;
            let address = socket.local_addr().map_err(failed)?;
            let place = match address.port() {
                TFTP if address.is_ipv4() => &mut given.tftp,
                DHCP if address.is_ipv4() => &mut given.dhcp,
                BOOT_SERVER if address.is_ipv4() => &mut given.boot_server,
                _ => return Err(format!("UDP {address} is for no server here, which take IPv4")),
            };
            // Offers go to all: the machine has no address yet.
            socket.set_broadcast(true).map_err(failed)?;
            if place.replace(socket).is_some() {
                return Err(format!("there are two sockets for UDP {}", address.port()));
            }
        }
        Ok(Some(given))
    }
}
