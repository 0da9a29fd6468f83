//! What is shown in Slack: answers, questions with their buttons, and what was decided, as Block Kit.
//!
//! Sizes are Slack's: 3,000 characters in a section, 50 blocks in a message, about 13,000 characters in all.
//! <https://docs.slack.dev/reference/block-kit/blocks>

use domain::step::{Answer, InputRequest, Question};
use domain::{ExecutionId, Seq, Time};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::incoming::OURS;
use super::mrkdwn::{escape, from_markdown};
use super::split::{MOST, split};

/// How many characters of a tool's arguments are shown; whoever has to allow more is to look where all of it is.
const SHOWN: usize = 9000;
/// How many of a question's words.
const ASKED: usize = 6000;
/// How many of any other text.
const SHORT: usize = 1000;

/// A message: its blocks, and the words for notifications and for programs that can't show blocks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) text: String,
    pub(super) blocks: Vec<Value>,
}

/// What stands in a button: which question it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    #[serde(rename = "e")]
    pub(super) execution: ExecutionId,
    #[serde(rename = "r")]
    pub(super) request: Seq,
}

/// A text in Slack's own way of writing, of one part.
pub(super) fn said(mrkdwn: &str) -> Shown {
    let text = if mrkdwn.is_empty() {
        "\u{2026}"
    } else {
        mrkdwn
    };
    Shown {
        text: text.to_owned(),
        blocks: vec![section(text)],
    }
}

/// A question with what can be done about it.
pub(super) fn question(agent: &str, asked: Asked, request: &InputRequest) -> Shown {
    let mut blocks = vec![section(&headline(agent, &request.question))];
    let is_whole = body(&request.question, &mut blocks);
    let mut notes = Vec::new();
    if let Some(why) = &request.why {
        notes.push(format!("Why: {}", escape(&short(why))));
    }
    let otherwise = request.otherwise.as_deref().unwrap_or("the task ends");
    notes.push(format!(
        "Until {}; after that {}",
        date(request.until),
        escape(&short(otherwise))
    ));
    blocks.push(context(&notes.join("\n")));
    if !is_whole {
        let command = format!(
            "agentrunner inbox show {}:{}",
            asked.execution, asked.request
        );
        blocks.push(context(&format!(
            "This is too long to be shown whole, so it can't be allowed here: `{command}` shows all of it."
        )));
    }
    blocks.extend(field(&request.question));
    blocks.push(json!({
        "type": "actions",
        "elements": buttons(&request.question, asked, is_whole),
    }));
    Shown {
        text: headline(agent, &request.question),
        blocks,
    }
}

/// The same when it is decided, or nobody did in time.
pub(super) fn decided(agent: &str, request: &InputRequest, answer: &Answer, by: &str) -> Shown {
    let mut blocks = vec![section(&headline(agent, &request.question))];
    body(&request.question, &mut blocks);
    let verdict = verdict(answer, by);
    blocks.push(section(&verdict));
    Shown {
        text: verdict,
        blocks,
    }
}

/// What somebody decided, in words.
pub(super) fn verdict(answer: &Answer, by: &str) -> String {
    let by = escape(&short(by));
    let words = |text: &str| match text.trim() {
        "" => String::new(),
        text => format!(": {}", escape(&short(text))),
    };
    match answer {
        Answer::Text { text } => format!(":speech_balloon: Answered by {by}{}", words(text)),
        Answer::Approve => format!(":white_check_mark: Approved by {by}"),
        Answer::Edit { arguments } => {
            format!(
                ":pencil2: Approved with other arguments by {by}{}",
                words(arguments)
            )
        }
        Answer::Reject { reason } => format!(":no_entry: Refused by {by}{}", words(reason)),
        Answer::Happened { result } => {
            format!(":white_check_mark: It happened, says {by}{}", words(result))
        }
        Answer::Repeat => format!(":repeat: To be called again, says {by}"),
        Answer::EditPlan { .. } => format!(":pencil2: Another plan by {by}"),
        Answer::Expired => ":hourglass: Nobody answered in time".to_owned(),
    }
}

/// What a pressed button says, with the words of the field beside it.
///
/// # Errors
/// Words are missing, or there is no such button: what to tell the person.
pub(super) fn answer(action: &str, words: &str, who: &str) -> Result<Answer, &'static str> {
    let text = words.to_owned();
    Ok(match action {
        "approve" => Answer::Approve,
        "reject" if words.is_empty() => Answer::Reject {
            reason: format!("{who} refused it"),
        },
        "reject" => Answer::Reject { reason: text },
        "answer" if words.is_empty() => {
            return Err("Please write your answer into the field first.");
        }
        "answer" => Answer::Text { text },
        "happened" => Answer::Happened { result: text },
        "repeat" => Answer::Repeat,
        _ => return Err("This button is not known any more."),
    })
}

fn headline(agent: &str, question: &Question) -> String {
    let agent = escape(agent);
    match question {
        Question::Clarification { .. } => format!("*{agent}* asks:"),
        Question::Approval { tool, .. } => {
            format!(
                "*{agent}* wants to call `{}` with exactly these arguments:",
                code(tool)
            )
        }
        Question::UnknownOutcome { tool, .. } => format!(
            "*{agent}* called `{}`, and nobody knows whether it happened:",
            code(tool)
        ),
        Question::Plan { .. } => format!("*{agent}* wants to carry out this plan:"),
    }
}

/// Adds what the question is about; tells whether all of it is shown.
fn body(question: &Question, blocks: &mut Vec<Value>) -> bool {
    match question {
        Question::Clarification { text } => {
            let text = from_markdown(text);
            let is_whole = text.chars().count() <= ASKED;
            for part in split(&cut(&text, ASKED), MOST) {
                blocks.push(section(&part));
            }
            is_whole
        }
        Question::Approval { arguments, .. } => exact(arguments, blocks),
        Question::UnknownOutcome {
            arguments, known, ..
        } => {
            let is_whole = exact(arguments, blocks);
            blocks.push(section(&format!(
                "What is known: {}",
                escape(&short(known))
            )));
            is_whole
        }
        Question::Plan { plan, .. } => {
            let steps = plan.steps.iter().map(|step| {
                let after: Vec<&str> = step.depends_on.iter().map(|id| id.as_str()).collect();
                let after = match after.as_slice() {
                    [] => String::new(),
                    ids => format!(" (after {})", ids.join(", ")),
                };
                format!(
                    "{} \u{2192} {}{after}: {}",
                    step.id, step.agent, step.instruction
                )
            });
            exact(&steps.collect::<Vec<_>>().join("\n"), blocks)
        }
    }
}

/// Adds a text as it is, letter by letter: nothing in it is markup, and what can't be seen is written out.
fn exact(text: &str, blocks: &mut Vec<Value>) -> bool {
    let visible = visible(text);
    let letters: Vec<char> = visible.chars().take(SHOWN).collect();
    for part in letters.chunks(MOST) {
        let part: String = part.iter().collect();
        blocks.push(json!({
            "type": "rich_text",
            "elements": [{
                "type": "rich_text_preformatted",
                "elements": [{ "type": "text", "text": part }],
            }],
        }));
    }
    visible.chars().count() <= SHOWN
}

/// Writes out characters that are not seen, or that change the order in which others are: as JSON would.
fn visible(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}')
    };
    let mut visible = String::with_capacity(text.len());
    let mut units = [0; 2];
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut units) {
                visible.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            visible.push(c);
        }
    }
    if visible.is_empty() {
        visible.push(' ');
    }
    visible
}

fn field(question: &Question) -> Option<Value> {
    let label = match question {
        Question::Clarification { .. } => "Your answer",
        Question::Approval { .. } | Question::Plan { .. } => "Why, if you refuse",
        Question::UnknownOutcome { .. } => "The result if it happened, or why if you refuse",
    };
    Some(json!({
        "type": "input",
        "optional": true,
        "block_id": format!("{OURS}words"),
        "label": { "type": "plain_text", "text": label },
        "element": {
            "type": "plain_text_input",
            "action_id": format!("{OURS}words"),
            "multiline": matches!(question, Question::Clarification { .. }),
            "max_length": 3000,
        },
    }))
}

fn buttons(question: &Question, asked: Asked, is_whole: bool) -> Vec<Value> {
    let value = serde_json::to_string(&asked).unwrap_or_default();
    let button = |action: &str, label: &str, style: Option<&str>| {
        let mut button = json!({
            "type": "button",
            "action_id": format!("{OURS}{action}"),
            "text": { "type": "plain_text", "text": label },
            "value": value,
        });
        if let (Some(style), Some(fields)) = (style, button.as_object_mut()) {
            fields.insert("style".to_owned(), style.into());
        }
        button
    };
    let refuse = button("reject", "Refuse", Some("danger"));
    match question {
        Question::Clarification { .. } => vec![
            button("answer", "Answer", Some("primary")),
            button("reject", "Can't say", None),
        ],
        Question::Approval { .. } | Question::Plan { .. } if is_whole => {
            vec![button("approve", "Approve", Some("primary")), refuse]
        }
        Question::Approval { .. } | Question::Plan { .. } => vec![refuse],
        Question::UnknownOutcome { .. } => vec![
            button("happened", "It happened", Some("primary")),
            button("repeat", "Call it again", None),
            refuse,
        ],
    }
}

fn section(mrkdwn: &str) -> Value {
    // Slack refuses a block without words.
    let words = match mrkdwn.trim() {
        "" => "_(nothing)_",
        _ => mrkdwn,
    };
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": cut(words, MOST) } })
}

fn context(mrkdwn: &str) -> Value {
    json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": cut(mrkdwn, MOST) }] })
}

/// A time as each reader's own clock shows it.
fn date(time: Time) -> String {
    let fallback = time.format("%Y-%m-%d %H:%M UTC");
    format!(
        "<!date^{}^{{date_short_pretty}} {{time}}|{fallback}>",
        time.timestamp()
    )
}

/// Text that stands between back-ticks.
fn code(text: &str) -> String {
    escape(&visible(&short(text))).replace('`', "'")
}

fn short(text: &str) -> String {
    cut(text, SHORT)
}

pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(most.saturating_sub(1)).collect();
    cut.push('\u{2026}');
    cut
}

#[cfg(test)]
mod tests {
    use domain::step::CallRef;
    use proptest::prelude::*;

    use super::*;

    fn request(question: Question) -> InputRequest {
        InputRequest {
            call: CallRef {
                turn: Seq::new(1),
                index: 0,
            },
            question,
            until: "2026-11-24T09:30:00Z".parse().unwrap(),
            why: None,
            answered_by: None,
            otherwise: None,
        }
    }

    fn approval(arguments: &str) -> InputRequest {
        request(Question::Approval {
            tool: "pay".to_owned(),
            arguments: arguments.to_owned(),
        })
    }

    fn asked() -> Asked {
        Asked {
            execution: "0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f".parse().unwrap(),
            request: Seq::new(4),
        }
    }

    fn actions(shown: &Shown) -> Vec<String> {
        let block = shown.blocks.iter().find(|block| block["type"] == "actions");
        let elements = block.unwrap()["elements"].as_array().unwrap();
        let name = |element: &Value| element["action_id"].as_str().unwrap().replace(OURS, "");
        elements.iter().map(name).collect()
    }

    fn preformatted(shown: &Shown) -> String {
        let blocks = shown.blocks.iter();
        let text = |block: &Value| {
            Some(
                block
                    .pointer("/elements/0/elements/0/text")?
                    .as_str()?
                    .to_owned(),
            )
        };
        blocks.filter_map(text).collect()
    }

    #[test]
    fn arguments_are_shown_letter_by_letter() {
        let arguments = r#"{"to":"<@U1> ``` *x* &amp;","cents":300}"#;
        let shown = question("writer", asked(), &approval(arguments));
        assert_eq!(preformatted(&shown), arguments);
        assert_eq!(actions(&shown), ["approve", "reject"]);
        let hidden = question(
            "writer",
            asked(),
            &approval("{\"a\":\"x\u{202e}y\u{200b}\u{e0041}\"}"),
        );
        assert_eq!(
            preformatted(&hidden),
            "{\"a\":\"x\\u202ey\\u200b\\udb40\\udc41\"}"
        );
    }

    #[test]
    fn what_is_not_seen_whole_is_not_allowed_here() {
        let long = question("writer", asked(), &approval(&"a".repeat(SHOWN + 1)));
        assert_eq!(actions(&long), ["reject"]);
        assert!(
            long.blocks
                .iter()
                .any(|block| block.to_string().contains("inbox show"))
        );
    }

    #[test]
    fn each_question_has_its_buttons_and_each_button_its_answer() {
        let unknown = request(Question::UnknownOutcome {
            tool: "pay".to_owned(),
            arguments: "{}".to_owned(),
            key: "k".to_owned(),
            known: "the line broke".to_owned(),
        });
        let clarification = request(Question::Clarification {
            text: "Which *one*?".to_owned(),
        });
        for request in [unknown, clarification, approval("{}")] {
            for action in actions(&question("writer", asked(), &request)) {
                let answer = answer(&action, "words", "ann").unwrap();
                assert!(request.question.accepts(&answer), "{action}");
            }
        }
        assert!(answer("answer", "", "ann").is_err());
        assert!(answer("other", "x", "ann").is_err());
    }

    #[test]
    fn a_button_says_which_question_it_answers() {
        let shown = question("writer", asked(), &approval("{}"));
        let value = shown.blocks.last().unwrap()["elements"][0]["value"]
            .as_str()
            .unwrap();
        assert_eq!(serde_json::from_str::<Asked>(value).unwrap(), asked());
    }

    #[test]
    fn what_is_decided_has_no_buttons_and_names_the_person() {
        let shown = decided("writer", &approval("{}"), &Answer::Approve, "ann <x>");
        assert_eq!(shown.text, ":white_check_mark: Approved by ann &lt;x&gt;");
        assert!(
            shown
                .blocks
                .iter()
                .all(|block| block["type"] != "actions" && block["type"] != "input")
        );
    }

    proptest! {
        // Long texts take long to make.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn every_message_is_one_that_slack_takes(piece in "\\PC{0,60}", times in 0usize..200) {
            let text = piece.repeat(times);
            for question_ in [
                Question::Clarification { text: text.clone() },
                Question::Approval { tool: text.clone(), arguments: text.clone() },
            ] {
                let shown = question(&text.chars().take(60).collect::<String>(), asked(), &request(question_));
                prop_assert!(shown.blocks.len() <= 50);
                for block in &shown.blocks {
                    if let Some(words) = block.pointer("/text/text").and_then(Value::as_str) {
                        prop_assert!((1..=3000).contains(&words.chars().count()));
                    }
                }
            }
        }
    }
}
