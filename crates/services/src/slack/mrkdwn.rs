//! Slack's own way of writing: what models write in Markdown becomes it, and what people write in it becomes plain text.
//!
//! <https://docs.slack.dev/messaging/formatting-message-text>

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Makes characters that mean something to Slack mean themselves.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Markdown as Slack's mrkdwn. Nothing in it can call people (`@channel`) or pass for another link than it is.
pub(super) fn from_markdown(markdown: &str) -> String {
    let options =
        Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    for event in Parser::new_ext(markdown, options) {
        writer.event(event);
    }
    writer.finish()
}

/// What people wrote in Slack as plain text: mentions stay as they are, links are spelled out, escapes are undone.
pub(super) fn to_plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        plain.push_str(rest.get(..start).unwrap_or_default());
        let after = rest.get(start + 1..).unwrap_or_default();
        let Some(end) = after.find('>') else {
            rest = rest.get(start..).unwrap_or_default();
            break;
        };
        plain.push_str(&spelled(after.get(..end).unwrap_or_default()));
        rest = after.get(end + 1..).unwrap_or_default();
    }
    plain.push_str(rest);
    plain
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// What stands between angle brackets, spelled out.
fn spelled(inside: &str) -> String {
    let (target, label) = match inside.split_once('|') {
        Some((target, label)) => (target, Some(label)),
        None => (inside, None),
    };
    match (target.chars().next(), label) {
        (Some('#'), Some(label)) if !label.is_empty() => format!("#{label}"),
        (Some('@'), Some(label)) if !label.is_empty() => format!("@{label}"),
        (Some('@' | '#' | '!'), _) => target.to_owned(),
        (_, Some(label)) if label != target && !target.ends_with(label) => {
            format!("{label} ({target})")
        }
        _ => target.to_owned(),
    }
}

#[derive(Default)]
struct Writer {
    out: String,
    /// Numbers of the lists that are open; none for one with bullets.
    lists: Vec<Option<u64>>,
    /// Where the addresses of open links are kept.
    links: Vec<String>,
    quotes: usize,
    in_code: bool,
    is_heading: bool,
    /// The cells of the row of a table.
    row: Option<Vec<String>>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.text(&text),
            Event::Code(code) => {
                self.push("`");
                self.text(&code);
                self.push("`");
            }
            // What looks like HTML is text: Slack knows none.
            Event::Html(text) | Event::InlineHtml(text) => self.text(&text),
            Event::SoftBreak | Event::HardBreak => self.line(),
            Event::Rule => {
                self.blank();
                self.push("\u{2014}\u{2014}\u{2014}");
            }
            Event::TaskListMarker(done) => self.push(if done { "\u{2611} " } else { "\u{2610} " }),
            Event::FootnoteReference(name) => self.text(&name),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.text(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph if self.is_at_item() => {}
            Tag::Paragraph | Tag::HtmlBlock => self.blank(),
            Tag::Heading { .. } => {
                self.blank();
                self.is_heading = true;
                // Bold inside of it would end this.
                self.push("*");
            }
            Tag::BlockQuote(_) => {
                self.blank();
                self.quotes += 1;
                self.push("> ");
            }
            Tag::CodeBlock(_) => {
                self.blank();
                self.in_code = true;
                // Without the language, which would be shown as a line of the code.
                self.push("```\n");
            }
            Tag::List(first) => {
                if self.lists.is_empty() {
                    self.blank();
                }
                self.lists.push(first);
            }
            Tag::Item => {
                self.fresh_line();
                let depth = self.lists.len().saturating_sub(1);
                self.push(&"    ".repeat(depth));
                match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let marker = format!("{number}. ");
                        *number += 1;
                        self.push(&marker);
                    }
                    _ => self.push("\u{2022} "),
                }
            }
            Tag::Emphasis => self.push("_"),
            Tag::Strong if !self.is_heading => self.push("*"),
            Tag::Strikethrough => self.push("~"),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                let target = address(&dest_url);
                if let Some(target) = &target {
                    self.push(&format!("<{target}|"));
                }
                self.links.push(target.unwrap_or_default());
            }
            Tag::Table(_) => self.blank(),
            Tag::TableHead | Tag::TableRow => self.row = Some(Vec::new()),
            Tag::TableCell => {
                if let Some(row) = &mut self.row {
                    row.push(String::new());
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.is_heading = false;
                self.push("*");
            }
            TagEnd::BlockQuote(_) => self.quotes = self.quotes.saturating_sub(1),
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.fresh_line();
                self.push("```");
            }
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::Emphasis => self.push("_"),
            TagEnd::Strong if !self.is_heading => self.push("*"),
            TagEnd::Strikethrough => self.push("~"),
            TagEnd::Link | TagEnd::Image => {
                let target = self.links.pop().unwrap_or_default();
                if !target.is_empty() {
                    self.push(">");
                }
            }
            TagEnd::TableHead | TagEnd::TableRow => {
                let cells = self.row.take().unwrap_or_default();
                self.fresh_line();
                self.push(&cells.join(" | "));
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        let escaped = escape(text);
        // A bar would end the address of a link.
        let escaped = if self.links.last().is_some_and(|target| !target.is_empty()) {
            escaped.replace('|', "\u{2758}")
        } else {
            escaped
        };
        let mut lines = escaped.split('\n');
        if let Some(first) = lines.next() {
            self.push(first);
        }
        for line in lines {
            self.line();
            self.push(line);
        }
    }

    fn push(&mut self, text: &str) {
        match self.row.as_mut().and_then(|row| row.last_mut()) {
            Some(cell) => cell.push_str(text),
            None => self.out.push_str(text),
        }
    }

    /// Goes to the next line.
    fn line(&mut self) {
        if self.row.is_some() {
            return self.push(" ");
        }
        self.out.push('\n');
        if self.quotes > 0 {
            self.out.push_str("> ");
        } else if !self.lists.is_empty() && !self.in_code {
            self.out.push_str(&"    ".repeat(self.lists.len()));
        }
    }

    /// Goes to the beginning of a line, if it is not there.
    fn fresh_line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.line_start();
        }
    }

    fn line_start(&mut self) {
        self.out.push('\n');
        if self.quotes > 0 {
            self.out.push_str("> ");
        }
    }

    /// Leaves a line empty, unless it is at the beginning.
    fn blank(&mut self) {
        if self.out.is_empty() || self.out.ends_with("> ") {
            return;
        }
        if !self.out.ends_with('\n') {
            self.line_start();
        }
        self.line_start();
    }

    fn is_at_item(&self) -> bool {
        let line = self.out.rsplit('\n').next().unwrap_or_default().trim();
        !self.lists.is_empty()
            && (line == "\u{2022}" || line.strip_suffix('.').is_some_and(is_number))
    }

    fn finish(self) -> String {
        self.out.trim_end().to_owned()
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// An address that a link may have: of the web or of mail, and nothing that ends it early.
fn address(url: &str) -> Option<String> {
    let is_known = ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    let is_safe = !url.contains(['|', '<', '>', ' ', '\n']);
    (is_known && is_safe).then(|| url.replace('&', "&amp;"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_models_write_looks_as_it_is_meant() {
        for (markdown, expected) in [
            (
                "**bold** and *soft* and ~~gone~~",
                "*bold* and _soft_ and ~gone~",
            ),
            ("# Title\n\nText", "*Title*\n\nText"),
            ("## A **b** c", "*A b c*"),
            (
                "- one\n- two\n  - deep\n",
                "\u{2022} one\n\u{2022} two\n    \u{2022} deep",
            ),
            ("1. one\n2. two", "1. one\n2. two"),
            (
                "[site](https://a.example/?x=1&y=2)",
                "<https://a.example/?x=1&amp;y=2|site>",
            ),
            ("`a < b`", "`a &lt; b`"),
            (
                "```rust\nlet a = &b;\n```\nafter",
                "```\nlet a = &amp;b;\n```\n\nafter",
            ),
            ("> said\n> twice", "> said\n> twice"),
            ("| a | b |\n|---|---|\n| 1 | 2 |", "a | b\n1 | 2"),
            (
                "- [x] done\n- [ ] open",
                "\u{2022} \u{2611} done\n\u{2022} \u{2610} open",
            ),
            ("a & b <script>", "a &amp; b &lt;script&gt;"),
        ] {
            assert_eq!(from_markdown(markdown), expected, "{markdown}");
        }
    }

    #[test]
    fn nobody_is_called_and_no_link_lies() {
        assert_eq!(from_markdown("<!channel> now"), "&lt;!channel&gt; now");
        assert_eq!(from_markdown("<@U123>"), "&lt;@U123&gt;");
        let odd = from_markdown("[x](javascript:alert)");
        assert_eq!(odd, "x");
        let bar = from_markdown("[a|b](https://a.example)");
        assert_eq!(bar, "<https://a.example|a\u{2758}b>");
    }

    #[test]
    fn what_people_write_is_plain_again() {
        for (text, expected) in [
            ("a &amp;lt; b &lt; c", "a &lt; b < c"),
            ("<https://a.example|site>", "site (https://a.example)"),
            ("<https://a.example|a.example>", "https://a.example"),
            ("<https://a.example>", "https://a.example"),
            ("<@U1> in <#C1|general>", "@U1 in #general"),
            ("<mailto:a@b.example|a@b.example>", "mailto:a@b.example"),
            ("1 < 2", "1 < 2"),
        ] {
            assert_eq!(to_plain(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_open_bracket_is_ours(markdown in "[-a-z<>!@#*_`|\\[\\]()\n ]{0,60}") {
            let written = from_markdown(&markdown);
            for (at, _) in written.match_indices('<') {
                let rest = &written[at + 1..];
                prop_assert!(rest.starts_with("http") || rest.starts_with("mailto:"), "{written}");
            }
        }

        #[test]
        fn plain_text_survives(text in "[a-zA-Z0-9 .,;&<>]{0,60}") {
            prop_assert_eq!(to_plain(&escape(&text)), text);
        }
    }
}
