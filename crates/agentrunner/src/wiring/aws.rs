//! Who we are at AWS, as far as the settings say it.

use llm::AwsSettings;

use crate::settings::Settings;

/// Region, address and keys. What is not set here, AWS's own chain looks for.
pub(crate) fn settings(settings: &Settings) -> AwsSettings {
    let text = |name| settings.values.text(name).map(str::to_owned);
    let key = |name| super::key(settings, name);
    AwsSettings {
        region: text("AWS_REGION"),
        endpoint: text("AWS_BEDROCK_ENDPOINT"),
        token: key("AWS_BEARER_TOKEN_BEDROCK"),
        access_key_id: key("AWS_ACCESS_KEY_ID"),
        secret_access_key: key("AWS_SECRET_ACCESS_KEY"),
        session_token: key("AWS_SESSION_TOKEN"),
        profile: text("AWS_PROFILE"),
        ..AwsSettings::default()
    }
}
