//! What Slack refuses of a message.

use serde_json::Value;

/// The longest text of a message, and of one that is put in another's place.
const TEXT: (usize, usize) = (40_000, 4_000);
/// How many characters all blocks may have together.
const ALL_BLOCKS: usize = 13_200;

/// Says in Slack's word, and in ours, why a message is refused.
pub(super) fn message(
    text: Option<&str>,
    blocks: &[Value],
    is_update: bool,
) -> Result<(), (&'static str, String)> {
    let most = if is_update { TEXT.1 } else { TEXT.0 };
    let length = text.map_or(0, |text| text.chars().count());
    if length == 0 && blocks.is_empty() {
        return Err(("no_text", "it says nothing".to_owned()));
    }
    if length > most {
        return Err(("msg_too_long", format!("the text has {length} characters")));
    }
    if blocks.len() > 50 {
        return Err((
            "invalid_blocks",
            format!("there are {} blocks", blocks.len()),
        ));
    }
    let all: usize = blocks.iter().map(letters).sum();
    if all > ALL_BLOCKS {
        return Err((
            "msg_blocks_too_long",
            format!("the blocks have {all} characters"),
        ));
    }
    for one in blocks {
        block(one).map_err(|why| ("invalid_blocks", why))?;
    }
    Ok(())
}

fn letters(value: &Value) -> usize {
    match value {
        Value::Object(fields) => {
            let own = fields.get("text").and_then(Value::as_str);
            own.map_or(0, |text| text.chars().count()) + fields.values().map(letters).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(letters).sum(),
        _ => 0,
    }
}

fn block(block: &Value) -> Result<(), String> {
    let kind = block["type"].as_str().unwrap_or_default();
    let elements = || {
        let elements = block["elements"].as_array();
        elements
            .filter(|e| !e.is_empty())
            .ok_or_else(|| format!("{kind} has no elements"))
    };
    match kind {
        "section" => text(&block["text"], 3000),
        "divider" => Ok(()),
        "header" => text(&block["text"], 150),
        "context" => elements()?
            .iter()
            .try_for_each(|element| text(element, 3000)),
        "actions" => elements()?.iter().try_for_each(button),
        "rich_text" => elements()?.iter().try_for_each(rich),
        "input" => {
            text(&block["label"], 2000)?;
            match block["element"]["type"].as_str() {
                Some("plain_text_input") => Ok(()),
                other => Err(format!("an input of {other:?}")),
            }
        }
        other => Err(format!("no block is called {other:?}")),
    }
}

fn text(text: &Value, most: usize) -> Result<(), String> {
    let kind = text["type"].as_str().unwrap_or_default();
    let length = text["text"].as_str().unwrap_or_default().chars().count();
    if !matches!(kind, "mrkdwn" | "plain_text") {
        return Err(format!("no text is called {kind:?}"));
    }
    if !(1..=most).contains(&length) {
        return Err(format!(
            "a text has {length} characters, 1 to {most} are taken"
        ));
    }
    Ok(())
}

fn button(button: &Value) -> Result<(), String> {
    if button["type"] != "button" {
        return Err("an action that is no button".to_owned());
    }
    text(&button["text"], 75)?;
    let length = |name: &str| button[name].as_str().map_or(0, str::len);
    if length("value") > 2000 || length("action_id") > 255 {
        return Err("a button's value or action_id is too long".to_owned());
    }
    match button["style"].as_str() {
        None | Some("primary" | "danger") => Ok(()),
        Some(other) => Err(format!("no style is called {other:?}")),
    }
}

fn rich(element: &Value) -> Result<(), String> {
    let kind = element["type"].as_str().unwrap_or_default();
    if !matches!(
        kind,
        "rich_text_section" | "rich_text_preformatted" | "rich_text_quote"
    ) {
        return Err(format!("no rich text is called {kind:?}"));
    }
    let inner = element["elements"].as_array().filter(|e| !e.is_empty());
    let inner = inner.ok_or("a rich text has no elements")?;
    let is_text =
        |e: &Value| e["type"] == "text" && e["text"].as_str().is_some_and(|t| !t.is_empty());
    match inner.iter().all(is_text) {
        true => Ok(()),
        false => Err("a rich text holds what is no text".to_owned()),
    }
}
