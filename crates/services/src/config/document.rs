//! A YAML document with the place of everything in it.
//!
//! Built from the parser's events by hand, because a diagnostic needs the position of every key and value, and
//! because a file is untrusted: its size, depth and number of nodes (aliases expanded) are bounded, and tags, second
//! documents and keys given twice are refused.

use std::collections::HashMap;
use std::fmt;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput};
use serde_json::Value;

use super::scalar;

/// The largest file.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// How deep lists and maps may be nested.
const MAX_DEPTH: usize = 64;
/// How many values a file may have once its aliases are expanded.
const MAX_NODES: usize = 50_000;

/// A place in a text, both from 1; columns are counted in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Mark {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

impl From<&granit_parser::Marker> for Mark {
    fn from(marker: &granit_parser::Marker) -> Self {
        Self {
            line: marker.line().max(1),
            column: marker.col() + 1,
        }
    }
}

/// Something that is wrong, and where.
#[derive(Debug, Clone)]
pub(crate) struct Flaw {
    pub(crate) mark: Mark,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Flaw {
    pub(crate) fn new(
        mark: Mark,
        path: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            mark,
            path: path.into(),
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A text; `plain` when it is not quoted and may stand for a number, a truth value or nothing.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order of the file.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_mark: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// The value of a map's key.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key),
            Kind::Scalar { .. } | Kind::List(_) => None,
        }
    }

    /// Whether nothing is written here.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if scalar::is_null(text))
    }

    /// What it is, for a message.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { text, plain: true } => scalar::describe(text),
            Kind::Scalar { .. } => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The value as JSON, scalars read by the rules of YAML 1.2.
    pub(crate) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar { text, plain: true } => scalar::resolve(text),
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }

    /// The place that a path such as `tools[0].effect` names, or of the nearest value around it: of the value when
    /// it is a scalar, else of its key.
    pub(crate) fn locate(&self, path: &str) -> Mark {
        self.locate_from(path, self.mark)
    }

    fn locate_from(&self, path: &str, mark: Mark) -> Mark {
        let path = path.trim_start_matches('.');
        match &self.kind {
            Kind::Scalar { text, plain } if !(*plain && text.is_empty()) => self.mark,
            Kind::List(items) => path
                .strip_prefix('[')
                .and_then(|rest| rest.split_once(']'))
                .and_then(|(index, rest)| Some((items.get(index.parse::<usize>().ok()?)?, rest)))
                .map_or(mark, |(item, rest)| item.locate_from(rest, item.mark)),
            Kind::Map(entries) => entries
                .iter()
                .filter_map(|entry| Some((entry, path.strip_prefix(entry.key.as_str())?)))
                .filter(|(_, rest)| rest.is_empty() || rest.starts_with(['.', '[']))
                .max_by_key(|(entry, _)| entry.key.len())
                .map_or(mark, |(entry, rest)| {
                    entry.value.locate_from(rest, entry.key_mark)
                }),
            Kind::Scalar { .. } => mark,
        }
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List(items) => items.iter().map(Self::size).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
        }
    }
}

/// Reads a text. Mistakes that leave the rest readable (tags, keys given twice) are collected; at the first other one
/// reading stops.
pub(crate) fn read(text: &str) -> (Option<Node>, Vec<Flaw>) {
    if text.len() > MAX_BYTES {
        let message = format!("the file is larger than {MAX_BYTES} bytes");
        let hint = "shorten it; let a tool read what is long";
        return (None, vec![Flaw::new(Mark::START, "", message, hint)]);
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader {
        text,
        parser: Parser::new_from_str_with_options(text, options),
        nodes: 0,
        anchors: HashMap::new(),
        flaws: Vec::new(),
    };
    match reader.document() {
        Ok(node) => (Some(node), reader.flaws),
        Err(flaw) => {
            reader.flaws.push(flaw);
            (None, reader.flaws)
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    nodes: usize,
    anchors: HashMap<usize, Node>,
    flaws: Vec<Flaw>,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Flaw> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd | Event::DocumentEnd, _) => {
                    return Err(Flaw::new(
                        Mark::START,
                        "",
                        "the file is empty",
                        "begin with name: and the name of the agent",
                    ));
                }
                (event, span) => {
                    let node = self.node(event, span, 0)?;
                    return self.end().map(|()| node);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Flaw> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentEnd, _) => {}
                (_, span) => {
                    return Err(Flaw::new(
                        Mark::from(&span.start),
                        "",
                        "a second document begins here",
                        "one file holds one agent; move it to a file of its own",
                    ));
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Flaw> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let info = error.info().to_string();
                let mark = blame(&info, Mark::from(error.marker()), self.text);
                let message = format!("not valid YAML: {info}");
                Err(Flaw::new(mark, "", message, syntax_hint(&info)))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Flaw> {
        let mark = Mark::from(&span.start);
        self.charge(1, mark)?;
        if depth > MAX_DEPTH {
            let message = format!("values are nested more than {MAX_DEPTH} deep");
            return Err(Flaw::new(mark, "", message, "flatten them"));
        }
        if let Some(tag) = event.tag() {
            let message = format!("the tag {tag} is not allowed");
            self.flaws
                .push(Flaw::new(mark, "", message, "write the plain value"));
        }
        let anchor = event.anchor_id().unwrap_or_default();
        let kind = match event {
            Event::Alias(id) => return self.alias(id, mark),
            Event::Scalar(text, style, ..) => Kind::Scalar {
                text: text.into_owned(),
                plain: style == ScalarStyle::Plain,
            },
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            other => {
                let message = format!("not valid YAML: {other:?} is out of place");
                return Err(Flaw::new(mark, "", message, ""));
            }
        };
        let node = Node { mark, kind };
        if anchor != 0 {
            self.charge(node.size(), mark)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Kind, Flaw> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind, Flaw> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut places: HashMap<String, Mark> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let key_mark = key.mark;
            let Kind::Scalar { text: key, plain } = key.kind else {
                let message = "a key is a text, not a list or map";
                return Err(Flaw::new(
                    key_mark,
                    "",
                    message,
                    "put it in quotes if it is one",
                ));
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if key == "<<" && plain {
                merged.push(value);
            } else if let Some(first) = places.get(&key) {
                let message = format!("the key is given twice, first on line {}", first.line);
                self.flaws
                    .push(Flaw::new(key_mark, key, message, "keep one of them"));
            } else {
                places.insert(key.clone(), key_mark);
                entries.push(Entry {
                    key,
                    key_mark,
                    value,
                });
            }
        }
        for value in merged {
            self.merge(value, &mut entries, &mut places)?;
        }
        Ok(Kind::Map(entries))
    }

    /// `<<: *anchor`, or a list of them: keys that the map does not have itself.
    fn merge(
        &mut self,
        value: Node,
        entries: &mut Vec<Entry>,
        places: &mut HashMap<String, Mark>,
    ) -> Result<(), Flaw> {
        match value.kind {
            Kind::Map(others) => {
                for other in others {
                    if !places.contains_key(&other.key) {
                        places.insert(other.key.clone(), other.key_mark);
                        entries.push(other);
                    }
                }
                Ok(())
            }
            Kind::List(items) => items
                .into_iter()
                .try_for_each(|item| self.merge(item, entries, places)),
            Kind::Scalar { .. } => Err(Flaw::new(
                value.mark,
                "<<",
                "only a map can be merged",
                "write <<: *name of an anchored map",
            )),
        }
    }

    fn alias(&mut self, id: usize, mark: Mark) -> Result<Node, Flaw> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            let message = "the alias refers to a value that is not complete yet";
            return Err(Flaw::new(mark, "", message, "a value can't contain itself"));
        };
        self.charge(node.size(), mark)?;
        Ok(Node { mark, ..node })
    }

    fn charge(&mut self, nodes: usize, mark: Mark) -> Result<(), Flaw> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values, aliases expanded");
            return Err(Flaw::new(
                mark,
                "",
                message,
                "use fewer aliases or a smaller file",
            ));
        }
        Ok(())
    }
}

/// The parser points at the beginning of what it was reading; a tab is to be pointed at itself.
fn blame(info: &str, mark: Mark, text: &str) -> Mark {
    if !info.contains("tab") {
        return mark;
    }
    let indents = text
        .lines()
        .enumerate()
        .skip(mark.line - 1)
        .map(|(index, line)| {
            let indent: String = line.chars().take_while(|c| c.is_whitespace()).collect();
            (index + 1, indent.find('\t'))
        });
    let mut tabs = indents.filter_map(|(line, tab)| {
        Some(Mark {
            line,
            column: tab? + 1,
        })
    });
    tabs.next().unwrap_or(mark)
}

fn syntax_hint(info: &str) -> String {
    let info = info.to_lowercase();
    let hint = if info.contains("tab") {
        "indent with spaces, not tabs"
    } else if info.contains("mapping values")
        || info.contains("block mapping")
        || info.contains("simple key")
    {
        "check the indentation, and put texts that contain ': ' in quotes"
    } else if info.contains("recursion limit") {
        "values are nested too deep; flatten them"
    } else if info.contains("anchor") || info.contains("alias") {
        "put a text that begins with '*' or '&' in quotes"
    } else {
        "check indentation, quotes and brackets around this place"
    };
    hint.to_owned()
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw(text: &str) -> Flaw {
        let (_, flaws) = read(text);
        flaws.into_iter().next().expect("a flaw")
    }

    #[test]
    fn places_are_those_of_an_editor() {
        let (node, flaws) = read("\u{feff}# é\nname: a\ntools:\n  - name: t\n    effect: x\n");
        let node = node.unwrap();
        assert!(flaws.is_empty());
        assert_eq!(node.locate("name"), Mark { line: 2, column: 7 });
        assert_eq!(
            node.locate("tools[0].effect"),
            Mark {
                line: 5,
                column: 13
            }
        );
        assert_eq!(node.locate("tools[0].gone"), Mark { line: 4, column: 5 });
        assert_eq!(node.locate("tools"), Mark { line: 3, column: 1 });
    }

    #[test]
    fn keys_with_dots_are_found() {
        let (node, _) = read("h:\n  a.b: 1\n  a: {b: 2}\n");
        let node = node.unwrap();
        assert_eq!(node.locate("h.a.b").line, 2);
    }

    #[test]
    fn what_can_do_harm_is_refused() {
        let bomb = (0..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
            let alias = format!("*a{n},").repeat(10);
            format!("{text}a{}: &a{} [{alias}]\n", n + 1, n + 1)
        });
        assert!(flaw(&bomb).message.contains("50000 values"));
        assert!(flaw("a: !!python/object x").message.contains("tag"));
        assert!(flaw("a: &a {<<: *a}").mark.line == 1);
        assert!(flaw("a: 1\n---\nb: 2").message.contains("second document"));
        assert!(
            flaw(&format!("{}{}", "[".repeat(9000), "]".repeat(9000)))
                .mark
                .line
                == 1
        );
        assert!(flaw(&"- ".repeat(9000)).mark.line == 1);
        assert!(flaw(&" ".repeat(MAX_BYTES + 1)).message.contains("bytes"));
        assert_eq!(flaw("a: 1\nb: 2\na: 3").mark, Mark { line: 3, column: 1 });
        assert!(flaw("").message.contains("empty"));
    }

    #[test]
    fn merged_keys_do_not_replace_own_ones() {
        let (node, flaws) = read("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n");
        assert!(flaws.is_empty());
        let value = node.unwrap().to_json();
        assert_eq!(value["use"], serde_json::json!({"y": 3, "x": 1}));
    }

    #[test]
    fn json_is_read_too() {
        let (node, flaws) = read("{\n\t\"a\": [1, true, null, \"\\u00e9\\/\"],\"b\":{}}");
        assert!(flaws.is_empty(), "{flaws:?}");
        let value = node.unwrap().to_json();
        assert_eq!(
            value,
            serde_json::json!({"a": [1, true, null, "é/"], "b": {}})
        );
    }
}
