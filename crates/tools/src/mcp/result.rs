//! What a server answers, as text for a model.

use domain::ToolOutcome;
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use crate::text::{failed, succeeded};

/// Text parts joined, everything else described; structured content when there is no text.
pub(super) fn outcome(result: &CallToolResult, max: usize) -> ToolOutcome {
    let mut text = String::new();
    for block in &result.content {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&shown(block));
        if text.len() > max {
            break;
        }
    }
    if text.is_empty()
        && let Some(structured) = &result.structured_content
    {
        text = structured.to_string();
    }
    if result.is_error == Some(true) {
        let message = if text.is_empty() {
            "the tool reports an error".to_owned()
        } else {
            text
        };
        return failed(message);
    }
    succeeded(text, false, max)
}

fn shown(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(text) => text.text.clone(),
        ContentBlock::Image(image) => described("image", &image.mime_type, &image.data),
        ContentBlock::Audio(audio) => described("audio", &audio.mime_type, &audio.data),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { uri, text, .. } => {
                format!("[resource {uri}]\n{text}")
            }
            ResourceContents::BlobResourceContents {
                uri,
                mime_type,
                blob,
                ..
            } => {
                let kind = mime_type.as_deref().unwrap_or("application/octet-stream");
                described(&format!("resource {uri}"), kind, blob)
            }
            _ => "[resource]".to_owned(),
        },
        ContentBlock::ResourceLink(link) => format!("[resource {} {}]", link.name, link.uri),
        _ => "[content of an unknown kind]".to_owned(),
    }
}

fn described(what: &str, kind: &str, base64: &str) -> String {
    let bytes = base64.trim_end_matches('=').len() * 3 / 4;
    format!("[{what} {kind}, {bytes} bytes]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(result: serde_json::Value) -> ToolOutcome {
        outcome(&serde_json::from_value(result).unwrap(), 100)
    }

    #[test]
    fn text_is_joined_and_the_rest_described() {
        let outcome = of(json!({"content": [
            {"type": "text", "text": "a"},
            {"type": "image", "mimeType": "image/png", "data": "AAAAAA=="},
            {"type": "resource", "resource": {"uri": "x://y", "text": "b"}},
        ]}));
        assert_eq!(
            outcome,
            succeeded(
                "a\n[image image/png, 4 bytes]\n[resource x://y]\nb".to_owned(),
                false,
                100
            )
        );
    }

    #[test]
    fn structure_serves_where_there_is_no_text_and_errors_are_failures() {
        assert_eq!(
            of(json!({"content": [], "structuredContent": {"n": 1}})),
            succeeded("{\"n\":1}".to_owned(), false, 100)
        );
        assert_eq!(
            of(json!({"content": [{"type": "text", "text": "no"}], "isError": true})),
            failed("no")
        );
        let long = of(json!({"content": [{"type": "text", "text": "x".repeat(200)}]}));
        assert_eq!(long, succeeded("x".repeat(100), true, 100));
    }
}
