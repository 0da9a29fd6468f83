//! A system with Slack before it.

use std::path::PathBuf;
use std::time::Duration;

use agentrunner_services::audit::Audit;
use agentrunner_services::http::Settings;
use agentrunner_services::slack::{Settings as SlackSettings, Slack};
use agentrunner_services::{App, Service};
use domain::Time;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use store::{ExecutionFilter, ExecutionRow, Page};
use testkit::slack::{APP_TOKEN, BOT_TOKEN, SIGNING_SECRET, SlackUser, sign};
use testkit::{SlackStandIn, slack};

use crate::harness::{System, Workers, agent, read};

pub(super) const ANN: SlackUser = SlackUser {
    id: "UANN00001",
    name: "ann",
};
pub(super) const BOB: SlackUser = SlackUser {
    id: "UBOB00001",
    name: "bob",
};
pub(super) const GENERAL: &str = "C00000001";
pub(super) const GREETING: &str = "Hello from the script.";
/// The secret before the present one.
pub(super) const OLD_SECRET: &str = "the-secret-before";

/// A system and its Slack.
pub(super) struct Rig {
    pub(super) system: System,
    pub(super) slack: SlackStandIn,
    pub(super) audit: PathBuf,
}

/// An agent with a `slack` block.
pub(super) fn reached(name: &str, slack: &str) -> String {
    format!("{}slack: {slack}\n", agent(name))
}

impl Rig {
    /// With one agent, `helper`, whom everybody may use everywhere; it asks before it calculates.
    pub(super) async fn start() -> Self {
        let helper = format!(
            "{}tools:\n  - {{ name: calculate, type: function, requires_approval: true }}\n  - {{ name: ask_human, type: function }}\n",
            reached("helper", "{ commands: [ask] }")
        );
        Self::with(&[("helper.yml", &helper)], false).await
    }

    pub(super) async fn with(files: &[(&str, &str)], socket: bool) -> Self {
        let stand_in = SlackStandIn::start();
        let settings = SlackSettings {
            api_url: stand_in.api_url(),
            bot_token: Some(BOT_TOKEN.into()),
            app_token: socket.then(|| APP_TOKEN.into()),
            signing_secrets: vec![SIGNING_SECRET.into(), OLD_SECRET.into()],
            lease: Duration::from_secs(3),
        };
        Self::dressed(files, stand_in, Some(settings)).await
    }

    /// By these settings; without any, a system that serves no Slack.
    pub(super) async fn dressed(
        files: &[(&str, &str)],
        stand_in: SlackStandIn,
        settings: Option<SlackSettings>,
    ) -> Self {
        let folder = System::folder(files);
        let audit = folder.path().join("audit.log");
        let log = audit.clone();
        let dress = move |app: App| {
            let app = app.with_audit(Audit::open(&log, None, None).unwrap());
            let Some(settings) = settings else { return app };
            let slack = Slack::new(settings).unwrap();
            let app = app.with_slack(slack.clone());
            tokio::spawn(slack.run(app.clone()));
            app
        };
        let settings = Settings::default();
        let system = System::dressed(folder, Workers::Running, settings, dress).await;
        Self {
            system,
            slack: stand_in,
            audit,
        }
    }

    /// Sends a body to a signed route, signed by this secret at this time.
    pub(super) async fn send_signed(
        &self,
        path: &str,
        body: &str,
        secret: &str,
        at: i64,
    ) -> (StatusCode, Value) {
        let request = self
            .system
            .request(Method::POST, Service::SlackGateway, path)
            .header("x-slack-request-timestamp", at.to_string())
            .header("x-slack-signature", sign(secret, at, body))
            .body(body.to_owned());
        read(request.send().await.unwrap()).await
    }

    /// Sends an event as Slack does.
    pub(super) async fn event(&self, payload: &Value) -> (StatusCode, Value) {
        let body = payload.to_string();
        self.send_signed("/slack/events", &body, SIGNING_SECRET, now())
            .await
    }

    /// A person mentions the app in a channel; answers the thread.
    pub(super) async fn mention(&self, user: SlackUser, channel: &str, text: &str) -> String {
        let ts = self.slack.write(channel, user.id, text);
        self.mention_at(user, channel, &ts, None, text).await;
        ts
    }

    /// The same of a message that is there.
    pub(super) async fn mention_at(
        &self,
        user: SlackUser,
        channel: &str,
        ts: &str,
        thread: Option<&str>,
        text: &str,
    ) {
        let event = slack::mention(&format!("Ev{ts}"), user, channel, ts, thread, text);
        let (status, answer) = self.event(&event).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    /// A person presses a button, or types a command.
    pub(super) async fn form(&self, path: &str, fields: &[(&str, String)]) -> StatusCode {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in fields {
            body.append_pair(name, value);
        }
        let body = body.finish();
        self.send_signed(path, &body, SIGNING_SECRET, now()).await.0
    }

    pub(super) async fn press(&self, payload: &Value) {
        let fields = [("payload", payload.to_string())];
        assert_eq!(
            self.form("/slack/interactive", &fields).await,
            StatusCode::OK
        );
    }

    pub(super) async fn command(&self, payload: &Value) {
        let fields = payload.as_object().unwrap().iter();
        let fields: Vec<(&str, String)> = fields
            .map(|(name, value)| (name.as_str(), value.as_str().unwrap().to_owned()))
            .collect();
        assert_eq!(self.form("/slack/commands", &fields).await, StatusCode::OK);
    }

    /// Waits for a message of the app's in a thread that says this at last, and answers it.
    pub(super) async fn said(
        &self,
        channel: &str,
        thread: &str,
        text: &str,
    ) -> slack::SlackMessage {
        let is_it = |message: &&slack::SlackMessage| {
            message.thread.as_deref() == Some(thread) && message.text.contains(text)
        };
        let find = |all: &[slack::SlackMessage]| all.iter().find(is_it).cloned();
        self.slack.wait_for(channel, find).await
    }

    pub(super) async fn executions(&self) -> Vec<ExecutionRow> {
        let page = Page {
            limit: 100,
            after: None,
        };
        let listed = self
            .system
            .store
            .executions(ExecutionFilter::default(), page);
        listed.await.unwrap().0
    }

    /// The lines of the audit log.
    pub(super) fn audited(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.audit).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// A request with Slack's routes for callers of the API.
    pub(super) async fn api(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> (StatusCode, Value) {
        let request = self.system.request(method, Service::SlackGateway, path);
        let request = match body {
            Value::Null => request,
            body => request.json(body),
        };
        read(request.send().await.unwrap()).await
    }

    /// Ends it, when nothing was sent that Slack would not take.
    pub(super) async fn end(self) {
        let rejections = self.slack.rejections();
        assert!(rejections.is_empty(), "{rejections:?}");
        self.system.stop().await;
    }
}

pub(super) fn now() -> i64 {
    Time::from(std::time::SystemTime::now()).timestamp()
}

/// The messages of the app in a thread.
pub(super) fn of_thread(rig: &Rig, channel: &str, thread: &str) -> Vec<slack::SlackMessage> {
    let mut all = rig.slack.messages(channel);
    all.retain(|message| message.thread.as_deref() == Some(thread));
    all
}

/// A command's fields.
pub(super) fn ask(trigger: &str, channel: &str, text: &str) -> Value {
    slack::slash_command(trigger, ANN, channel, "/ask", text)
}

/// Nothing.
pub(super) fn nothing() -> Value {
    json!(null)
}
