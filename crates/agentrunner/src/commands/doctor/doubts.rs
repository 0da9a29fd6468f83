//! Settings that are read and change nothing: right each for itself, and together not what somebody meant.

use super::Finding;
use crate::settings::{Origin, Settings, Values};

/// Settings, and what they are nothing without.
const NOTHING_WITHOUT: [(&[&str], &[&str], &str); 10] = [
    (
        &[
            "POSTGRES_PORT",
            "POSTGRES_DB",
            "POSTGRES_USER",
            "POSTGRES_PASSWORD",
            "DB_POOL_SIZE",
            "DB_MAX_OVERFLOW",
        ],
        &["POSTGRES_HOST", "DATABASE_URL"],
        "the embedded store is used",
    ),
    (
        &["REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"],
        &["REDIS_HOST", "REDIS_URL"],
        "the cache in the process is used",
    ),
    (
        &[
            "RABBITMQ_PORT",
            "RABBITMQ_USER",
            "RABBITMQ_PASSWORD",
            "RABBITMQ_VHOST",
            "RABBITMQ_PREFETCH_COUNT",
        ],
        &["RABBITMQ_HOST", "RABBITMQ_URL"],
        "the bus in the process is used",
    ),
    (
        &["AGENTRUNNER_MODEL"],
        &["AGENTRUNNER_PROVIDER"],
        "each agent asks the model of its file",
    ),
    (
        &["TLS_CERT_PATH", "TLS_KEY_PATH", "TLS_CLIENT_CA_PATH"],
        &["ENABLE_TLS", "TLS_ENABLED"],
        "no TLS is spoken",
    ),
    (
        &["RATE_LIMIT_PER_MINUTE", "RATE_LIMIT_BURST"],
        &["RATE_LIMIT_ENABLED"],
        "requests are not limited",
    ),
    (
        &["API_SECRET_KEY", "API_KEY"],
        &["ENABLE_API_AUTH", "API_AUTH_ENABLED"],
        "nobody has to show a key",
    ),
    (
        &["AUDIT_LOG_PATH", "AUDIT_LOG_KEY"],
        &["ENABLE_AUDIT_LOG"],
        "no audit log is written",
    ),
    (
        &["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER_ARG"],
        &["OTEL_EXPORTER_OTLP_ENDPOINT"],
        "no traces are made",
    ),
    (
        &["VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID"],
        &["VAULT_ADDR"],
        "Vault is not asked",
    ),
];

/// Addresses, and what is not read beside them.
const STRONGER: [(&str, &[&str]); 3] = [
    (
        "DATABASE_URL",
        &[
            "POSTGRES_HOST",
            "POSTGRES_PORT",
            "POSTGRES_DB",
            "POSTGRES_USER",
            "POSTGRES_PASSWORD",
        ],
    ),
    (
        "REDIS_URL",
        &["REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"],
    ),
    (
        "RABBITMQ_URL",
        &[
            "RABBITMQ_HOST",
            "RABBITMQ_PORT",
            "RABBITMQ_USER",
            "RABBITMQ_PASSWORD",
            "RABBITMQ_VHOST",
        ],
    ),
];

pub(super) fn check(settings: &Settings) -> Vec<Finding> {
    let doubled = settings.doubled.iter().map(|doubled| {
        let advice = format!("keep one of the lines: sed -i '{}' .env", doubled.weaker());
        Finding::warning(&doubled.name, doubled.to_string(), advice)
    });
    doubled.chain(without_effect(&settings.values)).collect()
}

fn without_effect(values: &Values) -> Vec<Finding> {
    let is_said = |name: &&&str| values.origin(name) != Origin::Default && !values.is_default(name);
    let mut findings = Vec::new();
    for (names, masters, instead) in NOTHING_WITHOUT {
        let is_on = masters.iter().any(|master| values.is_on(master));
        if let Some(name) = names.iter().find(is_said).filter(|_| !is_on) {
            findings.push(Finding::warning(
                name,
                format!(
                    "it does nothing without {}: {instead}",
                    masters.join(" or ")
                ),
                format!("set {} as well, or take {name} away", masters.join(" or ")),
            ));
        }
    }
    for (address, parts) in STRONGER {
        if let Some(name) = parts.iter().find(is_said).filter(|_| values.is_on(address)) {
            findings.push(Finding::warning(
                name,
                format!("it is not read: {address} is stronger"),
                format!(
                    "take one of the two away; {address} says where the server is, all by itself"
                ),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Vec<String> {
        let set = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let set: BTreeMap<_, _> = set.collect();
        let (values, mistakes) = Values::merge(vec![(Origin::Environment, set)]);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        without_effect(&values)
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn what_does_nothing_is_named() {
        assert_eq!(of(&[("POSTGRES_PASSWORD", "x")]), ["POSTGRES_PASSWORD"]);
        assert!(of(&[("POSTGRES_PASSWORD", "x"), ("POSTGRES_HOST", "h")]).is_empty());
        assert_eq!(
            of(&[("DATABASE_URL", "postgres://h/d"), ("POSTGRES_HOST", "h")]),
            ["POSTGRES_HOST"]
        );
        // Said to be what it is anyway, as in a copy of .env.example.
        assert!(of(&[("POSTGRES_PORT", "5432"), ("RATE_LIMIT_BURST", "10")]).is_empty());
        assert_eq!(
            of(&[("RATE_LIMIT_BURST", "11"), ("RATE_LIMIT_ENABLED", "false")]),
            ["RATE_LIMIT_BURST"]
        );
        assert!(of(&[("RATE_LIMIT_BURST", "11"), ("RATE_LIMIT_ENABLED", "yes")]).is_empty());
    }

    #[test]
    fn every_name_is_a_setting() {
        let ours = NOTHING_WITHOUT
            .iter()
            .flat_map(|(names, masters, _)| names.iter().chain(*masters));
        let parts = STRONGER
            .iter()
            .flat_map(|(address, parts)| parts.iter().chain([address]));
        for name in ours.chain(parts) {
            assert!(
                crate::settings::VARIABLES
                    .iter()
                    .any(|known| known.name == *name),
                "{name}"
            );
        }
    }
}
