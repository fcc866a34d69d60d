//! Addresses of upstreams, as people write them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A server of the Remote Execution API.
    Server(ServerAddress),
    /// A mirror.
    Mirror(MirrorAddress),
}

/// Where a server of the Remote Execution API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// As gRPC takes it: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
    pub(crate) endpoint: String,
    /// The name of the instance; mostly empty.
    pub(crate) instance: String,
    /// As it was written, for people.
    pub(crate) text: String,
}

/// Where a mirror is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorAddress {
    /// In a folder.
    Folder(PathBuf),
    /// On a web server; the address ends in a slash.
    Web(Url),
}

/// Why a text is no address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address of an upstream: {why}; expected grpc://HOST:PORT[/INSTANCE], grpcs://HOST:PORT[/INSTANCE], \
     unix:PATH, file:FOLDER, or an http or https address"
)]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |why| AddressError { text: without_secrets(text), why };
        let (scheme, rest) = text.split_once(':').ok_or_else(|| wrong("it has no scheme"))?;
        match scheme {
            "unix" | "file" => {
                // As addresses are written, and as people do.
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() {
                    return Err(wrong("it names no path"));
                }
                if scheme == "file" {
                    return Ok(Address::Mirror(MirrorAddress::Folder(path.into())));
                }
                let path = std::path::absolute(path).map_err(|_| wrong("its path cannot be used"))?;
                let path = path.to_str().ok_or_else(|| wrong("its path is not UTF-8"))?;
                let endpoint = format!("unix:{path}");
                Ok(Address::Server(ServerAddress {
                    endpoint,
                    instance: String::new(),
                    text: text.to_owned(),
                }))
            }
            "grpc" | "grpcs" => {
                let scheme = if scheme == "grpc" { "http" } else { "https" };
                let url = Url::parse(&format!("{scheme}:{rest}")).map_err(|_| wrong("it cannot be read"))?;
                let host = url.host_str().filter(|host| !host.is_empty());
                let host = host.ok_or_else(|| wrong("it names no host"))?;
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(wrong("secrets belong into a file: --remote-token FILE"));
                }
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(wrong("it has a query"));
                }
                let port = url.port_or_known_default().ok_or_else(|| wrong("it names no port"))?;
                let endpoint = format!("{scheme}://{host}:{port}");
                let instance = url.path().trim_matches('/').to_owned();
                Ok(Address::Server(ServerAddress { endpoint, instance, text: text.to_owned() }))
            }
            "http" | "https" => {
                let mut url = Url::parse(text).map_err(|_| wrong("it cannot be read"))?;
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(wrong("secrets belong into a file: --remote-token FILE"));
                }
                if url.query().is_some() || url.fragment().is_some() {
                    return Err(wrong("it has a query"));
                }
                if !url.path().ends_with('/') {
                    url.set_path(&format!("{}/", url.path()));
                }
                Ok(Address::Mirror(MirrorAddress::Web(url)))
            }
            _ => Err(wrong("its scheme is not known")),
        }
    }
}

/// Returns an address without a user and a password.
fn without_secrets(text: &str) -> String {
    match text.split_once("//").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}//…@{host}"),
        None => text.to_owned(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Server(server) => f.write_str(&server.text),
            Address::Mirror(mirror) => write!(f, "{mirror}"),
        }
    }
}

impl fmt::Display for MirrorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MirrorAddress::Folder(path) => write!(f, "file:{}", path.display()),
            MirrorAddress::Web(url) => write!(f, "{url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let server = |endpoint: &str, instance: &str, text: &str| {
            let [endpoint, instance, text] = [endpoint, instance, text].map(str::to_owned);
            Address::Server(ServerAddress { endpoint, instance, text })
        };
        let folder = |path: &str| Address::Mirror(MirrorAddress::Folder(path.into()));
        let web = Address::Mirror(MirrorAddress::Web(Url::parse("https://m.example/sg/").unwrap()));
        for (text, expected) in [
            ("grpc://cache:8980", server("http://cache:8980", "", "grpc://cache:8980")),
            ("grpc://[::1]:8980/a/b/", server("http://[::1]:8980", "a/b", "grpc://[::1]:8980/a/b/")),
            ("grpcs://cache.example", server("https://cache.example:443", "", "grpcs://cache.example")),
            ("unix:/run/casd.sock", server("unix:/run/casd.sock", "", "unix:/run/casd.sock")),
            ("file:mirror", folder("mirror")),
            ("file:///srv/mirror", folder("/srv/mirror")),
            ("https://m.example/sg", web),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, why) in [
            ("cache:8980", "its scheme is not known"),
            ("cache", "it has no scheme"),
            ("grpc://", "it cannot be read"),
            ("unix:", "it names no path"),
            ("grpc://user:word@cache:1", "--remote-token FILE"),
            ("https://user@cache/", "--remote-token FILE"),
            ("https://cache/?a", "it has a query"),
            ("s3://bucket", "its scheme is not known"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("word"), "{text}: {error}");
        }
    }
}
