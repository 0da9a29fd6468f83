//! TLS, with the binary: spoken by every listener, renewed while it is asked, with certificates of callers.

mod authority;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::tls::TlsInfo;
use serde_json::json;
use tokio::process::Child;

use crate::product::{Project, free_ports};
use crate::project::Ran;
use authority::Authority;

/// Longer than a look at the files takes to come.
const PATIENCE: Duration = Duration::from_secs(30);
const FILES: [(&str, &str); 3] = [
    ("ENABLE_TLS", "true"),
    ("TLS_CERT_PATH", "tls/cert.pem"),
    ("TLS_KEY_PATH", "tls/key.pem"),
];

/// A server that speaks TLS, and who made its certificate.
struct Secure {
    _child: Child,
    project: Project,
    ports: Vec<u16>,
    authority: Authority,
    variables: Vec<(String, String)>,
}

impl Secure {
    async fn up(more: &[(&str, &str)]) -> Self {
        let (project, authority) = (Project::new(), Authority::new("The company"));
        std::fs::create_dir_all(project.path().join("tls")).unwrap();
        authority
            .issue("localhost")
            .write(&project.path().join("tls"));
        Self::of(project, authority, more).await
    }

    async fn of(project: Project, authority: Authority, more: &[(&str, &str)]) -> Self {
        let ports = free_ports(5);
        let names = [
            "STATE_MANAGER_PORT",
            "CONFIG_SERVICE_PORT",
            "ORCHESTRATOR_PORT",
            "SCHEDULER_SERVICE_PORT",
            "SLACK_GATEWAY_PORT",
        ];
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut variables: Vec<_> = FILES.iter().chain(more).map(owned).collect();
        variables.extend(
            names
                .iter()
                .zip(&ports)
                .map(|(name, port)| ((*name).to_owned(), port.to_string())),
        );
        std::fs::write(project.path().join("ca.pem"), authority.pem()).unwrap();
        let log = std::fs::File::create(project.path().join("up.log")).unwrap();
        let child = project
            .command(&[])
            .envs(variables.clone())
            .arg("up")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let secure = Self {
            _child: child,
            project,
            ports,
            authority,
            variables,
        };
        secure.said("ready in").await;
        secure
    }

    /// Waits until it logged this.
    async fn said(&self, part: &str) {
        let waiting = async {
            while !self.log().contains(part) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "never said {part:?}: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.project.path().join("up.log")).unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.ports[2])
    }

    /// A client that trusts the authority, and opens a connection for each request.
    fn client(&self) -> reqwest::ClientBuilder {
        let authority = reqwest::Certificate::from_pem(self.authority.pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .tls_info(true)
            .pool_max_idle_per_host(0)
    }

    /// Runs a command with the server's own settings and these.
    async fn run(&self, more: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = self.project.command(&[]);
        command.envs(self.variables.clone());
        command.envs(more.iter().copied()).args(args);
        Ran::of(command).await
    }
}

/// Which certificate an answer came with.
async fn served(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, reqwest::Error> {
    let response = client.get(url).send().await?.error_for_status()?;
    let info = response.extensions().get::<TlsInfo>().unwrap();
    let certificate = info.peer_certificate().unwrap().to_vec();
    response.bytes().await?;
    Ok(certificate)
}

#[tokio::test]
async fn every_listener_speaks_tls_and_nothing_else() {
    let server = Secure::up(&[]).await;
    let client = server.client().build().unwrap();
    for port in &server.ports[..4] {
        let url = format!("https://localhost:{port}/health/live");
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        assert_eq!(response.status(), 200);
    }
    let old = server
        .client()
        .tls_version_max(reqwest::tls::Version::TLS_1_2);
    let old = old.http1_only().build().unwrap();
    let response = old.get(server.url("/health/live")).send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_11);
    let plain = format!("http://localhost:{}/health/live", server.ports[2]);
    let response = client.get(plain).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("https://"));
    // An alert, fatal: protocol_version.
    let answer = tls_1_1(server.ports[2]);
    assert_eq!(answer.get(..1), Some(&[21][..]), "{answer:?}");
    assert_eq!(answer.get(5..7), Some(&[2, 70][..]), "{answer:?}");
    server.said("valid until").await;
}

/// What comes back when a client knows nothing newer than TLS 1.1.
fn tls_1_1(port: u16) -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    // No session, two ciphers of its time, no compression.
    hello.extend([0, 0, 4, 0xc0, 0x13, 0, 0x2f, 1, 0]);
    // Signatures and curves that are taken, so that nothing but the version is wrong.
    hello.extend([0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&record).unwrap();
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer);
    answer
}

#[tokio::test]
async fn the_command_line_asks_by_tls() {
    let server = Secure::up(&[]).await;
    // The server of the same settings, at 127.0.0.1: a name that is not in the certificate.
    let ran = server.run(&[], &["agents", "--json"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = server.run(&[], &["health", "--self"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let named = ["--server", &server.url(""), "agents", "--json"];
    let off = ("ENABLE_TLS", "false");
    let ran = server.run(&[off], &named).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("AGENTRUNNER_CA_PATH"), "{ran:?}");
    let trusting = [off, ("AGENTRUNNER_CA_PATH", "ca.pem")];
    let ran = server.run(&trusting, &named).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    // Another certificate than that of the settings is not taken for it.
    let other = Authority::new("Somebody").issue("localhost");
    let folder = server.project.path().join("other");
    std::fs::create_dir(&folder).unwrap();
    other.write(&folder);
    let wrong = [("TLS_CERT_PATH", "other/cert.pem")];
    let ran = server
        .run(&wrong, &["--server", &server.url(""), "agents"])
        .await;
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_while_requests_come() {
    let (project, authority) = (Project::new(), Authority::new("The company"));
    // As Kubernetes does it: the files are links, and the folder behind them is a link that is replaced.
    let tls = project.path().join("tls");
    for (folder, name) in [("1", "localhost"), ("2", "localhost"), ("3", "localhost")] {
        std::fs::create_dir_all(tls.join(folder)).unwrap();
        authority.issue(name).write(&tls.join(folder));
    }
    // The second is broken: its key is another's.
    std::fs::copy(tls.join("1/key.pem"), tls.join("2/key.pem")).unwrap();
    symlink("1", tls.join("now")).unwrap();
    symlink("now/cert.pem", tls.join("cert.pem")).unwrap();
    symlink("now/key.pem", tls.join("key.pem")).unwrap();
    let server = Secure::of(project, authority, &[]).await;
    let client = server.client().build().unwrap();
    let url = server.url("/health/live");
    let first = served(&client, &url).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let asking = (0..4).map(|_| {
        let (client, url, is_over) = (client.clone(), url.clone(), is_over.clone());
        tokio::spawn(async move {
            let mut asked = 0;
            while !is_over.load(Ordering::Relaxed) {
                served(&client, &url).await.unwrap();
                asked += 1;
            }
            asked
        })
    });
    let asking: Vec<_> = asking.collect();
    turn(&tls, "2");
    server.said("the one before stays").await;
    assert!(server.log().contains("TLS_KEY_PATH"), "{}", server.log());
    assert_eq!(served(&client, &url).await.unwrap(), first);
    turn(&tls, "3");
    server.said("a renewed certificate is taken").await;
    assert_ne!(served(&client, &url).await.unwrap(), first);
    is_over.store(true, Ordering::Relaxed);
    for task in asking {
        assert!(task.await.unwrap() > 0);
    }
}

/// Turns the link to another folder, at once.
fn turn(tls: &Path, folder: &str) {
    symlink(folder, tls.join("next")).unwrap();
    std::fs::rename(tls.join("next"), tls.join("now")).unwrap();
}

#[tokio::test]
async fn callers_show_certificates_and_the_audit_log_says_whose() {
    let server = Secure::up(&[
        ("TLS_CLIENT_CA_PATH", "ca.pem"),
        ("ENABLE_AUDIT_LOG", "true"),
        ("AUDIT_LOG_PATH", "audit.log"),
    ])
    .await;
    let url = server.url("/reload");
    let url = url.replace(&server.ports[2].to_string(), &server.ports[1].to_string());
    let nobody = server.client().build().unwrap();
    assert!(nobody.post(&url).send().await.is_err());
    let stranger = Authority::new("Somebody").issue("ada");
    let stranger = server.client().identity(stranger.identity());
    assert!(stranger.build().unwrap().post(&url).send().await.is_err());
    let ada = server.authority.issue("ada");
    let known = server.client().identity(ada.identity()).build().unwrap();
    let response = known.post(&url).send().await.unwrap();
    assert_eq!(response.status(), 200, "{:?}", response.text().await);
    let audit = std::fs::read_to_string(server.project.path().join("audit.log")).unwrap();
    let line: serde_json::Value = serde_json::from_str(audit.lines().last().unwrap()).unwrap();
    let shown = line["details"]["certificate"].as_str().unwrap();
    assert!(shown.starts_with("CN=ada (sha256 "), "{line}");
    // The command line has none to show, and then has.
    let ran = server
        .run(&[], &["--server", &server.url(""), "agents"])
        .await;
    assert_eq!(ran.code, 3, "{ran:?}");
    let folder = server.project.path().join("ada");
    std::fs::create_dir(&folder).unwrap();
    ada.write(&folder);
    let shown = [
        ("AGENTRUNNER_CERT_PATH", "ada/cert.pem"),
        ("AGENTRUNNER_KEY_PATH", "ada/key.pem"),
    ];
    let ran = server.run(&shown, &["agents", "--json"]).await;
    assert_eq!((ran.code, ran.json()), (0, json!([])), "{ran:?}");
}

#[tokio::test]
async fn handshakes_that_never_end_stop_nobody_else() {
    let server = Secure::up(&[]).await;
    let mut half_open = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.ports[2])).unwrap();
        if n % 2 == 0 {
            // The beginning of a record that never comes.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        }
        half_open.push(stream);
    }
    let client = server.client().build().unwrap();
    served(&client, &server.url("/health/live")).await.unwrap();
    // They are closed before long.
    let mut last = half_open.pop().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn a_start_says_which_file_is_wrong() {
    let project = Project::new();
    let tls = project.path().join("tls");
    std::fs::create_dir(&tls).unwrap();
    let authority = Authority::new("The company");
    authority.issue("localhost").write(&tls);
    let start = |more: &[(&str, &str)]| {
        let mut command = project.command(&[&FILES[..], more].concat());
        command.arg("up");
        Ran::of(command)
    };
    let ran = start(&[("TLS_CERT_PATH", "tls/nothing.pem")]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("TLS_CERT_PATH: tls/nothing.pem"),
        "{ran:?}"
    );
    std::fs::write(tls.join("no.pem"), "canary-not-a-key").unwrap();
    let ran = start(&[("TLS_KEY_PATH", "tls/no.pem")]).await;
    assert!(
        ran.stderr.contains("tls/no.pem: it holds no private key"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains("canary"), "{ran:?}");
    std::fs::create_dir(tls.join("b")).unwrap();
    authority.issue("localhost").write(&tls.join("b"));
    let ran = start(&[("TLS_KEY_PATH", "tls/b/key.pem")]).await;
    assert!(
        ran.stderr
            .contains("it is not the key of the certificate in tls/cert.pem"),
        "{ran:?}"
    );
}
