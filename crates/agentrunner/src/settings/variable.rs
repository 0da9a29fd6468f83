//! The table of variables: each with its kind, default and sentence. What is read, checked, shown by `doctor` and
//! documented in `docs/settings.md` all comes from here.

/// A variable of the environment.
#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Empty when there is none.
    pub(crate) default: &'static str,
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "the page that a test compares is where it is read"
        )
    )]
    pub(crate) about: &'static str,
}

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    /// Never shown.
    Secret,
    Path,
    /// `http` or `https`.
    Url,
    /// An IP address.
    Address,
    Port,
    Switch,
    /// One of these, in any case.
    Word(&'static [&'static str]),
    /// A whole number in this range, of this unit.
    Number(u64, u64, &'static str),
    /// Separated by commas.
    List,
}

impl Variable {
    /// Whether its value must not be shown.
    pub(crate) const fn is_secret(&self) -> bool {
        matches!(self.kind, Secret)
    }

    /// The variable of that name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name)
    }
}

impl Kind {
    /// What is allowed, in words.
    pub(crate) fn allowed(self) -> String {
        match self {
            Self::Text => "any text".to_owned(),
            Self::Secret => "a secret".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Url => "an http:// or https:// address".to_owned(),
            Self::Address => "an IP address such as 127.0.0.1 or ::1".to_owned(),
            Self::Port => "a port from 1 to 65535, or 0 for any free one".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::Word(words) => words.join(", "),
            Self::Number(min, max, unit) => format!("{min} to {max} {unit}"),
            Self::List => "names separated by commas".to_owned(),
        }
    }
}

/// The levels of a log, quietest last.
pub(crate) const LEVELS: &[&str] = &["TRACE", "DEBUG", "INFO", "WARNING", "WARN", "ERROR"];
const DAY: u64 = 86_400;

const fn variable(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Variable {
    Variable {
        name,
        kind,
        default,
        about,
    }
}

use Kind::{Address, List, Number, Path, Port, Secret, Switch, Text, Url, Word};

/// Every variable that is known.
#[rustfmt::skip]
pub(crate) const VARIABLES: &[Variable] = &[
    // Where things are.
    variable("CONFIG_DIR", Path, "./config", "The folder of agents (`agents/`) and scripts (`scripts/`)."),
    variable("DATA_DIR", Path, "./data", "The folder of the embedded database."),
    // Listening.
    variable("BIND_ADDRESS", Address, "127.0.0.1", "The address that every service listens on."),
    variable("ALLOW_UNAUTHENTICATED", Switch, "false", "Allows a `BIND_ADDRESS` that other machines can reach, although nobody has to show a key."),
    variable("ALLOWED_HOSTS", List, "", "Names besides this machine's own under which a listener on loopback may be asked, as behind a proxy."),
    variable("ALLOWED_ORIGINS", List, "", "Origins, such as `https://ops.example.com`, whose pages may use the API from a browser."),
    variable("MAX_BODY_BYTES", Number(1024, 1 << 30, "bytes"), "5242880", "The largest body of a request that is read."),
    variable("STATE_MANAGER_PORT", Port, "8001", "The port of StateManager."),
    variable("CONFIG_SERVICE_PORT", Port, "8002", "The port of ConfigService."),
    variable("ORCHESTRATOR_PORT", Port, "8003", "The port of AgentOrchestrator; the one that the command line asks."),
    variable("SCHEDULER_SERVICE_PORT", Port, "8004", "The port of SchedulerService."),
    variable("SLACK_GATEWAY_PORT", Port, "8005", "The port of SlackGateway."),
    variable("AGENT_POOL_PORT", Port, "8006", "The port on which a pool of `serve` shows its health and metrics."),
    variable("AGENTRUNNER_SERVER", Url, "", "The AgentOrchestrator that the command line asks; `http://127.0.0.1:ORCHESTRATOR_PORT` when empty."),
    // Logs.
    variable("LOG_LEVEL", Word(LEVELS), "INFO", "The least important log lines that are written."),
    variable("LOG_FORMAT", Word(&["json", "text"]), "", "How log lines are written; `text` on a terminal, else `json`."),
    variable("LOG_DIR", Path, "", "A folder in which `agentrunner.log` gets every line too, always as JSON."),
    // Traces.
    variable("OTEL_EXPORTER_OTLP_ENDPOINT", Url, "", "The collector that traces are sent to, by OTLP over HTTP, such as `http://collector:4318`; `/v1/traces` is added. Without it none are made."),
    variable("OTEL_EXPORTER_OTLP_HEADERS", Secret, "", "What the collector is shown with it: `name=value` pairs separated by commas, such as `authorization=Bearer%20…`."),
    variable("OTEL_SERVICE_NAME", Text, "agentrunner", "The name under which traces are found there."),
    variable("OTEL_TRACES_SAMPLER_ARG", Text, "1", "The share of traces that are recorded, from 0 to 1, the same for all processes. A caller's `traceparent` that says yes or no is stronger."),
    variable("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", Switch, "false", "Whether traces tell what was said: tasks, answers, arguments and results of tools. Known secrets are taken out."),
    // Work.
    variable("AGENT_CAPACITY", Number(1, 100_000, "executions"), "1000", "How many executions a process performs at once."),
    variable("AGENT_LEASE_SECONDS", Number(1, 300, "seconds"), "10", "How long a lease on an execution lasts without being renewed: a lost process's work goes on elsewhere after that. Renewed at a third of it; the same for all processes."),
    variable("AGENT_DRAIN_SECONDS", Number(0, 300, "seconds"), "1", "How long after SIGTERM the ports still answer while `/health/ready` says 503, so that a load balancer goes elsewhere. Ctrl-C does not wait."),
    variable("AGENT_SHUTDOWN_TIMEOUT", Number(0, 3600, "seconds"), "30", "How long a shutdown waits for what is under way before it hands it back."),
    variable("AGENT_RESTART_MAX_ATTEMPTS", Number(1, 1000, "attempts"), "3", "How often in a row an execution may take its worker down before it fails."),
    variable("AGENT_HEALTH_CHECK_INTERVAL", Number(1, DAY, "seconds"), "60", "Within which time it shows that a worker is gone and its agents are unavailable."),
    variable("CONTINUOUS_AGENT_IDLE_TIMEOUT", Number(1, 365 * DAY, "seconds"), "600", "After how much silence a conversation is called idle, when its agent does not say. A silent one takes no memory from the beginning."),
    variable("STATE_COMPRESSION_THRESHOLD", Number(0, 1 << 40, "bytes"), "1048576", "From which size on tasks, steps, results, messages and what agents remember are kept compressed."),
    variable("STATE_RETENTION_DAYS", Number(1, 36_500, "days"), "30", "How long executions that are over are kept, with their journals and results; and silent conversations, dead letters and the audit log."),
    // Models.
    variable("OPENAI_API_KEY", Secret, "", "The key for OpenAI."),
    variable("OPENAI_BASE_URL", Url, "", "The address of OpenAI, or of a server compatible with it."),
    variable("ANTHROPIC_API_KEY", Secret, "", "The key for Anthropic."),
    variable("ANTHROPIC_BASE_URL", Url, "", "The address of Anthropic."),
    variable("OLLAMA_BASE_URL", Url, "", "The address of Ollama; `http://127.0.0.1:11434` when empty."),
    variable("AGENTRUNNER_PROVIDER", Word(&["openai", "anthropic", "bedrock", "ollama", "scripted"]), "", "Asks this provider for every agent, whatever its file says. `scripted` answers from `CONFIG_DIR/scripts/<agent>.yml`, without any model."),
    variable("AGENTRUNNER_MODEL", Text, "", "The model to ask for with `AGENTRUNNER_PROVIDER`; needed unless that is `scripted`."),
    variable("AWS_REGION", Text, "", "The AWS region for Bedrock, of agents that name none, and for backups in S3; when empty, that of the profile or the machine."),
    variable("AWS_ACCESS_KEY_ID", Secret, "", "The AWS key's id, for Bedrock, Secrets Manager and S3. Without it and `AWS_SECRET_ACCESS_KEY`, AWS's own chain is asked: profile, web identity, container, machine."),
    variable("AWS_SECRET_ACCESS_KEY", Secret, "", "The AWS key. It signs, and is never sent."),
    variable("AWS_SESSION_TOKEN", Secret, "", "The session token that goes with an AWS key which was lent for some hours."),
    variable("AWS_BEARER_TOKEN_BEDROCK", Secret, "", "A key of Bedrock's own kind, instead of an AWS key. Stronger than all of those."),
    variable("AWS_PROFILE", Text, "", "The profile in AWS's files; `default` when empty."),
    variable("AWS_BEDROCK_ENDPOINT", Url, "", "The address of Bedrock instead of AWS's own."),
    // Backups.
    variable("AWS_ENDPOINT_URL_S3", Url, "", "The address of an S3-compatible store that `s3://` in `backup` and `restore` means, instead of AWS's own."),
    variable("AWS_ENDPOINT_URL", Url, "", "The same as `AWS_ENDPOINT_URL_S3`, which is stronger; nothing else of AWS's is asked there."),
    // Outgoing requests.
    variable("EGRESS_ALLOW", List, "", "Hosts, addresses or networks that tools may reach although they are private."),
    variable("EGRESS_DENY", List, "", "Hosts, addresses or networks that tools may not reach. Stronger than `EGRESS_ALLOW`."),
    variable("CALLBACK_SIGNING_SECRET", Secret, "", "What callbacks are signed with: `whsec_…`, made by `agentrunner callbacks new-secret`; while it is changed two, separated by a comma. When empty, one is made and kept in `DATA_DIR`; on PostgreSQL it must be set, the same for all processes, before a task may have a `callback_url`."),
    variable("ALERT_CHECK_INTERVAL", Number(1, 3600, "seconds"), "15", "How often the rules of `CONFIG_DIR/alerts.yml` are looked at."),
    // Access.
    variable("ENABLE_API_AUTH", Switch, "", "Whether every route but `/health/live` and `/health/ready` needs a key. When not, the services listen on this machine only."),
    variable("API_AUTH_ENABLED", Switch, "", "The same as `ENABLE_API_AUTH`."),
    variable("API_SECRET_KEY", Secret, "", "The first administrator's key, at least 16 characters; the others are made with it. Needed with `ENABLE_API_AUTH`."),
    variable("API_KEY", Secret, "", "The same as `API_SECRET_KEY`."),
    variable("AGENTRUNNER_API_KEY", Secret, "", "The key that the command line shows; `API_SECRET_KEY` when empty and no server is named."),
    variable("ENABLE_TLS", Switch, "", "Whether the listeners speak TLS, 1.2 and 1.3, and nothing else. Needs `TLS_CERT_PATH` and `TLS_KEY_PATH`."),
    variable("TLS_ENABLED", Switch, "", "The same as `ENABLE_TLS`."),
    variable("TLS_CERT_PATH", Path, "", "The certificate for TLS, followed by those that lead to its authority, as PEM. A renewed file is taken without a restart."),
    variable("TLS_KEY_PATH", Path, "", "The certificate's key, as PEM without a passphrase."),
    variable("TLS_CLIENT_CA_PATH", Path, "", "The authorities, as PEM, whose certificates callers show."),
    variable("TLS_CLIENT_AUTH", Word(&["required", "optional"]), "", "Whether callers without a certificate of `TLS_CLIENT_CA_PATH` are let in; `required` when empty."),
    variable("AGENTRUNNER_CA_PATH", Path, "", "Authorities, as PEM, that the command line trusts besides those of the machine."),
    variable("AGENTRUNNER_CERT_PATH", Path, "", "The certificate that the command line shows a server that wants one, as PEM."),
    variable("AGENTRUNNER_KEY_PATH", Path, "", "Its key."),
    variable("RATE_LIMIT_ENABLED", Switch, "false", "Whether requests are limited: for each key, or else for each address."),
    variable("RATE_LIMIT_PER_MINUTE", Number(1, 1_000_000, "requests"), "60", "How many requests a caller may make in a minute."),
    variable("RATE_LIMIT_BURST", Number(1, 1_000_000, "requests"), "10", "How many of them at once."),
    variable("FAILED_KEYS_PER_MINUTE", Number(1, 1_000_000, "requests"), "60", "How many requests without a valid key an address may make in a minute, where requests are not limited."),
    variable("TRUSTED_PROXIES", List, "", "Addresses or networks of proxies whose `X-Forwarded-For` tells from where a request comes. Without them it is the other end of the connection."),
    variable("ENABLE_AUDIT_LOG", Switch, "false", "Whether changes, refusals of rights and people's decisions are written to the audit log."),
    variable("AUDIT_LOG_PATH", Path, "", "The file of the audit log, for all processes of a machine; `audit.log` in `DATA_DIR` when empty."),
    variable("AUDIT_LOG_KEY", Secret, "", "Whoever does not have it can't make lines that pass for the log's; at least 16 characters."),
    // Secrets.
    variable("SECRETS_REFRESH_SECONDS", Number(5, 86_400, "seconds"), "300", "How often secrets that are references (`aws-sm://`, `vault://`) are read again. Files are looked at every five seconds."),
    variable("AWS_ENDPOINT_URL_SECRETS_MANAGER", Url, "", "The address of AWS Secrets Manager instead of AWS's own."),
    variable("VAULT_ADDR", Url, "", "The address of Vault."),
    variable("VAULT_TOKEN", Secret, "", "The token for Vault; it is renewed before its end, if it can be."),
    variable("VAULT_ROLE_ID", Text, "", "The AppRole for Vault, instead of a token."),
    variable("VAULT_SECRET_ID", Secret, "", "The AppRole's secret."),
    variable("VAULT_APPROLE_MOUNT", Text, "approle", "Where AppRole is mounted in Vault."),
    variable("VAULT_NAMESPACE", Text, "", "The namespace in Vault."),
    variable("VAULT_CACERT", Path, "", "Authorities, as PEM, that are trusted for Vault besides those of the machine."),
    // PostgreSQL, Redis, RabbitMQ.
    variable("DATABASE_URL", Secret, "", "The address of PostgreSQL with user, password and database: `postgres://user:password@host:5432/database`. Stronger than `POSTGRES_*`."),
    variable("POSTGRES_HOST", Text, "", "The host of PostgreSQL. With this or `DATABASE_URL` everything is kept there and any number of processes share it."),
    variable("POSTGRES_PORT", Port, "5432", "The port of PostgreSQL."),
    variable("POSTGRES_DB", Text, "agentrunner", "The database."),
    variable("POSTGRES_USER", Text, "agentrunner", "The user of the database."),
    variable("POSTGRES_PASSWORD", Secret, "", "The user's password."),
    variable("DB_POOL_SIZE", Number(1, 1000, "connections"), "20", "How many connections a process keeps."),
    variable("DB_MAX_OVERFLOW", Number(0, 1000, "connections"), "10", "How many more it opens when all are busy."),
    variable("SERVERS_PATIENCE_SECONDS", Number(0, 3600, "seconds"), "60", "How long `serve` goes on trying at its start when PostgreSQL or RabbitMQ can't be used yet; each try is told in the log. All other commands try once."),
    variable("AUTO_MIGRATE", Switch, "", "Whether a start brings the schema in PostgreSQL up to date; without it a start with missing migrations says what to type. When empty: `true` for `up` and all other commands, `false` for `serve`."),
    variable("REDIS_URL", Secret, "", "The address of Redis with user, password and number of the database: `redis://user:password@host:6379/0`; `rediss` for TLS. Stronger than the names below."),
    variable("REDIS_HOST", Text, "", "The host of Redis. With this or `REDIS_URL` processes share copies of what they read, and counters; without it each has its own."),
    variable("REDIS_PORT", Port, "6379", "The port of Redis."),
    variable("REDIS_PASSWORD", Secret, "", "The password of Redis."),
    variable("REDIS_DB", Number(0, 65_535, "(its number)"), "0", "The database on Redis."),
    variable("REDIS_STATE_TTL", Number(1, 365 * DAY, "seconds"), "3600", "How long a copy of a conversation is kept. No copy is ever out of date."),
    variable("REDIS_CACHE_TTL", Number(1, 365 * DAY, "seconds"), "300", "How long copies of definitions and results are kept."),
    variable("RABBITMQ_URL", Secret, "", "The address of RabbitMQ with user, password and virtual host: `amqp://user:password@host:5672/vhost`; `amqps` for TLS. Stronger than the names below."),
    variable("RABBITMQ_HOST", Text, "", "The host of RabbitMQ. With this or `RABBITMQ_URL` events go through it, and any number of processes share them."),
    variable("RABBITMQ_PORT", Port, "5672", "The port of RabbitMQ."),
    variable("RABBITMQ_USER", Text, "agentrunner", "The user of RabbitMQ."),
    variable("RABBITMQ_PASSWORD", Secret, "", "The user's password."),
    variable("RABBITMQ_VHOST", Text, "/", "The virtual host on RabbitMQ."),
    variable("RABBITMQ_PREFETCH_COUNT", Number(1, 65_535, "messages"), "", "How many messages a consumer holds; what suits each queue when empty."),
    // Slack.
    variable("SLACK_SIGNING_SECRET", Secret, "", "Proves that a request comes from Slack: the app's Signing Secret. Without it, requests of Slack's are refused."),
    variable("SLACK_SIGNING_SECRET_PREVIOUS", Secret, "", "The Signing Secret before, taken as well while it is replaced."),
    variable("SLACK_BOT_TOKEN", Secret, "", "Lets AgentRunner write to Slack: the app's Bot User OAuth Token, `xoxb-…`."),
    variable("SLACK_APP_TOKEN", Secret, "", "Lets AgentRunner use Socket Mode: an App-Level Token, `xapp-…`. Slack then needs no way to this machine."),
    variable("SLACK_API_URL", Url, "", "The address of Slack's Web API instead of Slack's own; the tokens go there."),
];

/// What our names begin with: an unknown name that begins so and is close to a known one is a slip of the pen.
pub(crate) const PREFIXES: &[&str] = &[
    "AGENT_",
    "AGENTRUNNER_",
    "ALERT_",
    "ALLOW_",
    "ALLOWED_",
    "ANTHROPIC_",
    "API_",
    "AUDIT_",
    "AUTO_",
    "AWS_",
    "BIND_",
    "CALLBACK_",
    "CONFIG_",
    "CONTINUOUS_",
    "DATA_",
    "DATABASE_",
    "DB_",
    "EGRESS_",
    "ENABLE_",
    "LOG_",
    "OLLAMA_",
    "OPENAI_",
    "ORCHESTRATOR_",
    "OTEL_",
    "POSTGRES_",
    "RABBITMQ_",
    "RATE_",
    "REDIS_",
    "SCHEDULER_",
    "SLACK_",
    "STATE_",
    "TLS_",
    "TRUSTED_",
];

/// Names that belong to other programs, our own scripts and docker-compose.yml among them, and look like slips of ours.
pub(crate) const FOREIGN: &[&str] = &[
    "AGENTRUNNER_GID",
    "AGENTRUNNER_IMAGE",
    "AGENTRUNNER_SERVICES",
    "AGENTRUNNER_SERVICES_PATIENCE",
    "AGENTRUNNER_TEST_POSTGRES_URL",
    "AGENTRUNNER_TEST_RABBITMQ_URL",
    "AGENTRUNNER_TEST_REDIS_URL",
    "AGENTRUNNER_UID",
    "AWS_REGIONS",
    "AWS_DEFAULT_REGION",
    "OPENAI_API_BASE",
    "OLLAMA_HOST",
    "LOG_FILE",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_LOGS_EXPORTER",
    "OTEL_LOG_LEVEL",
    "OTEL_METRICS_EXPORTER",
    "OTEL_PROPAGATORS",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "API_KEYS",
    "POSTGRES_HOSTNAME",
    "POSTGRES_URL",
    "POSTGRES_DBS",
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "DB_USER",
];
