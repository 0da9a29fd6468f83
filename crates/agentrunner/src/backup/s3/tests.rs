//! A bucket behind a store that is slow, forgetful or broken.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::StreamExt as _;
use md5::{Digest as _, Md5};

use super::*;
use crate::backup::Location;

/// What goes wrong with a request.
#[derive(Clone, Copy)]
enum Fault {
    /// Nothing is done, and this is answered.
    Says(u16, &'static str),
    /// Nothing is done, and the connection breaks.
    Breaks,
    /// It is done, and the connection breaks before it is known.
    IsLost,
    /// So many bytes of the object come.
    BreaksAfter(usize),
    /// It forgets the ranges.
    IgnoresRange,
}

/// What is in the store.
#[derive(Default)]
struct Shelf {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: HashMap<String, BTreeMap<u16, Vec<u8>>>,
    /// How requests with this in them go wrong, each once.
    faults: Vec<(&'static str, Fault)>,
    asked: Vec<String>,
}

type Shared = Arc<Mutex<Shelf>>;

/// A store, and its bucket.
async fn store(faults: &[(&'static str, Fault)]) -> (Shared, Bucket) {
    let shelf = Shared::default();
    shelf.lock().unwrap().faults = faults.to_vec();
    let router = axum::Router::new()
        .fallback(answer)
        .with_state(shelf.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (shelf, bucket(&url, "s3://acme/nightly").await)
}

async fn bucket(url: &str, address: &str) -> Bucket {
    let variables = [
        ("AWS_ENDPOINT_URL_S3", url),
        ("AWS_ACCESS_KEY_ID", "AKIDCANARY"),
        ("AWS_SECRET_ACCESS_KEY", "secret-canary"),
        ("AWS_SESSION_TOKEN", "token-canary"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let none = BTreeMap::new();
    let settings = Settings::read(&none, &BTreeMap::from(variables), &none);
    let Ok(Location::S3(address)) = Location::parse(address.into()) else {
        panic!("{address} is an address");
    };
    let mut bucket = Bucket::open(&settings.ok().unwrap(), &address)
        .await
        .unwrap();
    bucket.part = 10;
    bucket.pause = |_| Duration::ZERO;
    bucket
}

async fn answer(
    State(shelf): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    // Without what signs it, which differs.
    let line = format!("{} {}", parts.method, parts.uri);
    let (path, rest) = line.split_once("?X-Amz").unwrap();
    let shown = rest
        .split('&')
        .filter(|part| !part.starts_with("X-Amz") && !part.starts_with('-'));
    let line = format!("{path} {}", shown.collect::<Vec<_>>().join(" "));
    assert_eq!(query["X-Amz-Security-Token"], "token-canary");
    let mut shelf = shelf.lock().unwrap();
    shelf.asked.push(line.clone());
    let fault = shelf
        .faults
        .iter()
        .position(|(part, _)| line.contains(part));
    let fault = fault.map(|place| shelf.faults.remove(place).1);
    match fault {
        Some(Fault::Says(status, code)) => return said(status, code),
        Some(Fault::Breaks) => return broken(Bytes::new()),
        _ => {}
    }
    let key = parts.uri.path().strip_prefix("/acme/").unwrap().to_owned();
    let response = shelf.act(&parts.method, key, &query, &parts.headers, &body, fault);
    match fault {
        Some(Fault::IsLost) => broken(Bytes::new()),
        _ => response,
    }
}

impl Shelf {
    fn act(
        &mut self,
        method: &Method,
        key: String,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
        body: &Bytes,
        fault: Option<Fault>,
    ) -> Response {
        let upload = query.get("uploadId");
        match method.as_str() {
            "POST" if query.contains_key("uploads") => {
                self.uploads.insert("u1".to_owned(), BTreeMap::new());
                xml("InitiateMultipartUploadResult", "<UploadId>u1</UploadId>")
            }
            "PUT" => {
                let number: u16 = query["partNumber"].parse().unwrap();
                let sum = BASE64_STANDARD.encode(Md5::digest(body));
                assert_eq!(headers["content-md5"], sum.as_str());
                let Some(parts) = self.uploads.get_mut(upload.unwrap()) else {
                    return said(404, "NoSuchUpload");
                };
                parts.insert(number, body.to_vec());
                [("etag", format!("\"p{number}\""))].into_response()
            }
            "POST" => {
                let Some(parts) = self.uploads.remove(upload.unwrap()) else {
                    return said(404, "NoSuchUpload");
                };
                let listed = String::from_utf8_lossy(body);
                let mut places = parts.keys().map(|number| {
                    let etag = format!("p{number}&");
                    listed
                        .find(&etag)
                        .or_else(|| listed.find(&format!("p{number}\"")))
                });
                assert!(places.all(|place| place.is_some()), "{listed}");
                self.objects
                    .insert(key, parts.into_values().flatten().collect());
                xml("CompleteMultipartUploadResult", "<ETag>\"whole\"</ETag>")
            }
            "DELETE" if upload.is_some() => match self.uploads.remove(upload.unwrap()) {
                Some(_) => StatusCode::NO_CONTENT.into_response(),
                None => said(404, "NoSuchUpload"),
            },
            "DELETE" => {
                self.objects.remove(&key);
                StatusCode::NO_CONTENT.into_response()
            }
            "GET" if key.is_empty() => self.list(query),
            "GET" | "HEAD" => match self.objects.get(&key) {
                None => said(404, "NoSuchKey"),
                Some(object) => object_of(object, headers, fault),
            },
            other => panic!("{other}"),
        }
    }

    /// Two to a page.
    fn list(&self, query: &HashMap<String, String>) -> Response {
        assert_eq!(query["delimiter"], "/");
        let after = query.get("continuation-token").cloned().unwrap_or_default();
        let keys = self.objects.keys();
        let mut keys =
            keys.filter(|key| key.starts_with(&query["prefix"]) && key.as_str() > after.as_str());
        let page: Vec<&String> = keys.by_ref().take(2).collect();
        let mut text = String::new();
        for key in &page {
            text += &format!("<Contents><Key>{key}</Key></Contents>");
        }
        let is_cut = keys.next().is_some();
        text += &format!("<IsTruncated>{is_cut}</IsTruncated>");
        if let Some(last) = page.last().filter(|_| is_cut) {
            text += &format!("<NextContinuationToken>{last}</NextContinuationToken>");
        }
        xml("ListBucketResult", &text)
    }
}

fn object_of(object: &[u8], headers: &HeaderMap, fault: Option<Fault>) -> Response {
    let from = headers.get("range").map_or(0, |range| {
        assert_eq!(headers["if-match"], "\"whole\"");
        let range = range.to_str().unwrap();
        let from = range.strip_prefix("bytes=").unwrap().trim_end_matches('-');
        from.parse::<usize>().unwrap()
    });
    let from = match fault {
        Some(Fault::IgnoresRange) => 0,
        _ => from,
    };
    let rest = Bytes::copy_from_slice(&object[from..]);
    let mut response = match fault {
        Some(Fault::BreaksAfter(bytes)) => broken(rest.slice(..bytes)),
        _ => rest.clone().into_response(),
    };
    if from > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    let fields = response.headers_mut();
    fields.insert("content-length", rest.len().into());
    fields.insert("etag", "\"whole\"".parse().unwrap());
    response
}

fn said(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let body = format!("<Error><Code>{code}</Code><Message>No.</Message></Error>");
    (status, body).into_response()
}

fn xml(name: &str, content: &str) -> Response {
    let space = "http://s3.amazonaws.com/doc/2006-03-01/";
    format!("<?xml version=\"1.0\"?><{name} xmlns=\"{space}\">{content}</{name}>").into_response()
}

/// These bytes, and then the connection ends in the midst.
fn broken(first: Bytes) -> Response {
    let end = futures::stream::once(async { Err(std::io::Error::other("cut")) });
    let body = futures::stream::once(async { Ok(first) }).chain(end);
    Response::new(Body::from_stream(body))
}

const NAME: &str = "agentrunner-20261130T020000Z.tar.zst";
const KEY: &str = "nightly/agentrunner-20261130T020000Z.tar.zst";

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

async fn put(bucket: &Bucket, content: &[u8]) -> anyhow::Result<Address> {
    let told = std::cell::Cell::new(0);
    let more = |bytes| told.set(told.get() + bytes);
    let put = bucket.put(NAME, file(content), content.len() as u64, &more);
    let put = put.await?;
    assert_eq!(told.get(), content.len() as u64);
    Ok(put)
}

async fn fetched(bucket: &Bucket) -> anyhow::Result<Vec<u8>> {
    let mut file = bucket.fetch(file(b""), &|_, _| {}).await?;
    let mut content = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut content)?;
    Ok(content)
}

#[tokio::test]
async fn a_file_is_put_in_parts_although_the_store_stumbles() {
    let content: Vec<u8> = (0..35).collect();
    let (shelf, bucket) = store(&[
        ("uploads=1", Fault::Says(503, "SlowDown")),
        ("partNumber=2", Fault::Breaks),
        ("partNumber=2", Fault::Says(500, "InternalError")),
        ("partNumber=3", Fault::IsLost),
        ("partNumber=4", Fault::Says(400, "RequestTimeout")),
        // Begun with a yes before it was known.
        (
            "POST /acme/nightly/agentrunner-20261130T020000Z.tar.zst uploadId",
            Fault::Says(200, "InternalError"),
        ),
    ])
    .await;
    let address = put(&bucket, &content).await.unwrap();
    assert_eq!(address.to_string(), format!("s3://acme/{KEY}"));
    let shelf = shelf.lock().unwrap();
    assert_eq!(shelf.objects[KEY], content);
    assert!(shelf.uploads.is_empty() && shelf.faults.is_empty());
}

#[tokio::test]
async fn an_empty_file_is_a_part_and_one_that_is_there_stays() {
    let (shelf, bucket) = store(&[]).await;
    put(&bucket, b"").await.unwrap();
    let again = put(&bucket, b"other").await.unwrap_err();
    assert!(again.to_string().contains("is there already"), "{again:#}");
    assert_eq!(shelf.lock().unwrap().objects[KEY], b"");
}

#[tokio::test]
async fn a_yes_that_was_lost_is_found_out() {
    let joining = "POST /acme/nightly/agentrunner-20261130T020000Z.tar.zst uploadId";
    let (shelf, bucket) = store(&[(joining, Fault::IsLost)]).await;
    put(&bucket, b"a backup").await.unwrap();
    assert_eq!(shelf.lock().unwrap().objects[KEY], b"a backup");
}

#[tokio::test]
async fn an_upload_that_fails_is_ended_and_leaves_nothing() {
    for (fault, part) in [
        (Fault::Says(403, "AccessDenied"), "s3:PutObject"),
        (Fault::Says(400, "EntityTooLarge"), "EntityTooLarge"),
    ] {
        let (shelf, bucket) = store(&[("partNumber=2", fault)]).await;
        let error = put(&bucket, &[7; 35]).await.unwrap_err();
        let told = format!("{error:#}");
        assert!(
            told.contains(part) && told.contains("was not made"),
            "{told}"
        );
        let shelf = shelf.lock().unwrap();
        assert!(shelf.objects.is_empty() && shelf.uploads.is_empty());
    }
    // One that is broken for good, too.
    let faults = [("partNumber=2", Fault::Breaks); asking::TRIES as usize];
    let (shelf, bucket) = store(&faults).await;
    let error = put(&bucket, &[7; 35]).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("can't be reached"),
        "{error:#}"
    );
    let shelf = shelf.lock().unwrap();
    assert!(shelf.objects.is_empty() && shelf.uploads.is_empty() && shelf.faults.is_empty());
}

#[tokio::test]
async fn a_fetch_that_breaks_goes_on_where_it_was() {
    let whole = [&crate::backup::read::MAGIC[..], &[9; 96]].concat();
    let (shelf, mut bucket) = store(&[
        ("GET", Fault::Says(503, "SlowDown")),
        ("GET", Fault::BreaksAfter(2)),
        ("GET", Fault::BreaksAfter(40)),
        ("GET", Fault::IgnoresRange),
    ])
    .await;
    bucket.address = bucket.address.join(NAME);
    shelf
        .lock()
        .unwrap()
        .objects
        .insert(KEY.to_owned(), whole.clone());
    assert_eq!(fetched(&bucket).await.unwrap(), whole);
    // Again, without the one that forgot the range.
    let faults = [
        ("GET", Fault::BreaksAfter(40)),
        ("GET", Fault::BreaksAfter(40)),
    ];
    shelf.lock().unwrap().faults = faults.to_vec();
    assert_eq!(fetched(&bucket).await.unwrap(), whole);
    assert!(shelf.lock().unwrap().faults.is_empty());
}

#[tokio::test]
async fn what_is_no_backup_is_not_fetched_to_its_end() {
    let (shelf, mut bucket) = store(&[]).await;
    shelf
        .lock()
        .unwrap()
        .objects
        .insert(KEY.to_owned(), vec![b'x'; 1 << 20]);
    let folder = fetched(&bucket).await.unwrap_err();
    let newest = format!("the newest below s3://acme/nightly is s3://acme/{KEY}");
    assert!(folder.to_string().contains(&newest), "{folder:#}");
    bucket.address = bucket.address.join(NAME);
    let error = fetched(&bucket).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("is not a backup"),
        "{error:#}"
    );
}

#[tokio::test]
async fn the_oldest_go_over_all_pages_and_foreign_ones_stay() {
    let (shelf, bucket) = store(&[]).await;
    let name = |day: u32| format!("nightly/agentrunner-202611{day:02}T020000Z.tar.zst");
    let keys = (1..=7)
        .map(name)
        .chain(["nightly/agentrunner-notes", "nightly/x"].map(str::to_owned));
    shelf.lock().unwrap().objects = keys.map(|key| (key, Vec::new())).collect();
    let now = "2026-11-30T03:00:00Z".parse().unwrap();
    let gone = bucket.forget_old(Keep::Newest(2), now).await.unwrap();
    assert_eq!(gone.len(), 5);
    assert_eq!(gone[4].key(), name(1));
    let left: Vec<String> = shelf.lock().unwrap().objects.keys().cloned().collect();
    assert_eq!(
        left,
        [&name(6), &name(7), "nightly/agentrunner-notes", "nightly/x"]
    );
}

#[tokio::test]
async fn who_may_only_write_can_and_who_is_to_delete_must_see() {
    let denied = [("GET", Fault::Says(403, "AccessDenied")); 2];
    let (_shelf, bucket) = store(&denied).await;
    bucket.check(Keep::All).await.unwrap();
    let error = bucket.check(Keep::Newest(3)).await.unwrap_err();
    assert!(error.to_string().contains("s3:ListBucket"), "{error:#}");
}

#[tokio::test]
async fn one_that_can_t_be_reached_is_told_without_a_secret() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let bucket = bucket(&url, "s3://acme/nightly").await;
    let told = format!("{:#}", bucket.check(Keep::All).await.unwrap_err());
    assert!(
        told.contains("can't be reached") && told.contains("AWS_ENDPOINT_URL_S3"),
        "{told}"
    );
    assert!(
        !told.contains("canary") && !told.contains("Signature"),
        "{told}"
    );
}

#[test]
fn the_store_s_address_is_aws_s_or_the_settings() {
    let at = |endpoint: Option<&str>, region, bucket: &'static str| {
        let endpoint = endpoint.map(|url| ("AWS_ENDPOINT_URL_S3", url));
        let (url, style) = home(endpoint, region, bucket)?;
        let bucket = rusty_s3::Bucket::new(url, style, bucket, "r").unwrap();
        anyhow::Ok(bucket.object_url("a/b").to_string())
    };
    for (endpoint, region, bucket, url) in [
        (
            None,
            "eu-west-1",
            "acme",
            "https://acme.s3.eu-west-1.amazonaws.com/a/b",
        ),
        (
            None,
            "cn-north-1",
            "acme",
            "https://acme.s3.cn-north-1.amazonaws.com.cn/a/b",
        ),
        (
            None,
            "eu-west-1",
            "acme.com",
            "https://s3.eu-west-1.amazonaws.com/acme.com/a/b",
        ),
        (
            Some("http://minio:9000"),
            "x",
            "acme",
            "http://minio:9000/acme/a/b",
        ),
        (Some("https://h/s3/"), "x", "acme", "https://h/s3/acme/a/b"),
    ] {
        assert_eq!(at(endpoint, region, bucket).unwrap(), url);
    }
    assert!(at(Some("http://user:pass@minio"), "x", "acme").is_err());
}
