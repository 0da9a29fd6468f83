//! The guard: where requests may go, and what they take along.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentrunner_tools::egress::{Egress, EgressError, EgressPolicy, Request, Resolver, Response};
use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use http::Method;

use crate::support::{FakeResolver, serve};

const OWN: &[&str] = &["127.0.0.1"];

fn guard(allow: &str, resolver: Arc<dyn Resolver>) -> Egress {
    let policy = EgressPolicy::parse(allow, "").unwrap();
    Egress::new(policy, resolver, Duration::from_secs(2))
}

fn request(url: &str) -> Request<'static> {
    Request {
        method: Method::GET,
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: None,
        written: None,
        hosts: &[],
        timeout: Duration::from_secs(5),
        max_bytes: 1 << 20,
        reuse: false,
    }
}

async fn get_from(guard: &Egress, url: &str) -> Result<Response, EgressError> {
    guard.send(request(url)).await
}

/// A server that counts its requests.
async fn counting() -> (u16, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let router = Router::new().fallback(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        async { "secret" }
    });
    (serve("0.0.0.0:0", router).await.port(), count)
}

#[tokio::test]
async fn no_spelling_of_a_private_place_is_asked() {
    let (port, count) = counting().await;
    let resolver = FakeResolver::new(&[OWN]);
    let guard = guard("", resolver);
    let spellings = [
        "http://127.0.0.1:{p}/",
        "http://127.1:{p}/",
        "http://127.0.1:{p}/",
        "http://2130706433:{p}/",
        "http://017700000001:{p}/",
        "http://0x7f000001:{p}/",
        "http://0x7f.0.0.1:{p}/",
        "http://0177.0.0.1:{p}/",
        "http://127.0.0.1.:{p}/",
        "http://①②⑦.0.0.1:{p}/",
        "http://127.0.0.1%2e:{p}/",
        "http://localhost:{p}/",
        "http://LOCALHOST.:{p}/",
        "http://internal.example:{p}/",
        "http://0.0.0.0:{p}/",
        "http://0:{p}/",
        "http://[::]:{p}/",
        "http://[::1]:{p}/",
        "http://[::ffff:127.0.0.1]:{p}/",
        "http://[::ffff:7f00:1]:{p}/",
        "http://[::127.0.0.1]:{p}/",
        "http://[64:ff9b::7f00:1]:{p}/",
        "http://[2002:7f00:1::]:{p}/",
        "http://user@127.0.0.1:{p}/",
        "http://example.com:80@127.0.0.1:{p}/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{p}/",
        "ftp://127.0.0.1:{p}/",
        "data:text/plain,hello",
    ];
    for spelling in spellings {
        let url = spelling.replace("{p}", &port.to_string());
        let Ok(url) = url.parse() else { continue };
        let refused = guard
            .send(Request {
                url,
                ..request("http://x/")
            })
            .await;
        assert!(
            matches!(refused, Err(EgressError::Refused(_))),
            "{spelling}: {refused:?}"
        );
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_with_one_private_address_is_refused_and_told_why() {
    let guard = guard("", FakeResolver::new(&[&["1.1.1.1", "10.0.0.1"]]));
    let error = get_from(&guard, "http://mixed.example/").await.unwrap_err();
    assert!(!error.was_sent());
    let message = error.to_string();
    assert!(
        message.contains("private") && message.contains("EGRESS_ALLOW"),
        "{message}"
    );
    assert!(!message.contains("10.0.0.1"), "{message}");
}

#[tokio::test]
async fn what_was_checked_is_what_is_connected_to() {
    let good = Router::new().fallback(|| async { "good" });
    let port = serve("127.0.0.2:0", good).await.port();
    let bad = Router::new().fallback(|| async { "bad" });
    serve(&format!("127.0.0.1:{port}"), bad).await;
    // The second look-up answers otherwise, as in a DNS rebinding attack.
    let resolver = FakeResolver::new(&[&["127.0.0.2"], OWN]);
    let guard = guard("127.0.0.2/32", resolver.clone());
    let url = format!("http://rebinding.example:{port}/");
    let answer = get_from(&guard, &url).await.unwrap();
    assert_eq!(answer.text(), "good");
    assert_eq!(
        resolver.asked.lock().unwrap().len(),
        1,
        "one look-up a connection"
    );
    let error = get_from(&guard, &url).await.unwrap_err();
    assert!(matches!(error, EgressError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn redirects_are_checked_and_take_no_secrets_along() {
    let (private, count) = counting().await;
    let elsewhere =
        Router::new().fallback(|headers: HeaderMap| async move { format!("{headers:?}") });
    let other = serve("127.0.0.1:0", elsewhere).await.port();
    let router = Router::new()
        .route(
            "/private",
            get(move || to(format!("http://127.0.0.1:{private}/"))),
        )
        .route("/file", get(|| to("file:///etc/passwd".to_owned())))
        .route("/loop", get(|| to("/loop".to_owned())))
        .route(
            "/other",
            get(move || to(format!("http://127.0.0.1:{other}/"))),
        )
        .route("/same", get(|| to("/echo".to_owned())))
        .route(
            "/echo",
            get(|headers: HeaderMap| async move { format!("{headers:?}") }),
        );
    let port = serve("127.0.0.1:0", router).await.port();
    let allow = format!("127.0.0.1:{port}, 127.0.0.1:{other}");
    let guard = guard(&allow, FakeResolver::new(&[OWN]));
    let follow = async |path: &str| {
        let mut request = request(&format!("http://127.0.0.1:{port}{path}"));
        request.headers.insert("x-key", "s3cret".parse().unwrap());
        guard.send(request).await
    };
    for path in ["/private", "/file", "/loop"] {
        let error = follow(path).await.unwrap_err();
        assert!(
            error.was_sent(),
            "{path}: the first server has seen it: {error:?}"
        );
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert!(follow("/same").await.unwrap().text().contains("s3cret"));
    assert!(!follow("/other").await.unwrap().text().contains("s3cret"));
}

async fn to(location: String) -> impl IntoResponse {
    (StatusCode::FOUND, [(LOCATION, location)])
}

#[tokio::test]
async fn an_operators_address_is_allowed_but_not_where_it_redirects_to() {
    let (private, count) = counting().await;
    let router = Router::new()
        .route(
            "/x",
            get(move || to(format!("http://127.0.0.1:{private}/"))),
        )
        .route("/y", get(|| async { "fine" }));
    let port = serve("127.0.0.1:0", router).await.port();
    let guard = guard("", FakeResolver::new(&[OWN]));
    let written = |path: &str| {
        let request = request(&format!("http://localhost:{port}{path}"));
        Request {
            written: agentrunner_tools::egress::Origin::of(&request.url),
            ..request
        }
    };
    assert_eq!(guard.send(written("/y")).await.unwrap().text(), "fine");
    assert!(guard.send(written("/x")).await.is_err());
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_body_is_read_to_its_limit_only_also_when_it_was_small_on_the_wire() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b'0'; 64 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let endless = || async {
        let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(65_536)));
        Body::from_stream(chunks)
    };
    let router = Router::new()
        .route(
            "/bomb",
            get(move || async { ([(CONTENT_ENCODING, "gzip")], bomb) }),
        )
        .route("/endless", any(endless));
    let port = serve("127.0.0.1:0", router).await.port();
    let guard = guard("127.0.0.0/8", FakeResolver::new(&[OWN]));
    for path in ["bomb", "endless"] {
        let url = format!("http://127.0.0.1:{port}/{path}");
        let answer = get_from(&guard, &url).await.unwrap();
        assert_eq!(
            (answer.body.len(), answer.truncated),
            (1 << 20, true),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_failure_tells_whether_anything_was_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    let free = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let guard = guard("127.0.0.0/8", FakeResolver::new(&[OWN]));
    let error = get_from(&guard, &format!("http://127.0.0.1:{free}/"))
        .await
        .unwrap_err();
    assert!(matches!(error, EgressError::Unreachable(_)), "{error:?}");
    let mut request = request(&format!("http://127.0.0.1:{silent}/?key=s3cret"));
    request.timeout = Duration::from_millis(100);
    let error = guard.send(request).await.unwrap_err();
    assert_eq!(error, EgressError::TimedOut);
    assert!(error.was_sent());
}
