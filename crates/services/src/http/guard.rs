//! Who may ask: which names a local listener answers to, and which pages of a browser may use it.
//!
//! A page on the internet can make a browser send requests to this machine, under its own name (by rebinding that name
//! to 127.0.0.1) or across origins. Both are refused here, before anything else looks at the request.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, Uri};

use super::{Answer, ApiError, Code};

/// Checks that an address may be bound: without authentication only this machine may ask.
///
/// # Errors
/// What to do about it.
pub fn check_bind(address: IpAddr, auth: bool, allow_unauthenticated: bool) -> Result<(), String> {
    if address.is_loopback() || auth || allow_unauthenticated {
        return Ok(());
    }
    Err(
        "everyone who can reach this machine could use the API without a key; set ENABLE_API_AUTH=true and \
         API_SECRET_KEY, or use 127.0.0.1, or say ALLOW_UNAUTHENTICATED=true if something else guards it"
            .to_owned(),
    )
}

/// Which names and origins are accepted.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    loopback: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    pub(crate) fn new(loopback: bool, hosts: &[String], origins: &[String]) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self {
            loopback,
            hosts: lower(hosts),
            origins: lower(origins),
        }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// FORBIDDEN, with what to set.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Answer<()> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| text(HOST));
        let host = host.unwrap_or_default().to_ascii_lowercase();
        if !self.accepts_host(&host) {
            let message = "this listener answers to the names of this machine only; \
                           use http://localhost, or add the name to ALLOWED_HOSTS";
            return Err(ApiError::new(Code::Forbidden, message));
        }
        if let Some(origin) = text(ORIGIN)
            && !self.accepts_origin(&origin.to_ascii_lowercase(), &host)
        {
            let message =
                "pages of another origin may not use this API; add the origin to ALLOWED_ORIGINS";
            return Err(ApiError::new(Code::Forbidden, message));
        }
        let cross_site = headers
            .get("sec-fetch-site")
            .is_some_and(|site| site == "cross-site");
        if cross_site && text(ORIGIN).is_none() && !method.is_safe() {
            let message = "a page of another site may not change anything here";
            return Err(ApiError::new(Code::Forbidden, message));
        }
        Ok(())
    }

    fn accepts_host(&self, host: &str) -> bool {
        // Only old clients send none, and never a browser.
        if !self.loopback || host.is_empty() {
            return true;
        }
        let name = without_port(host);
        let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
        name == "localhost"
            || address.is_ok_and(|address| address.is_loopback())
            || self
                .hosts
                .iter()
                .any(|known| known == name || known == host)
    }

    fn accepts_origin(&self, origin: &str, host: &str) -> bool {
        let own = origin.split_once("://").map(|(_, rest)| rest);
        own == Some(host) || self.origins.iter().any(|known| known == origin)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(guard: &Guard, method: Method, pairs: &[(&'static str, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        guard
            .check(&method, &Uri::from_static("/tasks"), &headers)
            .is_ok()
    }

    #[test]
    fn a_local_listener_answers_to_local_names() {
        let guard = Guard::new(true, &["Box.lan".to_owned()], &[]);
        for host in [
            "localhost",
            "localhost:8003",
            "127.0.0.1:8003",
            "[::1]:8003",
            "127.9.9.9",
            "BOX.lan:8003",
        ] {
            assert!(passes(&guard, Method::GET, &[("host", host)]), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "127.0.0.1.nip.io",
            "[::2]",
        ] {
            assert!(!passes(&guard, Method::GET, &[("host", host)]), "{host}");
        }
        let open = Guard::new(false, &[], &[]);
        assert!(passes(&open, Method::GET, &[("host", "api.example")]));
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let guard = Guard::new(true, &[], &["https://ops.example".to_owned()]);
        let with = |origin| [("host", "localhost:8003"), ("origin", origin)];
        assert!(passes(&guard, Method::POST, &with("http://localhost:8003")));
        assert!(passes(&guard, Method::POST, &with("https://ops.example")));
        for origin in [
            "http://localhost:3000",
            "https://evil.example",
            "null",
            "http://localhost:8003.evil",
        ] {
            assert!(!passes(&guard, Method::POST, &with(origin)), "{origin}");
        }
        let cross = [("host", "localhost"), ("sec-fetch-site", "cross-site")];
        assert!(!passes(&guard, Method::POST, &cross));
        assert!(passes(&guard, Method::GET, &cross));
    }

    #[test]
    fn without_keys_only_this_machine_may_ask() {
        let any = "0.0.0.0".parse().unwrap();
        let local = "127.0.0.1".parse().unwrap();
        assert!(check_bind(local, false, false).is_ok());
        assert!(check_bind(any, true, false).is_ok());
        assert!(check_bind(any, false, true).is_ok());
        assert!(
            check_bind(any, false, false)
                .unwrap_err()
                .contains("ENABLE_API_AUTH")
        );
    }
}
