//! Settings from maps: what wins, what is refused, what is never shown.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn read(environment: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    Settings::read(&map(&[]), &map(environment), &map(&[]))
}

fn refusal(environment: &[(&str, &str)]) -> String {
    match read(environment) {
        Ok(_) => panic!("accepted"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn an_empty_environment_is_enough() {
    let settings = read(&[]).ok().unwrap();
    assert_eq!(settings.data_dir, Path::new("./data"));
    assert_eq!(settings.server_url(), "http://127.0.0.1:8003");
    assert_eq!(settings.work.capacity, 1000);
    assert_eq!(settings.work.shutdown, Duration::from_secs(30));
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let flags = map(&[("CONFIG_DIR", "flag")]);
    let environment = map(&[
        ("CONFIG_DIR", "env"),
        ("DATA_DIR", "env"),
        ("LOG_LEVEL", ""),
    ]);
    let file = map(&[
        ("CONFIG_DIR", "file"),
        ("DATA_DIR", "file"),
        ("LOG_LEVEL", "WARNING"),
    ]);
    let settings = Settings::read(&flags, &environment, &file).ok().unwrap();
    assert_eq!(settings.config_dir, Path::new("flag"));
    assert_eq!(settings.data_dir, Path::new("env"));
    assert_eq!(
        settings.log.level, "WARNING",
        "an empty variable counts as not set"
    );
    assert_eq!(settings.values.origin("LOG_LEVEL"), Origin::EnvFile);
}

#[test]
fn all_mistakes_come_at_once_with_what_is_allowed() {
    let text = refusal(&[
        ("LOG_LEVEL", "WARNNG"),
        ("ORCHESTRATOR_PORT", "80033"),
        ("AGENT_SHUTDOWN_TIMOUT", "5"),
        ("AGENT_CAPACITY", "0"),
    ]);
    assert!(text.starts_with("4 settings"), "{text}");
    assert!(
        text.contains("LOG_LEVEL=WARNNG: allowed: TRACE, DEBUG, INFO, WARNING"),
        "{text}"
    );
    assert!(text.contains("did you mean WARNING?"), "{text}");
    assert!(
        text.contains("ORCHESTRATOR_PORT=80033: allowed: a port from 1 to 65535"),
        "{text}"
    );
    assert!(
        text.contains("did you mean AGENT_SHUTDOWN_TIMEOUT?"),
        "{text}"
    );
    assert!(
        text.contains("AGENT_CAPACITY=0: allowed: 1 to 100000 executions"),
        "{text}"
    );
}

#[test]
fn a_secret_is_not_shown_even_when_its_name_is_misspelt() {
    let text = refusal(&[
        ("OPENAI_API_KYE", "sk-canary"),
        ("AGENTRUNNER_THING", "sk-canary"),
    ]);
    assert!(text.contains("OPENAI_API_KYE=****"), "{text}");
    assert!(text.contains("did you mean OPENAI_API_KEY?"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn names_of_other_programs_pass() {
    let others = [
        ("HOME", "/"),
        ("PATH", "/"),
        ("OLLAMA_HOST", "x"),
        ("AWS_DEFAULT_REGION", "x"),
        ("OPENAI_ORG_ID", "x"),
        ("LOGNAME", "x"),
        ("SSH_AGENT_PID", "1"),
        ("DATA", "x"),
        ("LOG", "x"),
        ("POSTGRES_INITDB_ARGS", "x"),
        ("LANG", "C"),
        ("OPENAI_API_BASE", "x"),
        ("API_TOKEN", "x"),
        ("CONFIG", "x"),
        ("STATE_DIR", "x"),
    ];
    assert!(read(&others).is_ok(), "{}", refusal(&others));
}

#[test]
fn a_secret_may_be_in_a_file_but_not_in_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-from-file\n").unwrap();
    let path = path.to_str().unwrap();
    let settings = read(&[("OPENAI_API_KEY_FILE", path)]).ok().unwrap();
    assert_eq!(
        settings.models.openai_key.unwrap().expose_secret(),
        "sk-from-file"
    );
    let text = refusal(&[
        ("OPENAI_API_KEY_FILE", path),
        ("OPENAI_API_KEY", "sk-canary"),
    ]);
    assert!(text.contains("OPENAI_API_KEY_FILE is set too"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    let text = refusal(&[("OPENAI_API_KEY_FILE", "/nowhere/key")]);
    assert!(text.contains("/nowhere/key can't be read"), "{text}");
}

#[test]
fn tls_needs_a_certificate_and_its_key() {
    let text = refusal(&[("ENABLE_TLS", "true"), ("TLS_CERT_PATH", "cert.pem")]);
    assert!(text.contains("TLS_KEY_PATH: ENABLE_TLS needs it"), "{text}");
    assert!(!text.contains("TLS_CERT_PATH:"), "{text}");
    let text = refusal(&[("TLS_CLIENT_AUTH", "required")]);
    assert!(text.contains("set TLS_CLIENT_CA_PATH"), "{text}");
    let files = [("TLS_CERT_PATH", "cert.pem"), ("TLS_KEY_PATH", "key.pem")];
    let off = read(&[&files[..], &[("ENABLE_TLS", "false")]].concat()).unwrap();
    assert!(off.listen.tls.is_none());
    assert_eq!(off.server_url(), "http://127.0.0.1:8003");
    let on = [
        &files[..],
        &[("TLS_ENABLED", "true"), ("TLS_CLIENT_CA_PATH", "ca.pem")],
    ];
    let on = read(&on.concat()).unwrap();
    assert_eq!(on.server_url(), "https://127.0.0.1:8003");
    assert!(on.listen.tls.unwrap().callers.unwrap().are_required);
    let text = refusal(&[("AGENTRUNNER_CERT_PATH", "mine.pem")]);
    assert!(text.contains("goes with AGENTRUNNER_KEY_PATH"), "{text}");
}

#[test]
fn a_server_is_used_when_it_is_named_and_only_then() {
    let servers = read(&[("POSTGRES_PASSWORD", "p"), ("RABBITMQ_USER", "u")])
        .ok()
        .unwrap()
        .servers;
    assert!(servers.postgres.is_none() && servers.rabbitmq.is_none() && servers.redis.is_none());
    let servers = read(&[("POSTGRES_HOST", "db"), ("DB_POOL_SIZE", "7")])
        .ok()
        .unwrap()
        .servers;
    let postgres = servers.postgres.unwrap();
    assert_eq!((postgres.port, postgres.pool_size), (5432, 7));
    assert!(postgres.auto_migrate && servers.rabbitmq.is_none());
    assert_eq!(servers.postgres_place, "db:5432");
    let servers = read(&[
        ("RABBITMQ_URL", "amqp://u:canary@mq/v"),
        ("REDIS_HOST", "r"),
        ("AUTO_MIGRATE", "false"),
    ])
    .ok()
    .unwrap()
    .servers;
    assert!(servers.rabbitmq.is_some() && servers.postgres.is_none() && servers.redis.is_some());
    assert_eq!(servers.rabbitmq_place, "mq");
    assert_eq!(servers.redis_place, "r:6379");
    let (state, other) = (servers.lifetimes.state, servers.lifetimes.other);
    assert_eq!((state.as_secs(), other.as_secs()), (3600, 300));
}

#[test]
fn a_password_may_hold_any_character_and_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "p@ss:w/rd%20 ü\n").unwrap();
    let path = path.to_str().unwrap();
    let servers = read(&[
        ("RABBITMQ_HOST", "::1"),
        ("RABBITMQ_PASSWORD_FILE", path),
        ("POSTGRES_HOST", "db"),
        ("POSTGRES_PASSWORD_FILE", path),
        ("REDIS_HOST", "cache"),
        ("REDIS_PASSWORD_FILE", path),
        ("REDIS_DB", "3"),
    ])
    .ok()
    .unwrap()
    .servers;
    let postgres = servers.postgres.unwrap();
    assert_eq!(postgres.password.expose_secret(), "p@ss:w/rd%20 ü");
    assert_eq!(
        servers.rabbitmq.unwrap().url.expose_secret(),
        "amqp://agentrunner:p%40ss%3Aw%2Frd%2520%20%C3%BC@[::1]:5672/%2F"
    );
    assert_eq!(
        servers.redis.unwrap().expose_secret(),
        "redis://:p%40ss%3Aw%2Frd%2520%20%C3%BC@cache:6379/3"
    );
}

#[test]
fn the_guides_other_variables_are_accepted() {
    let guide = [
        ("POSTGRES_PORT", "5432"),
        ("POSTGRES_DB", "agentrunner"),
        ("POSTGRES_PASSWORD", "x"),
        ("DB_POOL_SIZE", "20"),
        ("DB_MAX_OVERFLOW", "10"),
        ("REDIS_PORT", "6379"),
        ("REDIS_STATE_TTL", "3600"),
        ("REDIS_CACHE_TTL", "300"),
        ("RABBITMQ_USER", "u"),
        ("RABBITMQ_PASSWORD", "p"),
        ("RABBITMQ_PREFETCH_COUNT", "1"),
        ("LOG_LEVEL", "INFO"),
        ("LOG_FORMAT", "json"),
        ("AGENT_HEALTH_CHECK_INTERVAL", "60"),
        ("STATE_COMPRESSION_THRESHOLD", "1048576"),
        ("STATE_RETENTION_DAYS", "30"),
        ("CONTINUOUS_AGENT_IDLE_TIMEOUT", "600"),
        ("SLACK_BOT_TOKEN", "xoxb"),
        ("AWS_REGION", "us-east-1"),
        ("OTEL_SERVICE_NAME", "x"),
    ];
    assert!(read(&guide).is_ok(), "{}", refusal(&guide));
}

#[test]
fn only_loopback_without_keys() {
    assert!(refusal(&[("BIND_ADDRESS", "0.0.0.0")]).contains("ALLOW_UNAUTHENTICATED=true"));
    let open = read(&[
        ("BIND_ADDRESS", "0.0.0.0"),
        ("ALLOW_UNAUTHENTICATED", "true"),
    ])
    .ok()
    .unwrap();
    assert_eq!(open.server_url(), "http://127.0.0.1:8003");
}

#[test]
fn a_rule_for_outgoing_requests_that_cannot_be_read_stops_the_start() {
    let text = refusal(&[("EGRESS_DENY", "10.0.0.0/99")]);
    assert!(text.contains("EGRESS_DENY=10.0.0.0/99"), "{text}");
    assert!(read(&[("EGRESS_ALLOW", "127.0.0.1,10.0.0.0/8")]).is_ok());
}

#[test]
fn two_services_cannot_share_a_port() {
    let text = refusal(&[("CONFIG_SERVICE_PORT", "8003")]);
    assert!(
        text.contains("CONFIG_SERVICE_PORT is the same port"),
        "{text}"
    );
    assert!(read(&[("CONFIG_SERVICE_PORT", "0"), ("ORCHESTRATOR_PORT", "0")]).is_ok());
}

#[test]
fn another_provider_needs_its_model_and_scripted_does_not() {
    assert!(refusal(&[("AGENTRUNNER_PROVIDER", "ollama")]).contains("AGENTRUNNER_MODEL"));
    let scripted = read(&[("AGENTRUNNER_PROVIDER", "scripted")]).ok().unwrap();
    assert_eq!(
        scripted.models.instead,
        Some(Instead {
            provider: Provider::Scripted,
            model: None
        })
    );
}

#[test]
fn the_page_lists_every_variable_with_its_default() {
    let page = include_str!("../../../../docs/settings.md");
    for variable in VARIABLES {
        let row = format!(
            "| `{}` | {} | {} | {} |",
            variable.name,
            if variable.default.is_empty() {
                String::new()
            } else {
                format!("`{}`", variable.default)
            },
            variable.kind.allowed(),
            variable.about,
        );
        assert!(
            page.contains(&row),
            "docs/settings.md lacks this row:\n{row}"
        );
    }
}

/// Names that docker-compose.yml reads besides ours.
const OF_COMPOSE: [&str; 5] = [
    "COMPOSE_PROJECT_NAME",
    "AGENTRUNNER_IMAGE",
    "AGENTRUNNER_UID",
    "AGENTRUNNER_GID",
    "RABBITMQ_MANAGEMENT_PORT",
];

/// The name and the value of a line of `.env.example`, and whether it is set there or only shown.
fn assignment(line: &str) -> Option<(&str, &str, bool)> {
    let shown = line.strip_prefix('#');
    let (name, value) = shown.unwrap_or(line).split_once('=')?;
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some((name, value, shown.is_none()))
}

#[test]
fn the_example_of_an_env_file_explains_every_variable_once() {
    let page = include_str!("../../../../.env.example");
    let mut found = BTreeMap::new();
    let mut about = Vec::new();
    for line in page.lines() {
        if let Some((name, value, is_set)) = assignment(line) {
            let said = std::mem::take(&mut about).join(" ");
            let earlier = found.insert(name, (said, value, is_set));
            assert!(earlier.is_none(), "{name} stands there twice");
        } else if let Some(words) = line.strip_prefix("# ") {
            about.push(words);
        } else {
            about.clear();
        }
    }
    for variable in VARIABLES {
        let (about, value, is_set) = found
            .remove(variable.name)
            .unwrap_or_else(|| panic!("{} is missing in .env.example", variable.name));
        assert_eq!(about, variable.about, "{}", variable.name);
        assert!(is_set || value == variable.default, "{}", variable.name);
    }
    for name in found.keys() {
        assert!(OF_COMPOSE.contains(name), "{name} is no variable");
    }
}

#[test]
fn the_example_of_an_env_file_can_be_used_as_it_is() {
    let page = include_str!("../../../../.env.example");
    let set: Vec<_> = page
        .lines()
        .filter_map(assignment)
        .filter_map(|(name, value, is_set)| is_set.then_some((name, value)))
        .collect();
    let settings = read(&set).ok().unwrap();
    assert_eq!(settings.servers.postgres_place, "postgres:5432");
    assert!(settings.models.openai_key.is_none());
}

#[test]
fn keys_need_a_first_one() {
    let key = "0123456789abcdef";
    let without = refusal(&[("ENABLE_API_AUTH", "true")]);
    assert!(without.contains("set API_SECRET_KEY"), "{without}");
    let short = refusal(&[("API_AUTH_ENABLED", "true"), ("API_KEY", "short-canary")]);
    assert!(short.contains("API_KEY: it is 16 or more"), "{short}");
    assert!(!short.contains("canary"), "{short}");
    let command = [
        ("ENABLE_API_AUTH", "true"),
        ("API_SECRET_KEY", "$(openssl rand -base64 64)"),
    ];
    assert!(refusal(&command).contains("a file runs no commands"));
    let two = [
        ("ENABLE_API_AUTH", "true"),
        ("API_AUTH_ENABLED", "false"),
        ("API_SECRET_KEY", key),
    ];
    assert!(refusal(&two).contains("API_AUTH_ENABLED: ENABLE_API_AUTH says something else"));
    let on = read(&[
        ("ENABLE_API_AUTH", "true"),
        ("API_SECRET_KEY", "01234567\n89abcdef"),
        ("BIND_ADDRESS", "0.0.0.0"),
    ]);
    let on = on.unwrap();
    let wanted = domain::KeyHash::of(key);
    assert!(
        on.access.bootstrap.unwrap().equals(&wanted),
        "a wrapped line is no part of it"
    );
    let off = read(&[("API_SECRET_KEY", key)]).unwrap();
    assert!(off.access.bootstrap.is_none());
}

#[test]
fn the_first_key_goes_to_no_server_that_was_named() {
    let key = ("API_SECRET_KEY", "0123456789abcdef");
    let shown = |pairs: &[(&str, &str)]| {
        let own = read(pairs).unwrap().access.own_key;
        own.map(|key| key.expose_secret().to_owned())
    };
    assert_eq!(shown(&[key]).as_deref(), Some(key.1));
    let server = ("AGENTRUNNER_SERVER", "https://elsewhere.example");
    assert_eq!(shown(&[key, server]), None);
    let own = ("AGENTRUNNER_API_KEY", "ar_own");
    assert_eq!(shown(&[key, server, own]).as_deref(), Some("ar_own"));
}
