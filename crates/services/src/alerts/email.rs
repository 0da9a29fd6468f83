//! An alert by e-mail.

use std::time::Duration;

use domain::DeliveryId;
use domain::alert::{Notice, ReceiverConfig, Tls};
use domain::delivery::Reply;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls as Protection, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::message;
use crate::outgoing::Tried;

/// How long the server may take for one thing.
const PATIENCE: Duration = Duration::from_secs(15);
/// And for all of it.
const IN_ALL: Duration = Duration::from_secs(45);

pub(super) async fn tell(receiver: &ReceiverConfig, notice: &Notice, id: DeliveryId) -> Tried {
    let sent = async {
        let message = written(receiver, notice, id)?;
        let server = server(receiver)?;
        let sent = server.send(message).await;
        sent.map(|_| ()).map_err(|error| format!("SMTP: {error}"))
    };
    match tokio::time::timeout(IN_ALL, sent).await {
        Ok(Ok(())) => Tried {
            reply: Reply::Taken,
            detail: String::new(),
        },
        Ok(Err(detail)) => Tried::failed(detail),
        Err(_) => Tried::failed("SMTP: the server did not take it in time"),
    }
}

/// The same message each time: a mail server that takes it twice, or its reader, knows by its id.
fn written(receiver: &ReceiverConfig, notice: &Notice, id: DeliveryId) -> Result<Message, String> {
    let mailbox = |text: &str| -> Result<Mailbox, String> {
        text.parse()
            .map_err(|error| format!("{text:?} is no e-mail address: {error}"))
    };
    let mut message = Message::builder()
        .from(mailbox(receiver.from.as_deref().unwrap_or_default())?)
        .subject(message::title(notice))
        .message_id(Some(format!("<{id}@agentrunner>")))
        .header(ContentType::TEXT_PLAIN);
    for to in &receiver.to {
        message = message.to(mailbox(to)?);
    }
    message
        .body(message::text(notice))
        .map_err(|error| format!("the message can't be written: {error}"))
}

fn server(receiver: &ReceiverConfig) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let smtp = receiver.smtp.as_deref().unwrap_or_default();
    let (host, port) = match smtp.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            let port = port.parse::<u16>();
            (
                host,
                port.map_err(|_| format!("{smtp:?} has no port at its end"))?,
            )
        }
        _ if receiver.tls == Tls::Tls => (smtp, 465),
        _ => (smtp, 587),
    };
    let host = host.trim_matches(['[', ']']);
    let parameters = || {
        TlsParameters::new(host.to_owned()).map_err(|error| format!("TLS can't be set up: {error}"))
    };
    let protection = match receiver.tls {
        Tls::Starttls => Protection::Required(parameters()?),
        Tls::Tls => Protection::Wrapper(parameters()?),
        Tls::None => Protection::None,
    };
    // What it is "dangerous" about is that it says nothing of TLS by itself: this does.
    let mut server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port)
        .tls(protection)
        .timeout(Some(PATIENCE));
    if let (Some(username), Some(password)) = (&receiver.username, &receiver.password) {
        server = server.credentials(Credentials::new(username.clone(), password.clone()));
    }
    Ok(server.build())
}
