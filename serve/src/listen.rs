//! The sockets: opened before anything else happens, so that rights which only they need can be given up.

mod inherited;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use self::inherited::Given;
use crate::dhcp::BootServer;
use crate::ports::{BOOT_SERVER, CLIENT, DHCP, NFS, OTHER_NFS, TFTP};

/// Connections that wait to be taken.
const BACKLOG: i32 = 128;

/// Why servers cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A port cannot be had.
    #[error("{what} at {address}: {source}")]
    Port {
        /// The server.
        what: &'static str,
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such interface, or it has no address.
    #[error("{0:?} is neither an address of this machine nor an interface with one; there are {1}")]
    Interface(String, String),
    /// The machine has no network.
    #[error("this machine has no network but itself; name an address or an interface with --on")]
    NoNetwork,
    /// The address is one that the whole world can reach.
    #[error(
        "{0} is a public address: whoever finds it could read what is served; --public says that this is meant"
    )]
    Public(IpAddr),
    /// The system does not say what there is.
    #[error("the addresses of this machine cannot be found out: {0}")]
    Unknown(io::Error),
    /// A room has addresses of version 4.
    #[error("{0} cannot serve a room: TFTP and proxyDHCP are for IPv4 here")]
    NotV4(IpAddr),
    /// A socket that was handed over is of no use.
    #[error(
        "the sockets that were handed over: {0}; one each is wanted of HTTP, NFS (TCP 2049), TFTP (UDP 69) and proxyDHCP (UDP 67 and 4011)"
    )]
    Inherited(String),
    /// Sockets were handed over, and not all that are needed.
    #[error("sockets were handed over, and none for {0}: add it to the socket unit")]
    NotGiven(&'static str),
    /// There is no such user.
    #[error("there is no user {0:?}; --user names whom to become")]
    NoUser(String),
    /// Rights could not be given up.
    #[error("the rights of root cannot be given up: {0}")]
    Rights(String),
}

/// An address of this machine, and the interface that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
}

impl Local {
    /// Finds an interface or an address of this machine; without a name, the one that its default route leaves by.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn find(name: Option<&str>) -> Result<Self, ListenError> {
        let all = if_addrs::get_if_addrs().map_err(ListenError::Unknown)?;
        let local = |found: &if_addrs::Interface| Self { interface: found.name.clone(), address: found.ip() };
        let wanted: Option<IpAddr> = match name {
            Some(name) => name.parse().ok(),
            None => Some(default_address().ok_or(ListenError::NoNetwork)?),
        };
        let is_it = |found: &&if_addrs::Interface| match wanted {
            Some(address) => found.ip() == address,
            None => name == Some(found.name.as_str()),
        };
        // Of an interface with several, the first of version 4.
        let found = all.iter().filter(is_it).min_by_key(|found| !found.ip().is_ipv4());
        found.map(local).ok_or_else(|| {
            let there: Vec<String> =
                all.iter().map(|found| format!("{} ({})", found.name, found.ip())).collect();
            ListenError::Interface(name.unwrap_or_default().to_owned(), there.join(", "))
        })
    }

    /// Refuses an address that the whole world can reach.
    ///
    /// # Errors
    /// [`ListenError::Public`].
    pub fn check_private(&self) -> Result<(), ListenError> {
        let is_private = match self.address {
            IpAddr::V4(address) => {
                address.is_private()
                    || address.is_documentation()
                    || address.is_loopback()
                    || address.is_link_local()
                    || is_shared(address)
            }
            IpAddr::V6(address) => {
                address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
            }
        };
        if is_private { Ok(()) } else { Err(ListenError::Public(self.address)) }
    }
}

/// Addresses between a provider and its customers (RFC 6598).
fn is_shared(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 100 && (64..128).contains(&second)
}

/// Returns the address that packets to other networks leave from; nothing is sent to find out.
fn default_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address for documentation (RFC 5737): nobody has it.
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

/// What to listen for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Where.
    pub local: Local,
    /// The port of HTTP; without one, 80 if it may be had, else 8080.
    pub http: Option<u16>,
    /// Whether machines that know nothing are answered: TFTP and proxyDHCP. Has NFS as well, at 2049 if it may be had, else 20049.
    pub room: bool,
    /// The port of NFS, whether there is a room or not.
    pub nfs: Option<u16>,
}

/// The sockets of all servers.
#[derive(Debug)]
pub struct Sockets {
    pub(crate) http: TcpListener,
    pub(crate) nfs: Option<TcpListener>,
    pub(crate) room: Option<RoomSockets>,
    /// Where HTTP is.
    pub address: SocketAddr,
    /// The port of NFS.
    pub nfs_port: Option<u16>,
}

#[derive(Debug)]
pub(crate) struct RoomSockets {
    pub(crate) place: BootServer,
    pub(crate) tftp: UdpSocket,
    pub(crate) dhcp: UdpSocket,
    pub(crate) boot_server: UdpSocket,
    /// Whether another server of this machine has the port of DHCP as well: it does not hear what this machine asks.
    pub(crate) is_shared: bool,
    /// For one question of a machine's; none where another program has the port.
    pub(crate) lookout: Option<UdpSocket>,
    pub(crate) interface: String,
}

impl Sockets {
    /// Opens them, or takes those that whoever started this process opened for it.
    ///
    /// # Errors
    /// [`ListenError`], which names the port.
    pub fn open(wish: &Wish) -> Result<Self, ListenError> {
        if let Some(given) = Given::take().map_err(ListenError::Inherited)? {
            return Self::of(given, wish);
        }
        let ip = wish.local.address;
        let listen = |port| tcp("HTTP", SocketAddr::new(ip, port));
        let (http, address) = match wish.http {
            Some(port) => listen(port)?,
            // Without the right to, or where another server has it.
            None => listen(80).or_else(|_| listen(8080))?,
        };
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), DHCP);
        let is_shared =
            wish.room && UdpSocket::bind(everywhere).is_err_and(|e| e.kind() == io::ErrorKind::AddrInUse);
        let room = match (wish.room, ip) {
            (false, _) => None,
            (true, IpAddr::V6(_)) => return Err(ListenError::NotV4(ip)),
            (true, IpAddr::V4(server)) => Some(RoomSockets {
                place: BootServer { server, http: address.port() },
                tftp: udp("TFTP", SocketAddr::new(ip, TFTP), None)?,
                // Questions go to all, so it listens to all: on its interface, beside other servers there.
                dhcp: udp("proxyDHCP", everywhere, Some(&wish.local.interface))?,
                boot_server: udp("proxyDHCP", SocketAddr::new(ip, BOOT_SERVER), None)?,
                is_shared,
                lookout: udp(
                    "a question to DHCP",
                    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), CLIENT),
                    Some(&wish.local.interface),
                )
                .ok(),
                interface: wish.local.interface.clone(),
            }),
        };
        let listen = |port| tcp("NFS", SocketAddr::new(ip, port));
        let nfs = match (wish.nfs, wish.room) {
            (Some(port), _) => Some(listen(port)?),
            (None, true) => Some(listen(NFS).or_else(|_| listen(OTHER_NFS))?),
            (None, false) => None,
        };
        let (nfs, nfs_address) = nfs.unzip();
        Ok(Self { http, nfs, room, address, nfs_port: nfs_address.map(|address| address.port()) })
    }

    /// Takes those that were handed over.
    fn of(given: Given, wish: &Wish) -> Result<Self, ListenError> {
        let (http, address) = given.http.ok_or(ListenError::NotGiven("HTTP (TCP)"))?;
        let room = match (wish.room, wish.local.address) {
            (false, _) => None,
            (true, ip @ IpAddr::V6(_)) => return Err(ListenError::NotV4(ip)),
            (true, IpAddr::V4(server)) => Some(RoomSockets {
                place: BootServer { server, http: address.port() },
                tftp: given.tftp.ok_or(ListenError::NotGiven("TFTP (UDP 69)"))?,
                dhcp: given.dhcp.ok_or(ListenError::NotGiven("proxyDHCP (UDP 67)"))?,
                boot_server: given.boot_server.ok_or(ListenError::NotGiven("proxyDHCP (UDP 4011)"))?,
                is_shared: false,
                // For a question of its own it would need the port of a machine.
                lookout: None,
                interface: wish.local.interface.clone(),
            }),
        };
        if wish.nfs.is_some() && given.nfs.is_none() {
            return Err(ListenError::NotGiven("NFS (TCP 2049)"));
        }
        let (nfs, nfs_address) = given.nfs.unzip();
        // A socket that hears at all addresses is reached at the one that was named.
        let ip = if address.ip().is_unspecified() { wish.local.address } else { address.ip() };
        let address = SocketAddr::new(ip, address.port());
        Ok(Self { http, nfs, room, address, nfs_port: nfs_address.map(|address| address.port()) })
    }
}

fn tcp(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|source| ListenError::Port { what, address, source })
}

fn udp(what: &'static str, address: SocketAddr, interface: Option<&str>) -> Result<UdpSocket, ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if let Some(interface) = interface {
            // A DHCP server of this machine may be at the same port; each gets every question.
            socket.set_reuse_address(true)?;
            socket.set_broadcast(true)?;
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    };
    open().map_err(|source| ListenError::Port { what, address, source })
}

/// Becomes another user, if this is root: what was opened stays open. Tells whether it did.
///
/// # Errors
/// There is no such user, or the system refuses.
pub fn give_up_rights(user: &str) -> Result<bool, ListenError> {
    if !nix::unistd::Uid::effective().is_root() {
        return Ok(false);
    }
    let failed = |why: &dyn std::fmt::Display| ListenError::Rights(why.to_string());
    // Threads that begin later have it from this one.
    nix::sys::prctl::set_no_new_privs().map_err(|error| failed(&error))?;
    let found = match user.parse() {
        Ok(number) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(number)),
        Err(_) => nix::unistd::User::from_name(user),
    };
    let found = found.map_err(|error| failed(&error))?;
    let found = found.ok_or_else(|| ListenError::NoUser(user.to_owned()))?;
    nix::unistd::setgroups(&[found.gid]).map_err(|error| failed(&error))?;
    nix::unistd::setresgid(found.gid, found.gid, found.gid).map_err(|error| failed(&error))?;
    nix::unistd::setresuid(found.uid, found.uid, found.uid).map_err(|error| failed(&error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_found_by_its_name_and_by_its_address() {
        let by_name = Local::find(Some("lo")).unwrap();
        let by_address = Local::find(Some("127.0.0.1")).unwrap();
        assert_eq!((by_name.address, by_address.interface.as_str()), (Ipv4Addr::LOCALHOST.into(), "lo"));
        let error = Local::find(Some("eth99")).unwrap_err().to_string();
        assert!(error.contains("lo (127.0.0.1)"), "{error}");
        assert!(Local::find(Some("192.0.2.77")).is_err());
    }

    #[test]
    fn an_address_of_the_world_is_refused() {
        let is_fine = |address: &str| {
            Local { interface: String::new(), address: address.parse().unwrap() }.check_private().is_ok()
        };
        for fine in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(is_fine(fine), "{fine}");
        }
        for public in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1", "0.0.0.0"] {
            assert!(!is_fine(public), "{public}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let local = Local::find(Some("lo")).unwrap();
        let error =
            Sockets::open(&Wish { local, http: Some(port), room: false, nfs: None }).unwrap_err().to_string();
        assert!(error.starts_with(&format!("HTTP at 127.0.0.1:{port}: ")), "{error}");
    }
}
