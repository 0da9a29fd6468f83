//! What is sent on when an answer points elsewhere.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use url::Url;

use super::EgressError;

/// One request on the way to the answer.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

/// Where an answer points to, if it does.
pub(super) fn target(answer: &reqwest::Response) -> Option<String> {
    let redirects = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = answer.headers().get(header::LOCATION)?;
    redirects.then(|| String::from_utf8_lossy(location.as_bytes()).into_owned())
}

impl Hop {
    /// The request that follows. Another origin gets neither the headers nor the body: they hold what was meant for
    /// the first.
    pub(super) fn redirected(
        self,
        status: StatusCode,
        location: &str,
    ) -> Result<Self, EgressError> {
        let broken = |reason: &str| EgressError::Broken(format!("HTTP {status}: {reason}"));
        let url = self
            .url
            .join(location)
            .map_err(|_| broken("it redirects to something that is no address"))?;
        let same_origin = self.url.origin() == url.origin();
        let keeps_method = matches!(
            status,
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        ) || matches!(self.method, Method::GET | Method::HEAD);
        if keeps_method && !same_origin && !self.method.is_safe() {
            return Err(broken(
                "it wants the request to be repeated to another origin, which is not done",
            ));
        }
        let mut headers = if same_origin {
            self.headers
        } else {
            HeaderMap::new()
        };
        let (method, body) = if keeps_method {
            (self.method, self.body.filter(|_| same_origin))
        } else {
            headers.remove(header::CONTENT_TYPE);
            (Method::GET, None)
        };
        Ok(Self {
            method,
            url,
            headers,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn hop(method: Method) -> Hop {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("secret"));
        headers.insert("x-key", HeaderValue::from_static("secret"));
        Hop {
            method,
            url: "https://a.example/x".parse().unwrap(),
            headers,
            body: Some(Bytes::from_static(b"secret")),
        }
    }

    #[test]
    fn another_origin_gets_neither_headers_nor_body() {
        for elsewhere in [
            "https://b.example/",
            "http://a.example/",
            "//a.example:8443/",
        ] {
            let next = hop(Method::GET)
                .redirected(StatusCode::FOUND, elsewhere)
                .unwrap();
            assert!(next.headers.is_empty(), "{elsewhere}");
            assert!(next.body.is_none(), "{elsewhere}");
        }
        let next = hop(Method::GET)
            .redirected(StatusCode::FOUND, "/y")
            .unwrap();
        assert_eq!(next.headers.len(), 2);
    }

    #[test]
    fn a_post_is_not_repeated_to_another_origin() {
        let to = |status, location| hop(Method::POST).redirected(status, location);
        assert!(to(StatusCode::TEMPORARY_REDIRECT, "https://b.example/").is_err());
        let same = to(StatusCode::TEMPORARY_REDIRECT, "/y").unwrap();
        assert_eq!((same.method, same.body.is_some()), (Method::POST, true));
        let seen = to(StatusCode::SEE_OTHER, "https://b.example/").unwrap();
        assert_eq!((seen.method, seen.body.is_some()), (Method::GET, false));
    }
}
