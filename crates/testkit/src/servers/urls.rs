//! URLs of servers, taken apart and put together.

use std::net::SocketAddr;

/// Returns the address in the URL of a server.
///
/// # Panics
/// When there is none: a host that is a name, or no port.
#[must_use]
pub fn address(url: &str) -> SocketAddr {
    let address = parts(url).1;
    let parsed = address.parse();
    parsed.unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Returns the same URL by way of another address, such as a proxy's.
#[must_use]
pub fn by_way_of(url: &str, address: SocketAddr) -> String {
    let (before, _, after) = parts(url);
    format!("{before}{address}{after}")
}

/// Returns the URL of another database, or another virtual host, on the same server.
#[must_use]
pub fn with_database(url: &str, database: &str) -> String {
    let (before, address, _) = parts(url);
    format!("{before}{address}/{database}")
}

/// What stands before the address, the address, and what stands after it.
fn parts(url: &str) -> (&str, &str, &str) {
    let scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[scheme..]
        .find(['/', '?'])
        .map_or(url.len(), |at| scheme + at);
    let start = url[..end].rfind('@').map_or(scheme, |at| at + 1);
    (&url[..start], &url[start..end], &url[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_at_their_address() {
        let url = "postgres://me:p%40ss@127.0.0.1:5432/one?x=1";
        assert_eq!(address(url), "127.0.0.1:5432".parse().unwrap());
        assert_eq!(
            by_way_of(url, "127.0.0.1:9".parse().unwrap()),
            "postgres://me:p%40ss@127.0.0.1:9/one?x=1"
        );
        assert_eq!(
            with_database(url, "two"),
            "postgres://me:p%40ss@127.0.0.1:5432/two"
        );
        assert_eq!(
            with_database("amqp://a:b@127.0.0.1:1", "host"),
            "amqp://a:b@127.0.0.1:1/host"
        );
        assert_eq!(
            by_way_of("redis://127.0.0.1:1", "127.0.0.1:2".parse().unwrap()),
            "redis://127.0.0.1:2"
        );
    }
}
