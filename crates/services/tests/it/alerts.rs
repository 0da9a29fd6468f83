//! Alerts: told once to each receiver, in Slack, by webhook and by e-mail, and that it is over.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agentrunner_services::alerts::{Alerts, Settings};
use agentrunner_services::outgoing::{Sender, SigningKeys, signature};
use agentrunner_services::slack::{Settings as SlackSettings, Slack};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;
use tools::egress::{Egress, EgressPolicy, SystemResolver};

use crate::harness::{System, Workers, error};
use crate::receiver::Receiver;

const TOKEN: &str = "xoxb-canary-1";

/// A mail server by the book (aiosmtpd), which says what it is given, a line of JSON each.
struct MailServer {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl MailServer {
    async fn start() -> Self {
        const SCRIPT: &str = "\
import asyncio, json
from email import message_from_bytes, policy
from aiosmtpd.smtp import SMTP
class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = message_from_bytes(envelope.content, policy=policy.default)
        print(json.dumps({'from': envelope.mail_from, 'to': envelope.rcpt_tos, 'subject': mail['subject'],
            'id': mail['message-id'], 'text': mail.get_content()}), flush=True)
        return '250 OK'
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler()), '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
";
        let mut child = Command::new(testkit::python())
            .args(["-c", SCRIPT])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        Self {
            _child: child,
            lines,
            port,
        }
    }

    async fn mail(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line()).await;
        let line = line.expect("a mail comes").unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

/// Slack, only to write to.
pub(crate) fn slack(api_url: &str, token: Option<&str>) -> Slack {
    let settings = SlackSettings {
        api_url: api_url.to_owned(),
        bot_token: token.map(Into::into),
        app_token: None,
        signing_secrets: Vec::new(),
        lease: Duration::from_secs(10),
    };
    Slack::new(settings).unwrap()
}

struct Rig {
    system: System,
    settings: Settings,
    /// What the sender knows, as in one process.
    own: Alerts,
    secret: String,
    stop: CancellationToken,
}

impl Rig {
    async fn start(slack: &str) -> Self {
        let system = System::start(Workers::Running).await;
        let settings = Settings {
            file: system.folder.path().join("alerts.yml"),
            lookup: Arc::new(|name: &str| (name == "PAGER").then(|| PAGER.to_owned())),
            interval: Duration::from_millis(1),
            slack: self::slack(slack, Some(TOKEN)),
        };
        let secret = signature::mint().unwrap();
        let rig = Self {
            system,
            own: Alerts::new(settings.clone()),
            settings,
            secret,
            stop: CancellationToken::new(),
        };
        // What is in the file is an operator's: no rule of the guard is needed.
        let egress = Egress::new(
            EgressPolicy::default(),
            Arc::new(SystemResolver),
            Duration::from_secs(2),
        );
        let keys = Arc::new(SigningKeys::parse(&rig.secret).unwrap());
        let engine = rig.system.engine.clone();
        let sender = Sender::new(engine, Arc::new(egress), Some(keys), rig.own.clone());
        tokio::spawn(sender.run(rig.stop.clone()));
        rig
    }

    /// What another process would have.
    fn process(&self) -> Alerts {
        Alerts::new(self.settings.clone())
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.settings.file, text).unwrap();
    }

    async fn look(&self, alerts: &Alerts) {
        alerts.look(&self.system.engine).await.unwrap();
    }

    async fn fail(&self) {
        let id = self.system.submit("helper", "fail").await;
        self.system.until(&id, "failed").await;
    }

    async fn alerts(&self, query: &str) -> Value {
        let (status, alerts) = self.system.tasks(&format!("/alerts{query}")).await;
        assert_eq!(status, StatusCode::OK, "{alerts}");
        alerts
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A secret of a receiver's own.
const PAGER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn file(hook: &str, incoming: &str, smtp: u16, above: u64) -> String {
    format!(
        "receivers:
  chat: {{ type: slack, channel: '#ops' }}
  hook-to-chat: {{ type: slack, url: '{incoming}' }}
  pager: {{ type: webhook, url: '{hook}', secret: '${{PAGER}}' }}
  mail: {{ type: email, to: [ops@example.com, dev@example.com], from: AgentRunner <ar@example.com>, smtp: '127.0.0.1:{smtp}', tls: none }}
rules:
  - name: failing
    when: failures
    agent: each
    above: {above}
    within: 1h
    severity: critical
    receivers: [chat, hook-to-chat, pager, mail]
"
    )
}

#[tokio::test]
async fn each_receiver_is_told_once_and_when_it_is_over() {
    let (slack, hook, incoming) = (
        Receiver::start().await,
        Receiver::start().await,
        Receiver::start().await,
    );
    let mut mail = MailServer::start().await;
    for _ in 0..2 {
        slack.answer(axum::Json(json!({"ok": true, "ts": "1.1"})));
    }
    let rig = Rig::start(&slack.url("/api/")).await;
    let port = mail.port;
    let text = |above| {
        file(
            &hook.url("/pager"),
            &incoming.url("/services/T/B/x"),
            port,
            above,
        )
    };
    rig.write(&text(1));
    let (one, other) = (rig.own.clone(), rig.process());
    rig.fail().await;
    rig.look(&one).await;
    assert_eq!(rig.alerts("").await, json!([]), "one may fail");
    rig.fail().await;
    rig.look(&one).await;
    // Neither another process nor one that begins anew tells it again.
    for alerts in [&one, &other, &rig.process()] {
        rig.look(alerts).await;
    }

    let told = hook.nth(1).await;
    let event = told.verify(PAGER).unwrap();
    assert!(told.verify(&rig.secret).is_err(), "its own secret signs");
    assert_eq!(event["type"], "alert.firing");
    assert_eq!(event["data"]["rule"], "failing");
    assert_eq!(event["data"]["subjects"][0]["name"], "helper");
    let posted = slack.nth(1).await;
    assert_eq!(posted.path, "/api/chat.postMessage");
    assert_eq!(posted.header("authorization"), format!("Bearer {TOKEN}"));
    assert_eq!(posted.json()["channel"], "#ops");
    let words = posted.json()["text"].as_str().unwrap().to_owned();
    assert!(
        words.contains("firing (critical) failing: helper"),
        "{words}"
    );
    let plain = incoming.nth(1).await;
    assert_eq!(
        (plain.path.as_str(), plain.json()["text"].as_str()),
        ("/services/T/B/x", Some(&*words))
    );
    assert_eq!(
        plain.header("authorization"),
        "",
        "the token is Slack's Web API's alone"
    );
    let letter = mail.mail().await;
    assert_eq!(letter["from"], "ar@example.com");
    assert_eq!(letter["to"], json!(["ops@example.com", "dev@example.com"]));
    assert_eq!(
        letter["subject"],
        "AgentRunner firing (critical) failing: helper"
    );
    assert!(
        letter["text"]
            .as_str()
            .unwrap()
            .contains("2 executions failed within 60 min"),
        "{letter}"
    );
    assert!(
        letter["id"].as_str().unwrap().ends_with("@agentrunner>"),
        "{letter}"
    );

    let alerts = rig.alerts("?state=firing").await;
    assert_eq!(alerts[0]["id"], "failing/helper");
    assert_eq!(alerts[0]["severity"], "critical");

    // The rule is changed while it runs: what was too much is so no more.
    rig.write(&text(5));
    rig.look(&other).await;
    rig.look(&one).await;
    assert_eq!(
        hook.nth(2).await.verify(PAGER).unwrap()["type"],
        "alert.resolved"
    );
    assert!(
        mail.mail().await["subject"]
            .as_str()
            .unwrap()
            .contains("resolved")
    );
    slack.nth(2).await;
    incoming.nth(2).await;
    assert_eq!(
        rig.alerts("?state=resolved").await[0]["id"],
        "failing/helper"
    );
    assert_eq!(hook.all().len(), 2);
    assert_eq!(slack.all().len(), 2);
}

#[tokio::test]
async fn a_broken_file_leaves_the_rules_at_work_and_a_failed_message_shows() {
    let rig = Rig::start("http://127.0.0.1:1/api/").await;
    let alerts = rig.own.clone();
    rig.look(&alerts).await;
    let mail = MailServer::start().await;
    // A server that speaks no TLS is told nothing: nobody in between may take that away.
    let rules = format!(
        "receivers:
  mail: {{ type: email, to: [ops@example.com], from: ar@example.com, smtp: '127.0.0.1:{}' }}
rules:
  - {{ name: failing, when: failures, receivers: [mail] }}
",
        mail.port
    );
    rig.write(&rules);
    rig.look(&alerts).await;
    rig.write(&rules.replace("failures", "failure"));
    rig.fail().await;
    rig.look(&alerts).await;
    assert_eq!(rig.alerts("").await[0]["state"], "firing");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    let sent = loop {
        let (_, sent) = rig.system.tasks("/alerts/deliveries").await;
        if sent[0]["last_error"].is_string() {
            break sent;
        }
        assert!(tokio::time::Instant::now() < deadline, "{sent}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        (&sent[0]["receiver"], &sent[0]["state"]),
        (&json!("mail"), &json!("pending"))
    );
    assert!(
        sent[0]["last_error"].as_str().unwrap().contains("SMTP"),
        "{sent}"
    );
    let (status, body) = rig.system.tasks("/alerts?state=loud").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error(&body).1.contains("pending, firing, resolved"),
        "{body}"
    );
}
