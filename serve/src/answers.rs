//! Answers of the web server that are in memory.

use bytes::Bytes;
use cache::BlobDigest;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

/// A body.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// No bytes.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// An answer of a few words.
pub(crate) fn short(status: StatusCode, words: &'static str) -> Response<Body> {
    text(status, "text/plain; charset=utf-8", words.to_owned())
}

/// An answer that is a text.
pub(crate) fn text(status: StatusCode, media: &'static str, text: String) -> Response<Body> {
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(full(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

/// Returns the tag of some bytes that are served.
pub(crate) fn tag_of(bytes: &[u8]) -> String {
    format!("\"b3-{}\"", BlobDigest::of(bytes))
}
