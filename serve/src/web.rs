//! The web server's connections: how long each may take to ask.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::connections::{self, Limits, plain};
use crate::http;
use crate::room::Room;

/// Connections at once.
const CONNECTIONS: Limits = Limits { all: 512, each: 64 };

/// How long a client may take to ask, and between two questions.
const ASKING: Duration = Duration::from_secs(15);

/// Bytes of a question, at most.
const QUESTION: usize = 16 << 10;

/// Takes connections until the listener fails.
pub(crate) async fn serve(room: Arc<Room>, listener: TcpListener) -> std::io::Result<()> {
    connections::take(listener, CONNECTIONS, move |stream| connection(Arc::clone(&room), stream)).await
}

async fn connection(room: Arc<Room>, stream: TcpStream) -> Result<(), connections::Ended> {
    let (client, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
    let service = service_fn(|request| http::answer(Arc::clone(&room), client, local, request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(ASKING).max_buf_size(QUESTION);
    Ok(builder.serve_connection(TokioIo::new(stream), service).await?)
}
