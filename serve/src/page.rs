//! The page: one file each of HTML, style and script, all from here, and what the script reads.

use std::sync::Arc;

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::answers::{Body, short, tag_of, text};
use crate::room::Room;
use crate::site::{Digests, Role, Way};

/// What a browser may load: nothing from anywhere else.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
];

/// Where pictures of what is being made are.
const PICTURES: &str = "/works/";

/// A set, for the page.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    name: &'a str,
    title: &'a str,
    id: &'a str,
    ways: &'a [Way],
    facts: &'a [(String, String)],
    files: Vec<ShownFile<'a>>,
}

#[derive(Debug, Serialize)]
struct ShownFile<'a> {
    path: &'a str,
    size: u64,
    role: Role,
    digests: Option<Digests>,
}

/// Answers with the page, or with what it reads; `None` where the path is none of these.
pub(crate) fn respond(room: &Arc<Room>, path: &str) -> Option<Response<Body>> {
    let mut response = match path {
        "/api/machines" => text(StatusCode::OK, "application/json", room.machines().json()),
        "/api/works" => text(StatusCode::OK, "application/json", room.works().json()),
        _ if path.starts_with(PICTURES) => {
            let name = path[PICTURES.len()..].strip_suffix(".svg")?;
            text(StatusCode::OK, "image/svg+xml", room.works().picture(name)?)
        }
        "/api/sets" => match sets(room) {
            Ok(sets) => text(StatusCode::OK, "application/json", sets),
            Err(_) => short(StatusCode::INTERNAL_SERVER_ERROR, "the sets cannot be written down\n"),
        },
        _ => {
            let (_, media, content) = FILES.iter().find(|(name, ..)| *name == path)?;
            let mut response = text(StatusCode::OK, media, (*content).to_owned());
            if let Ok(tag) = HeaderValue::try_from(tag_of(content.as_bytes())) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

fn sets(room: &Room) -> serde_json::Result<String> {
    let site = room.site();
    let mut shown = Vec::new();
    for set in site.sets() {
        let mut files = Vec::new();
        for (path, entry) in &set.files {
            files.push(ShownFile { path, size: entry.size, role: entry.role, digests: entry.digests });
        }
        let (name, title, id) = (&*set.name, &*set.title, &*set.id);
        shown.push(Shown { name, title, id, ways: &set.ways, facts: &set.facts, files });
    }
    serde_json::to_string(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::set;

    #[test]
    fn the_page_asks_nothing_of_anybody_else() {
        for (path, _, content) in FILES {
            for far in ["http://", "https://", "//cdn", "@import", "url(", "eval(", "innerHTML"] {
                assert!(!content.contains(far), "{path}: {far}");
            }
        }
    }

    #[test]
    fn sets_are_told_with_their_digests() {
        let room = Arc::new(Room::new(vec![set("a", "11")], |_| ()));
        let all: serde_json::Value = serde_json::from_str(&sets(&room).unwrap()).unwrap();
        assert_eq!(all[0]["name"], "a");
        assert_eq!(all[0]["ways"][2]["least_ram_mib"], 640);
        assert_eq!(all[0]["files"].as_array().unwrap().len(), 6);
        assert!(respond(&room, "/api/sets").is_some() && respond(&room, "/a/x.iso").is_none());
    }
}
