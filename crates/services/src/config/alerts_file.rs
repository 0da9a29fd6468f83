//! `alerts.yml`: from its text to rules and receivers, or to everything that is wrong with it.

use std::sync::OnceLock;

use domain::alert::AlertConfig;
use domain::definition::Severity;
use domain::definition::expand::expand_text;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::diagnostic::Diagnostic;
use super::document::{self, Flaw, Mark, Node};
use super::parse::Lookup;
use super::shape;

/// Reads the file. `lookup` answers the variables that it refers to; they are looked up to see that they are there, never
/// put into the answer.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn parse_alerts(
    text: &str,
    file: &str,
    lookup: &Lookup,
) -> Result<(AlertConfig, Vec<Diagnostic>), Vec<Diagnostic>> {
    if text.lines().all(is_comment) {
        return Ok((AlertConfig::default(), Vec::new()));
    }
    let mut found = Vec::new();
    let mut add = |flaw: Flaw, severity| found.push(Diagnostic::new(file, text, flaw, severity));
    let (node, flaws) = document::read(text);
    let mut read = None;
    flaws
        .into_iter()
        .for_each(|flaw| add(flaw, Severity::Error));
    if let Some(node) = &node {
        let fitted = shape::fit(node, schema());
        let fits = fitted.flaws.is_empty();
        fitted
            .flaws
            .into_iter()
            .for_each(|flaw| add(flaw, Severity::Error));
        match serde_json::from_value::<AlertConfig>(fitted.value) {
            Ok(config) => {
                for problem in config.problems() {
                    let mark = node.locate(&problem.path);
                    let flaw = Flaw::new(mark, problem.path, problem.message, problem.hint);
                    add(flaw, problem.severity);
                }
                for flaw in missing(&config, node, lookup) {
                    add(flaw, Severity::Error);
                }
                read = Some(config);
            }
            // What does not fit was told of already.
            Err(error) if fits => add(
                Flaw::new(Mark::START, "", error.to_string(), ""),
                Severity::Error,
            ),
            Err(_) => {}
        }
    }
    found.sort_by_key(|diagnostic| (!diagnostic.is_error(), diagnostic.line, diagnostic.column));
    match read {
        Some(config) if !found.iter().any(Diagnostic::is_error) => Ok((config, found)),
        _ => Err(found),
    }
}

fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// The variables that receivers refer to and that are not set.
fn missing(config: &AlertConfig, node: &Node, lookup: &Lookup) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for (name, receiver) in &config.receivers {
        let fields = [
            ("channel", &receiver.channel),
            ("url", &receiver.url),
            ("secret", &receiver.secret),
            ("from", &receiver.from),
            ("smtp", &receiver.smtp),
            ("username", &receiver.username),
            ("password", &receiver.password),
        ];
        for (field, value) in fields {
            let Some(value) = value else { continue };
            let path = format!("receivers.{name}.{field}");
            if let Err(error) = expand_text(value, &path, &|name| lookup(name)) {
                let message = format!("the variable {} is not set", error.name);
                flaws.push(Flaw::new(
                    node.locate(&path),
                    path,
                    message,
                    "set it, or give a default",
                ));
            }
        }
    }
    flaws
}

fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let generator = SchemaSettings::draft07().into_generator();
        generator.into_root_schema_for::<AlertConfig>().to_value()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> Option<String> {
        (name == "PAGER").then(|| "whsec_x".to_owned())
    }

    const GOOD: &str = "\
receivers:
  pager:
    type: webhook
    url: https://pager.example/hook
    secret: ${PAGER}
rules:
  - name: failing
    when: failures
    above: 5
    receivers: [pager]
";

    #[test]
    fn a_file_is_read_and_one_of_comments_is_empty() {
        let (config, warnings) = parse_alerts(GOOD, "alerts.yml", &set).unwrap();
        assert_eq!((config.rules.len(), warnings.len()), (1, 0));
        let (empty, _) = parse_alerts("# rules:\n\n  # - name: x\n", "alerts.yml", &set).unwrap();
        assert_eq!(empty, AlertConfig::default());
    }

    #[test]
    fn mistakes_have_a_line_a_column_and_a_suggestion() {
        let first = |text: &str| {
            parse_alerts(text, "alerts.yml", &set)
                .unwrap_err()
                .remove(0)
        };
        let wrong = first(&GOOD.replace("[pager]", "[pagr]"));
        assert_eq!(
            (wrong.line, wrong.path.as_str()),
            (10, "rules[0].receivers[0]")
        );
        assert!(wrong.hint.contains("pager"), "{wrong}");
        let wrong = first(&GOOD.replace("above: 5", "abov: 5"));
        assert_eq!((wrong.line, wrong.column), (9, 5));
        assert!(wrong.to_string().contains("above"), "{wrong}");
        let wrong = first(&GOOD.replace("when: failures", "when: failure"));
        assert_eq!(wrong.line, 8);
        let wrong = first(&GOOD.replace("${PAGER}", "${PAGED}"));
        assert_eq!(
            (wrong.line, wrong.path.as_str()),
            (5, "receivers.pager.secret")
        );
        let wrong = first("rules: [");
        assert_eq!(wrong.file, "alerts.yml");
    }
}
