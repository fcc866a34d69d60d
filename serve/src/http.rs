//! Files over HTTP/1.1: GET and HEAD, ranges and conditions (RFC 9110), and nothing that a client could write.
//!
//! ETags are digests, so a file is the same file wherever it is served from. Every answer says its length: old firmware needs it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;

use crate::answers::{Body, empty, short, text};
use crate::room::Room;
use crate::scripts::{self, Here};
use crate::site::{Asked, BASE, Found, Role};

/// Bytes that are read at a time.
const PIECE: u64 = 192 << 10;

/// How often a listener to events hears something, at least.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How often it hears of changes, at most.
const RATE: Duration = Duration::from_millis(250);

/// Answers a request.
pub(crate) async fn answer(
    room: Arc<Room>,
    client: SocketAddr,
    local: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if is_read {
        respond(&room, client, local, &request, &path)
    } else {
        let mut response = short(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    };
    let headers = response.headers_mut();
    headers
        .insert(header::SERVER, HeaderValue::from_static(concat!("stagegraph/", env!("CARGO_PKG_VERSION"))));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    tracing::info!(%client, method = %request.method(), path, status = response.status().as_u16(), "http");
    if request.method() == Method::HEAD {
        *response.body_mut() = empty();
    }
    Ok(response)
}

fn respond(
    room: &Arc<Room>,
    client: SocketAddr,
    local: SocketAddr,
    request: &Request<Incoming>,
    path: &str,
) -> Response<Body> {
    if let Some(response) = crate::page::respond(room, path) {
        return response;
    }
    if path == "/events" {
        return events(room);
    }
    let site = room.site();
    let Some(asked) = site.find(path) else {
        room.machines().missed(client.ip(), path);
        return short(StatusCode::NOT_FOUND, "there is no such file\n");
    };
    let base = format!("http://{}", host(request.headers(), local));
    let script = match asked {
        Asked::File(found) => return file(room, client, request.headers(), &found),
        // Programs that look for something to boot, and are no machines.
        Asked::Text(template) => {
            let mut response = text(StatusCode::OK, media_type(path), template.replace(BASE, &base));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            return response;
        }
        Asked::Menu => scripts::menu(&base, site.sets()),
        Asked::Start(set) => scripts::start(&base, &set),
        Asked::Way(set) => {
            let machine = scripts::Machine::of_query(request.uri().query().unwrap_or_default());
            room.machines().told(client.ip(), &machine);
            let nfs = room.nfs().map(|port| SocketAddr::new(local.ip(), port));
            scripts::way(&Here { base: &base, append: room.append(), nfs }, &set, &machine)
        }
    };
    let agent = value(request.headers(), header::USER_AGENT);
    room.machines().began(client.ip(), agent, Role::Script, path, script.len() as u64);
    room.machines().moved(client.ip(), path, script.len() as u64);
    let mut response = text(StatusCode::OK, "text/plain; charset=utf-8", script);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns a field of a request, if it is a text.
fn value(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Returns the address by which the client reached this server, as far as it can be believed: it goes into scripts for that client alone.
fn host(headers: &HeaderMap, local: SocketAddr) -> String {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let said = value(headers, header::HOST)
        .filter(|host| (1..256).contains(&host.len()) && host.bytes().all(is_fine));
    said.map_or_else(|| local.to_string(), str::to_owned)
}

/// Answers with a file, or a part of it.
fn file(room: &Arc<Room>, client: SocketAddr, headers: &HeaderMap, found: &Found) -> Response<Body> {
    let entry = &found.entry;
    let tag = entry.digests.map(|digests| format!("\"b3-{}\"", digests.blake3));
    let modified = httpdate::fmt_http_date(entry.modified);
    if is_another(headers, tag.as_deref(), entry.modified) {
        return short(StatusCode::PRECONDITION_FAILED, "it is another one by now\n");
    }
    let is_fresh = is_unchanged(headers, tag.as_deref(), entry.modified);
    let range = if is_fresh { Wanted::All } else { wanted(headers, tag.as_deref(), &modified, entry.size) };
    let (status, part) = match range {
        _ if is_fresh => (StatusCode::NOT_MODIFIED, None),
        Wanted::All => (StatusCode::OK, Some((0, entry.size))),
        Wanted::Part(start, end) => (StatusCode::PARTIAL_CONTENT, Some((start, end))),
        Wanted::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, None),
    };
    let caching = if found.is_immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut fields = vec![
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::LAST_MODIFIED, modified),
        (header::CONTENT_TYPE, media_type(&found.path).to_owned()),
        (header::CACHE_CONTROL, caching.to_owned()),
    ];
    fields.extend(tag.map(|tag| (header::ETAG, tag)));
    fields.extend(part.map(|(start, end)| (header::CONTENT_LENGTH, (end - start).to_string())));
    match range {
        Wanted::Part(start, end) => {
            fields.push((header::CONTENT_RANGE, format!("bytes {start}-{}/{}", end - 1, entry.size)));
        }
        Wanted::Nothing => fields.push((header::CONTENT_RANGE, format!("bytes */{}", entry.size))),
        Wanted::All => {}
    }
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    for (name, value) in fields {
        response.headers_mut().extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    }
    let Some((start, end)) = part else { return response };
    let agent = value(headers, header::USER_AGENT);
    room.machines().began(client.ip(), agent, entry.role, &found.path, entry.size);
    *response.body_mut() =
        StreamBody::new(pieces(Arc::clone(room), client, found.clone(), start, end)).boxed();
    response
}

/// Reads a part of a file piece by piece, and tells how far it is.
fn pieces(
    room: Arc<Room>,
    client: SocketAddr,
    found: Found,
    start: u64,
    end: u64,
) -> impl Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync {
    stream::try_unfold((start, room, found), move |(at, room, found)| async move {
        if at >= end {
            return Ok(None);
        }
        let length = PIECE.min(end - at);
        let entry = Arc::clone(&found.entry);
        let read = tokio::task::spawn_blocking(move || entry.read(at, length as usize)).await;
        match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(bytes) => {
                room.machines().moved(client.ip(), &found.path, at + length);
                Ok(Some((Frame::data(Bytes::from(bytes)), (at + length, room, found))))
            }
            Err(error) => {
                room.say(&format!(
                    "{} cannot be read: {error}; the transfer to {} ends",
                    found.path,
                    client.ip()
                ));
                Err(error)
            }
        }
    })
}

/// Which bytes of a file are wanted: from the first up to, and without, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Part(u64, u64),
    Nothing,
}

/// Reads `Range` and `If-Range`. Several ranges, and what is no range, are answered with the whole file, as is allowed.
fn wanted(headers: &HeaderMap, tag: Option<&str>, modified: &str, size: u64) -> Wanted {
    // The name of the unit may be written in any way.
    let unit = |range: &'_ str| range.get(..6).is_some_and(|unit| unit.eq_ignore_ascii_case("bytes="));
    let Some(range) = value(headers, header::RANGE).filter(|range| unit(range)).map(|range| &range[6..])
    else {
        return Wanted::All;
    };
    if value(headers, header::IF_RANGE)
        .is_some_and(|condition| Some(condition) != tag && condition != modified)
    {
        return Wanted::All;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Wanted::All };
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        // Larger than any file is as good as the largest number.
        true => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
        false => None,
    };
    match (first.is_empty(), number(first), last.is_empty(), number(last)) {
        (true, _, _, Some(0)) => Wanted::Nothing,
        (true, _, _, Some(_)) if size == 0 => Wanted::Nothing,
        (true, _, _, Some(length)) => Wanted::Part(size.saturating_sub(length), size),
        (_, Some(start), true, _) if start < size => Wanted::Part(start, size),
        (_, Some(start), _, Some(end)) if start <= end && start < size => {
            Wanted::Part(start, size.min(end.saturating_add(1)))
        }
        (_, Some(start), _, Some(end)) if start > end => Wanted::All,
        (_, Some(_), true, _) | (_, Some(_), _, Some(_)) => Wanted::Nothing,
        _ => Wanted::All,
    }
}

/// Tells whether the client wants the file only if it is the one that it knows, and it is not (RFC 9110, 13.1.1 and 13.1.4).
fn is_another(headers: &HeaderMap, tag: Option<&str>, modified: SystemTime) -> bool {
    if let Some(tags) = value(headers, header::IF_MATCH) {
        // A weak tag says nothing of bytes.
        let is_it = |known: &str| known == "*" || tag == Some(known);
        return !tags.split(',').any(|known| is_it(known.trim()));
    }
    let since =
        value(headers, header::IF_UNMODIFIED_SINCE).and_then(|since| httpdate::parse_http_date(since).ok());
    since.is_some_and(|since| modified >= since + Duration::from_secs(1))
}

/// Tells whether the client has the file already.
fn is_unchanged(headers: &HeaderMap, tag: Option<&str>, modified: SystemTime) -> bool {
    if let Some(tags) = value(headers, header::IF_NONE_MATCH) {
        let is_it = |known: &str| known == "*" || tag == Some(known.trim_start_matches("W/"));
        return tags.split(',').any(|known| is_it(known.trim()));
    }
    let since =
        value(headers, header::IF_MODIFIED_SINCE).and_then(|since| httpdate::parse_http_date(since).ok());
    // Its date has whole seconds.
    since.is_some_and(|since| modified < since + Duration::from_secs(1))
}

/// Returns the media type by a file's name.
fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "efi" => "application/efi",
        "iso" => "application/vnd.efi-iso",
        "ipxe" | "cfg" | "txt" | "treeinfo" | "DIGESTS" | "sha256" => "text/plain; charset=utf-8",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

/// What changes, as server-sent events: all there is, and again when something has changed, or with time: that a machine stands still is
/// told by nothing else.
fn events(room: &Arc<Room>) -> Response<Body> {
    let Some(listener) = room.listener() else {
        return short(StatusCode::SERVICE_UNAVAILABLE, "too many listen already\n");
    };
    let state = (Arc::clone(room), room.machines().watch(), listener, true);
    let events = stream::unfold(state, |(room, mut watch, listener, is_first)| async move {
        if !is_first {
            // Whoever waits is told of what came together at once.
            tokio::time::sleep(RATE).await;
            if let Ok(Err(_)) = tokio::time::timeout(HEARTBEAT, watch.changed()).await {
                return None;
            }
        }
        let number = *watch.borrow_and_update();
        let event = format!(
            "id: {number}\nevent: machines\ndata: {}\n\nevent: works\ndata: {}\n\n",
            room.machines().json(),
            room.works().json()
        );
        Some((Ok(Frame::data(Bytes::from(event))), (room, watch, listener, false)))
    });
    let mut response = Response::new(StreamBody::new(events).boxed());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn a_file_that_is_another_one_is_not_sent_to_who_knows_the_first() {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500);
        let is_another =
            |name: &'static str, text: &str| is_another(&headers(&[(name, text)]), Some("\"t\""), modified);
        for same in ["\"t\"", "\"x\", \"t\"", "*"] {
            assert!(!is_another("if-match", same), "{same}");
        }
        for other in ["\"x\"", "W/\"t\"", ""] {
            assert!(is_another("if-match", other), "{other}");
        }
        assert!(!is_another("if-unmodified-since", "Sun, 09 Sep 2001 01:46:40 GMT"));
        assert!(is_another("if-unmodified-since", "Sun, 09 Sep 2001 01:46:39 GMT"));
        assert!(!is_another("if-unmodified-since", "some day"));
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let wanted = |range: &str| wanted(&headers(&[("range", range)]), Some("\"t\""), "date", 100);
        for (range, expected) in [
            ("bytes=0-", Wanted::Part(0, 100)),
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=10-19", Wanted::Part(10, 20)),
            ("bytes=90-1000", Wanted::Part(90, 100)),
            ("bytes=90-99999999999999999999999", Wanted::Part(90, 100)),
            ("bytes=-5", Wanted::Part(95, 100)),
            ("bytes=-1000", Wanted::Part(0, 100)),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=100-200", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("bytes=+1-5", Wanted::All),
            ("bytes=a-b", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=", Wanted::All),
            ("lines=0-1", Wanted::All),
        ] {
            assert_eq!(wanted(range), expected, "{range}");
        }
    }

    #[test]
    fn a_range_of_another_file_is_none() {
        let wanted = |tag: &str| {
            wanted(&headers(&[("range", "bytes=1-2"), ("if-range", tag)]), Some("\"t\""), "date", 9)
        };
        assert_eq!(
            [wanted("\"t\""), wanted("date"), wanted("\"u\"")].map(|w| w == Wanted::All),
            [false, false, true]
        );
    }

    #[test]
    fn who_has_it_is_told_so() {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_500);
        let is = |name, value: &str| is_unchanged(&headers(&[(name, value)]), Some("\"t\""), modified);
        assert!(is("if-none-match", "\"a\", W/\"t\"") && is("if-none-match", "*"));
        assert!(!is("if-none-match", "\"a\"") && !is("if-none-match", ""));
        assert!(is("if-modified-since", "Thu, 01 Jan 1970 00:16:40 GMT"));
        assert!(!is("if-modified-since", "Thu, 01 Jan 1970 00:16:39 GMT"));
        assert!(!is("if-modified-since", "yesterday"));
    }

    #[test]
    fn a_host_is_a_name_or_a_number() {
        let local: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let host = |said: &str| host(&headers(&[("host", said)]), local);
        for fine in ["boot.example:8080", "[fe80::1]:80", "10.0.0.2"] {
            assert_eq!(host(fine), fine);
        }
        for wrong in ["", "a b", "a/b", "a${b}", "a\tb", "<script>"] {
            assert_eq!(host(wrong), "10.0.0.1:80", "{wrong:?}");
        }
    }
}
