//! Callbacks: whoever wants to know how an execution ended is told, and by nobody else; addresses that may not be asked are
//! not.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentrunner_services::alerts::{Alerts, Settings as AlertSettings};
use agentrunner_services::http::Settings;
use agentrunner_services::outgoing::{Sender, SigningKeys, signature};
use agentrunner_services::slack::API_URL;
use axum::http::StatusCode as Code;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tools::egress::{Egress, EgressPolicy, Resolver, SystemResolver};

use crate::harness::{System, Workers, agent, error, read};
use crate::receiver::Receiver;

struct Rig {
    system: System,
    receiver: Receiver,
    secret: String,
    stop: CancellationToken,
}

/// A name server that calls everything this machine.
struct Loopback;

#[async_trait::async_trait]
impl Resolver for Loopback {
    async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec!["127.0.0.1".parse().unwrap()])
    }
}

impl Rig {
    async fn start(allow: &str, resolver: Arc<dyn Resolver>) -> Self {
        let files = [
            ("helper.yml", agent("helper")),
            (
                "lead.yml",
                agent("lead").replace("autonomous", "collaborative"),
            ),
        ];
        let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
        let policy = EgressPolicy::parse(allow, "").unwrap();
        let egress = Arc::new(Egress::new(policy, resolver, Duration::from_secs(2)));
        let folder = System::folder(&files);
        let settings = Settings::default();
        let system = System::dressed(folder, Workers::Running, settings, |app| {
            app.with_callbacks(egress.clone(), true)
        })
        .await;
        let secret = signature::mint().unwrap();
        let keys = Arc::new(SigningKeys::parse(&secret).unwrap());
        let alerts = Alerts::new(AlertSettings {
            file: system.folder.path().join("alerts.yml"),
            lookup: Arc::new(|_: &str| None),
            interval: Duration::from_secs(15),
            slack: crate::alerts::slack(API_URL, None),
        });
        let stop = CancellationToken::new();
        let sender = Sender::new(system.engine.clone(), egress, Some(keys), alerts);
        tokio::spawn(sender.run(stop.clone()));
        Self {
            system,
            receiver: Receiver::start().await,
            secret,
            stop,
        }
    }

    /// One whose receivers may be on this machine.
    async fn local() -> Self {
        Self::start("127.0.0.1", Arc::new(SystemResolver)).await
    }

    async fn submit(&self, prompt: &str, url: &str) -> (StatusCode, Value) {
        let body = json!({
            "agent_name": "helper", "task_data": {"prompt": prompt}, "callback_url": url,
            "metadata": {"order": 17},
        });
        self.system.post("/tasks", &body).await
    }

    async fn accepted(&self, prompt: &str, url: &str) -> String {
        let (status, accepted) = self.submit(prompt, url).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
        accepted["execution_id"].as_str().unwrap().to_owned()
    }

    /// The callback, once it stands so.
    async fn callback(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let (_, callback) = self.system.tasks(&format!("/callbacks/{id}")).await;
            if wanted(&callback) {
                return callback;
            }
            assert!(tokio::time::Instant::now() < deadline, "{callback}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn resend(&self, id: &str) {
        let path = format!("/callbacks/{id}/resend");
        let (status, body) = self.system.post(&path, &json!({})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        assert_eq!(body["state"], "pending");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn an_end_is_told_signed_as_the_official_library_wants_it() {
    let rig = Rig::local().await;
    let id = rig.accepted("hello", &rig.receiver.url("/hook?x=1")).await;
    let got = rig.receiver.nth(1).await;
    assert_eq!(got.path, "/hook");
    assert_eq!(got.header("webhook-id"), format!("msg_{id}"));
    assert_eq!(got.header("content-type"), "application/json");
    let event = got.verify(&rig.secret).unwrap();
    assert_eq!(event["type"], "execution.completed");
    let data = &event["data"];
    assert_eq!(data["execution_id"], json!(id));
    assert_eq!(data["output"], "Hello from the script.");
    assert_eq!(data["metadata"], json!({"order": 17}));
    assert_eq!(event["timestamp"], data["finished_at"]);
    let mut forged = got.clone();
    forged.body = forged.body.replace("Hello", "Hullo");
    assert!(
        forged
            .verify(&rig.secret)
            .unwrap_err()
            .contains("WebhookVerificationError")
    );
    assert!(got.verify(&signature::mint().unwrap()).is_err());

    let callback = rig.callback(&id, |it| it["state"] == "delivered").await;
    assert_eq!(callback["last_status"], 204);
    assert_eq!(callback["attempts"], 1);
    assert_eq!(callback["last_error"], Value::Null);
    let (_, task) = rig.system.tasks(&format!("/tasks/{id}")).await;
    assert_eq!(task["callback"], callback);

    let failed = rig.accepted("fail", &rig.receiver.url("/hook")).await;
    let event = rig.receiver.nth(2).await.verify(&rig.secret).unwrap();
    assert_eq!(event["type"], "execution.failed");
    assert_eq!(event["data"]["error"]["code"], "MODEL_REJECTED");
    rig.callback(&failed, |it| it["state"] == "delivered").await;
    let (_, listed) = rig.system.tasks("/callbacks?state=delivered&limit=1").await;
    assert_eq!(listed[0]["execution_id"], json!(failed));
    let (_, none) = rig.system.tasks("/callbacks?agent_name=lead").await;
    assert_eq!(none, json!([]));

    let plain = rig.system.submit("helper", "hello").await;
    rig.system.until(&plain, "completed").await;
    let (status, body) = rig.system.tasks(&format!("/callbacks/{plain}")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(error(&body).1.contains("without callback_url"), "{body}");
    assert_eq!(rig.receiver.all().len(), 2, "each once");
}

#[tokio::test]
async fn what_fails_is_sent_again_under_the_same_id_and_a_redirect_is_not_followed() {
    let rig = Rig::local().await;
    let elsewhere = Receiver::start().await;
    let to = elsewhere.url("/stolen");
    rig.receiver
        .answer((Code::TEMPORARY_REDIRECT, [("location", to)]));
    let id = rig.accepted("hello", &rig.receiver.url("/hook")).await;
    let callback = rig.callback(&id, |it| it["last_status"] == 307).await;
    assert_eq!(callback["state"], "pending");
    assert!(
        callback["last_error"]
            .as_str()
            .unwrap()
            .contains("not followed"),
        "{callback}"
    );
    let first = rig.receiver.nth(1).await;

    rig.receiver
        .answer((Code::GONE, "do not call again: secret-of-the-receiver"));
    rig.resend(&id).await;
    let callback = rig.callback(&id, |it| it["state"] == "failed").await;
    assert_eq!(callback["last_status"], 410);
    assert_eq!(callback["next_attempt_at"], Value::Null);
    assert!(
        !callback.to_string().contains("secret-of-the-receiver"),
        "{callback}"
    );

    rig.resend(&id).await;
    rig.callback(&id, |it| it["state"] == "delivered").await;
    let last = rig.receiver.nth(3).await;
    assert_eq!(last.header("webhook-id"), first.header("webhook-id"));
    assert_eq!(last.body, first.body);
    assert!(last.verify(&rig.secret).is_ok());
    assert!(elsewhere.all().is_empty(), "the redirect was followed");
}

#[tokio::test]
async fn what_fails_is_tried_again_by_itself_as_late_as_its_receiver_wants() {
    let rig = Rig::local().await;
    rig.receiver
        .answer((Code::SERVICE_UNAVAILABLE, [("retry-after", "3600")]));
    rig.receiver.answer(Code::INTERNAL_SERVER_ERROR);
    let patient = rig.accepted("hello", &rig.receiver.url("/patient")).await;
    let patient = rig.callback(&patient, |it| it["last_status"] == 503).await;
    let time = |field: &str| -> chrono::DateTime<chrono::Utc> {
        patient[field].as_str().unwrap().parse().unwrap()
    };
    let pause = time("next_attempt_at") - time("last_attempt_at");
    assert!((3600..3961).contains(&pause.num_seconds()), "{patient}");

    let id = rig.accepted("hello", &rig.receiver.url("/hook")).await;
    rig.callback(&id, |it| it["last_status"] == 500).await;
    let callback = rig.callback(&id, |it| it["state"] == "delivered").await;
    assert_eq!(callback["attempts"], 2);
    assert_eq!(rig.receiver.all().len(), 3);
}

/// A8: no spelling of a private place is taken as the address of a callback, at any door.
#[tokio::test]
async fn a8_no_spelling_of_a_private_place_is_called_back() {
    let rig = Rig::start("", Arc::new(Loopback)).await;
    let canary = rig.receiver.port;
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
        "http://localhost:{p}/",
        "http://a.LOCALHOST.:{p}/",
        "http://0.0.0.0:{p}/",
        "http://0:{p}/",
        "http://[::]:{p}/",
        "http://[::1]:{p}/",
        "http://[::ffff:127.0.0.1]:{p}/",
        "http://[::127.0.0.1]:{p}/",
        "http://[64:ff9b::7f00:1]:{p}/",
        "http://[2002:7f00:1::]:{p}/",
        "http://user@127.0.0.1:{p}/",
        "http://example.com:80@127.0.0.1:{p}/",
        "http://user:password@example.com/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/meta-data/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{p}/",
        "ftp://127.0.0.1:{p}/",
        "data:text/plain,hello",
        "//127.0.0.1:{p}/",
        "http://",
        "",
    ];
    for spelling in spellings {
        let url = spelling.replace("{p}", &canary.to_string());
        let task = json!({"agent_name": "helper", "task_data": "hi", "callback_url": url});
        let team =
            json!({"coordinator_agent": "lead", "task_description": "hi", "callback_url": url});
        let invoke = json!({"task_data": "hi", "callback_url": url});
        for (path, body) in [
            ("/tasks", &task),
            ("/agents/helper/invoke", &invoke),
            ("/collaborative/tasks", &team),
        ] {
            let (status, answer) = rig.system.post(path, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {url}: {answer}");
            let (code, message) = error(&answer);
            assert_eq!(code, "INVALID_TASK_DATA");
            assert!(message.starts_with("callback_url: "), "{message}");
        }
    }
    let long = format!("https://example.com/{}", "x".repeat(3000));
    assert_eq!(rig.submit("hi", &long).await.0, StatusCode::BAD_REQUEST);
    assert!(rig.receiver.all().is_empty(), "the canary was called");
}

/// A9: a name that turns out to mean this machine is refused where it is connected to.
#[tokio::test]
async fn a9_a_name_that_means_this_machine_is_refused_when_it_is_sent_to() {
    let rig = Rig::start("", Arc::new(Loopback)).await;
    let url = format!("http://public.example:{}/", rig.receiver.port);
    let id = rig.accepted("hello", &url).await;
    let callback = rig.callback(&id, |it| it["last_error"].is_string()).await;
    let why = callback["last_error"].as_str().unwrap();
    assert!(
        why.contains("loopback") && !why.contains("127.0.0.1"),
        "{why}"
    );
    assert_eq!(callback["state"], "pending");
    assert!(rig.receiver.all().is_empty(), "the canary was called");
}

#[tokio::test]
async fn a_callback_that_nobody_can_sign_is_not_promised() {
    let system = System::start(Workers::Absent).await;
    let body =
        json!({"agent_name": "helper", "task_data": "x", "callback_url": "https://example.com/"});
    let request = system.ask(Method::POST, "/tasks").json(&body);
    let (status, answer) = read(request.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error(&answer).1.contains("CALLBACK_SIGNING_SECRET"),
        "{answer}"
    );
}
