//! HTML as readable text: good enough for a model, in one pass, whatever the markup.

/// Elements whose content is not for reading.
const SILENT: [&str; 9] = [
    "script", "style", "noscript", "template", "svg", "head", "iframe", "object", "title",
];
/// Elements that stand on lines of their own.
const BLOCKS: [&str; 35] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "br",
    "dd",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "tr",
    "ul",
    "summary",
    "details",
];
/// The longest name or reference that is looked at, in bytes.
const MAX_NAME: usize = 12;

/// The text of a page, with its title first.
pub(super) fn readable(html: &str) -> String {
    let mut out = Lines::default();
    if let Some(title) = title(html) {
        out.text(title);
        out.line();
        out.line();
    }
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        let (before, markup) = rest.split_at_checked(open).unwrap_or((rest, ""));
        out.text(before);
        rest = match markup.strip_prefix("<!--") {
            Some(comment) => comment.split_once("-->").map_or("", |(_, after)| after),
            None => tag(markup, &mut out),
        };
    }
    out.text(rest);
    out.finished()
}

/// Handles the tag that `markup` begins with and returns what follows.
fn tag<'a>(markup: &'a str, out: &mut Lines) -> &'a str {
    let inside = markup.get(1..).unwrap_or_default();
    if !inside.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
        out.text("<");
        return inside;
    }
    let Some((tag, after)) = inside.split_once('>') else {
        return "";
    };
    let closes = tag.starts_with('/');
    let name: String = tag
        .trim_start_matches('/')
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .take(MAX_NAME)
        .collect::<String>()
        .to_ascii_lowercase();
    if SILENT.contains(&name.as_str()) && !closes && !tag.ends_with('/') {
        return after_end_of(after, &name);
    }
    match name.as_str() {
        "td" | "th" if !closes => out.text(" | "),
        "li" if !closes => {
            out.line();
            out.text("- ");
        }
        name if BLOCKS.contains(&name) => out.line(),
        _ => {}
    }
    after
}

/// What follows the end tag of an element.
fn after_end_of<'a>(html: &'a str, name: &str) -> &'a str {
    let mut rest = html;
    while let Some((_, after)) = rest.split_once("</") {
        let found = after
            .get(..name.len())
            .is_some_and(|end| end.eq_ignore_ascii_case(name));
        if found {
            return after.split_once('>').map_or("", |(_, after)| after);
        }
        rest = after;
    }
    ""
}

fn title(html: &str) -> Option<&str> {
    let front = html.get(..html.floor_char_boundary(65_536))?;
    let lower = front.to_ascii_lowercase();
    let open = lower.find("<title")?;
    let from = open + lower.get(open..)?.find('>')? + 1;
    let to = from + lower.get(from..)?.find("</title")?;
    front.get(from..to)
}

/// Lines of text: white space is folded, at most one line stays empty.
#[derive(Default)]
struct Lines {
    out: String,
    line: String,
}

impl Lines {
    fn text(&mut self, html: &str) {
        for c in Unescaped(html) {
            if !c.is_whitespace() {
                self.line.push(c);
            } else if !self.line.is_empty() && !self.line.ends_with(' ') {
                self.line.push(' ');
            }
        }
    }

    fn line(&mut self) {
        let line = self.line.trim();
        if !line.is_empty() {
            self.out.push_str(line);
            self.out.push('\n');
        } else if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
        self.line.clear();
    }

    fn finished(mut self) -> String {
        self.line();
        self.out.truncate(self.out.trim_end().len());
        self.out
    }
}

/// The characters of a text with its references (`&amp;`, `&#8217;`) resolved.
struct Unescaped<'a>(&'a str);

impl Iterator for Unescaped<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let mut chars = self.0.chars();
        let first = chars.next()?;
        if first == '&'
            && let Some(end) = chars
                .as_str()
                .bytes()
                .take(MAX_NAME)
                .position(|b| b == b';')
            && let Some(meant) = chars.as_str().get(..end).and_then(reference)
        {
            self.0 = chars.as_str().get(end + 1..).unwrap_or_default();
            return Some(meant);
        }
        self.0 = chars.as_str();
        Some(first)
    }
}

fn reference(name: &str) -> Option<char> {
    if let Some(number) = name.strip_prefix('#') {
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        "copy" => '©',
        "reg" => '®',
        "euro" => '€',
        "ndash" => '–',
        "mdash" => '—',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "hellip" => '…',
        "middot" => '·',
        "bull" => '•',
        "times" => '×',
        "rarr" => '→',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_text() {
        let page = "<!doctype html><html><head><title>The  Title</title><style>p{x:y}</style></head>
            <body><!-- <p>no</p> --><h1>Big &amp; bold</h1><script>if (a < b) { alert('<p>') }</script>
            <p>One<br>two&nbsp;<b>three</b></p><ul><li>a<li>b</ul>
            <table><tr><td>1</td><td>2</td></tr></table>5 < 6 &unknown; &#8364;</body></html>";
        assert_eq!(
            readable(page),
            "The Title\n\nBig & bold\n\nOne\ntwo three\n\n- a\n- b\n\n| 1 | 2\n\n5 < 6 &unknown; €"
        );
    }

    #[test]
    fn broken_markup_ends_well() {
        for (html, text) in [
            ("", ""),
            ("<", "<"),
            ("a<b", "a"),
            ("a<!-- b", "a"),
            ("<script>x", ""),
            ("é<p>ü</", "é\nü"),
            ("&#xD800;&#99999999999;&", "&#xD800;&#99999999999;&"),
        ] {
            assert_eq!(readable(html), text, "{html:?}");
        }
    }
}
