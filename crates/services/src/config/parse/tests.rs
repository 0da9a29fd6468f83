use super::super::diagnostic::render;
use super::*;

const GOOD: &str = "\
name: writer
execution_mode: autonomous
llm_config:
  provider: openai
  model: gpt-4o-mini
system_prompt: You write.
";

fn lookup(name: &str) -> Option<String> {
    (name == "SET").then(|| "value".to_owned())
}

fn errors(text: &str) -> Vec<Diagnostic> {
    parse(text, "a.yml", &lookup).expect_err("it has mistakes")
}

/// Checks that `text` has exactly these mistakes: `line:column: path: …message… ; …hint…`.
fn expect(text: &str, expected: &[(&str, &str, &str)]) {
    let found = errors(text);
    let shown = render(&found);
    assert_eq!(found.len(), expected.len(), "{shown}");
    for (diagnostic, (place, message, hint)) in found.iter().zip(expected) {
        let at = format!(
            "{}:{}: {}",
            diagnostic.line, diagnostic.column, diagnostic.path
        );
        assert_eq!(&at, place, "{shown}");
        assert!(diagnostic.message.contains(message), "{message}: {shown}");
        assert!(diagnostic.hint.contains(hint), "{hint}: {shown}");
    }
}

#[test]
fn a_good_file_is_read() {
    let parsed = parse(GOOD, "a.yml", &lookup).unwrap();
    assert_eq!(parsed.definition.name.as_str(), "writer");
    assert_eq!(parsed.name_line, 1);
    assert!(parsed.warnings.is_empty());
}

#[test]
fn json_is_read_as_well() {
    let json =
        serde_json::to_string_pretty(&parse(GOOD, "a.yml", &lookup).unwrap().definition).unwrap();
    let parsed = parse(&json, "a.json", &lookup).unwrap();
    assert_eq!(parsed.definition.name.as_str(), "writer");
}

#[test]
fn a_mistake_is_shown_with_its_line_and_a_caret() {
    let text = GOOD.replace("  model:", "  temprature: 0.2\n  model:");
    let shown = render(&errors(&text));
    assert_eq!(
        shown,
        "a.yml:5:3: llm_config.temprature: unknown field; did you mean temperature?\n  \
         5 |   temprature: 0.2\n    |   ^"
    );
}

#[test]
fn all_mistakes_come_at_once() {
    let text = "\
name: Bad Name
execution_mode: autonomus
llm_config:
  provider: opnai
  model: gpt
  temperature: hot
  max_tokens: 1.5
system_prompt: x
enabled: 'yes'
tags: one
timeout_seconds: -4
tools:
  - name: t
    type: function
    efect: read_only
  - name: u
    type: api
    method: get
    url: https://x.example
";
    expect(
        text,
        &[
            ("1:7: name", "agent name", ""),
            (
                "2:17: execution_mode",
                "\"autonomus\" is not known",
                "did you mean autonomous?",
            ),
            (
                "4:13: llm_config.provider",
                "opnai",
                "did you mean openai? It is one of openai, anthropic",
            ),
            (
                "6:16: llm_config.temperature",
                "expected a number, found text",
                "",
            ),
            (
                "7:15: llm_config.max_tokens",
                "expected a whole number, found 1.5",
                "",
            ),
            (
                "9:10: enabled",
                "expected true or false",
                "remove the quotes",
            ),
            ("10:7: tags", "expected a list, found text", "- "),
            (
                "11:18: timeout_seconds",
                "-4 is out of range",
                "between 0 and",
            ),
            (
                "15:5: tools[0].efect",
                "unknown field",
                "did you mean effect?",
            ),
            (
                "18:13: tools[1].method",
                "\"get\" is not known",
                "did you mean GET?",
            ),
        ],
    );
}

#[test]
fn missing_fields_are_named_where_they_belong() {
    expect(
        "execution_mode: autonomous\nllm_config:\n  model: x\nsystem_prompt: x\n",
        &[
            ("1:1: name", "the field is missing", "add name:"),
            (
                "2:1: llm_config.provider",
                "the field is missing",
                "whose model",
            ),
        ],
    );
}

#[test]
fn a_misspelt_required_field_is_one_mistake() {
    expect(
        &GOOD.replace("system_prompt", "sytem_prompt"),
        &[(
            "6:1: sytem_prompt",
            "unknown field",
            "did you mean system_prompt?",
        )],
    );
}

#[test]
fn problems_of_the_domain_have_a_place() {
    let text = format!(
        "{GOOD}tools:\n  - name: pay\n    type: api\n    url: ftp://x\n    effect: checkable\n"
    );
    expect(
        &text,
        &[
            (
                "8:5: tools[0].check",
                "a checkable tool needs it",
                "name the tool",
            ),
            ("10:10: tools[0].url", "is not an http address", "https://"),
        ],
    );
}

#[test]
fn fields_of_another_type_of_tool_are_told_apart() {
    let text = format!("{GOOD}tools:\n  - name: t\n    type: agent\n    url: http://x\n");
    expect(
        &text,
        &[(
            "8:5: tools[0]",
            "`url` has no meaning for type \"agent\"",
            "",
        )],
    );
}

#[test]
fn syntax_errors_have_a_place() {
    let found = errors("name: a\nllm_config:\n  model: [x\nsystem_prompt: y\n");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].message.starts_with("not valid YAML"),
        "{}",
        found[0]
    );
    assert!((3..=5).contains(&found[0].line), "{}", found[0]);
    let found = errors("name: a\n\tmodel: x\n");
    assert_eq!((found[0].line, found[0].column), (2, 1), "{}", found[0]);
    assert!(found[0].hint.contains("not tabs"), "{}", found[0]);
}

#[test]
fn keys_given_twice_are_told_with_the_other_mistakes() {
    expect(
        &format!("{GOOD}name: again\nenabled: 3\n"),
        &[
            ("7:1: name", "given twice, first on line 1", "keep one"),
            (
                "8:10: enabled",
                "expected true or false, found a number",
                "",
            ),
        ],
    );
}

#[test]
fn variables_are_checked_and_not_expanded() {
    let text = GOOD.replace(
        "openai\n",
        "openai\n  api_base: ${BASE}\n  api_key: ${KEY}\n",
    );
    expect(
        &text,
        &[
            (
                "5:13: llm_config.api_base",
                "the variable BASE is not set",
                "${BASE:-default}",
            ),
            (
                "6:12: llm_config.api_key",
                "the variable KEY is not set",
                "",
            ),
        ],
    );
    let text = text.replace("BASE", "SET").replace("KEY", "SET");
    let parsed = parse(&text, "a.yml", &lookup).unwrap();
    assert_eq!(
        parsed.definition.llm_config.api_key.as_deref(),
        Some("${SET}")
    );
    let disabled = format!("{}enabled: false\n", text.replace("SET", "NONE"));
    assert_eq!(
        parse(&disabled, "a.yml", &lookup).unwrap().warnings.len(),
        1
    );
}

#[test]
fn schemas_must_be_schemas() {
    let text =
        format!("{GOOD}output_schema:\n  type: object\n  properties:\n    a: {{type: strin}}\n");
    expect(
        &text,
        &[(
            "10:15: output_schema.properties.a.type",
            "not a valid JSON Schema",
            "type: object",
        )],
    );
    let text = format!("{GOOD}output_schema: {{$ref: 'http://127.0.0.1/x'}}\n");
    assert!(errors(&text)[0].message.contains("can't be used"));
}

#[test]
fn an_unquoted_version_is_a_text() {
    let parsed = parse(&format!("{GOOD}version: 1.10\n"), "a.yml", &lookup).unwrap();
    assert_eq!(parsed.definition.version.as_deref(), Some("1.10"));
}

#[test]
fn warnings_do_not_refuse() {
    let parsed = parse(
        &format!("{GOOD}continuous_config: {{}}\n"),
        "a.yml",
        &lookup,
    )
    .unwrap();
    assert_eq!(parsed.warnings.len(), 1);
    assert!(
        parsed.warnings[0]
            .to_string()
            .starts_with("a.yml:7:1: warning: continuous_config")
    );
}

#[test]
fn approvals_and_auth_are_read_by_their_form() {
    let tool = |rest: &str| {
        format!("{GOOD}tools:\n  - name: s\n    type: mcp\n    url: http://x\n    {rest}\n")
    };
    assert!(parse(&tool("requires_approval: true"), "a", &lookup).is_ok());
    assert!(parse(&tool("requires_approval: [a, b]"), "a", &lookup).is_ok());
    expect(
        &tool("requires_approval: maybe"),
        &[(
            "11:24: tools[0].requires_approval",
            "expected true or false or a list, found text",
            "",
        )],
    );
    expect(
        &tool("auth: {type: bearer, token: x}"),
        &[("11:18: tools[0].auth.type", "\"bearer\"", "bearer_token")],
    );
    expect(
        &tool("auth: {type: bearer_token, tokn: x}"),
        &[(
            "11:32: tools[0].auth.tokn",
            "unknown field",
            "did you mean token?",
        )],
    );
}

#[test]
fn bytes_that_are_not_utf8_have_a_place() {
    let error = decode(b"name: a\nx: \xff\n", "a.yml").unwrap_err();
    assert_eq!((error.line, error.column), (2, 4));
}

#[test]
fn the_name_of_a_broken_file_is_found() {
    assert_eq!(name_in("name: a\nb: [\n").unwrap().as_str(), "a");
    assert_eq!(name_in("name: 'a' # x\nb: 1").unwrap().as_str(), "a");
    assert_eq!(name_in("x: 1"), None);
}

#[test]
fn whatever_the_bytes_it_answers() {
    for text in [
        "",
        " ",
        "\t",
        "- a",
        "a",
        "{",
        "[]",
        "&a *a",
        "? [x]\n: y",
        "%YAML 9.9\n---\na",
        "\u{0}",
        "a: !!binary x",
        "'",
        "name: |\n",
    ] {
        assert!(!errors(text).is_empty(), "{text:?}");
    }
}
