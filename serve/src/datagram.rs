//! Questions that come as single packets.

use std::io;
use std::net::SocketAddr;

use tokio::net::UdpSocket;

/// Waits for the next packet; returns its length, and who sent it.
///
/// # Errors
/// The socket failed.
pub(crate) async fn receive(socket: &UdpSocket, packet: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(packet).await {
            // Somebody who was answered is not there any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            received => return received,
        }
    }
}
