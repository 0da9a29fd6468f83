//! Long texts in messages that Slack takes.

/// How many characters a message's text has at most: what one section block takes. Slack cuts `text` off at 40,000, but
/// refuses updates of more than 4,000, and an answer is written by updates.
/// <https://docs.slack.dev/reference/block-kit/blocks/section-block>,
/// <https://docs.slack.dev/reference/methods/chat.update>
pub(super) const MOST: usize = 3000;
const FENCE: &str = "```";

/// Cuts a text into parts of at most `most` characters: between paragraphs, lines or words where it can. Code that is cut
/// is closed and opened again. A longer text has the same first parts.
pub(super) fn split(text: &str, most: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end();
    let mut is_code = false;
    loop {
        let opening = if is_code { "```\n" } else { "" };
        // Room for the fences that a cut needs.
        let room = most.saturating_sub(opening.len());
        if length(rest) <= room {
            if !rest.is_empty() || parts.is_empty() {
                parts.push(format!("{opening}{rest}"));
            }
            return parts;
        }
        let room = room.saturating_sub(FENCE.len() + 1).max(1);
        let end = cut(rest, room);
        let (part, left) = rest.split_at(end);
        let part = part.trim_end();
        let fences = part.matches(FENCE).count();
        let ends_in_code = is_code ^ (fences % 2 == 1);
        let closing = if ends_in_code { "\n```" } else { "" };
        parts.push(format!("{opening}{part}{closing}"));
        rest = if ends_in_code {
            left.strip_prefix('\n').unwrap_or(left)
        } else {
            left.trim_start()
        };
        is_code = ends_in_code;
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Where the first `room` characters are best left, in bytes; always forward.
fn cut(text: &str, room: usize) -> usize {
    let end = text
        .char_indices()
        .nth(room)
        .map_or(text.len(), |(at, _)| at);
    let window = text.get(..end).unwrap_or(text);
    // Not so early that messages become short.
    let least = end / 2;
    let found = ["\n\n", "\n", " "]
        .iter()
        .find_map(|mark| window.rfind(mark).filter(|at| *at >= least && *at > 0));
    let at = found.unwrap_or(end);
    // An escape is not to be torn: `&amp;` is five characters at most.
    let tail = window.get(..at).unwrap_or_default();
    let open = tail.rfind('&').filter(|start| {
        let escape = tail.get(*start..).unwrap_or_default();
        *start > 0 && escape.len() < 5 && !escape.contains([';', ' '])
    });
    open.unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_text_is_one_part_and_an_empty_one_too() {
        assert_eq!(split("hello", 20), ["hello"]);
        assert_eq!(split("", 20), [""]);
    }

    #[test]
    fn cuts_are_between_paragraphs_then_lines_then_words() {
        assert_eq!(
            split("aaaa aaaa\n\nbbbb bbbb bb", 18),
            ["aaaa aaaa", "bbbb bbbb bb"]
        );
        assert_eq!(
            split("aaaa aaaa\nbbbb bbbb bbb", 18),
            ["aaaa aaaa", "bbbb bbbb bbb"]
        );
        assert_eq!(split("aaaa aaaa bbbb bbbb", 18), ["aaaa aaaa", "bbbb bbbb"]);
        assert_eq!(split(&"a".repeat(30), 20).len(), 2);
    }

    #[test]
    fn code_is_closed_and_opened_again() {
        let text = "```\none two three\nfour five six\n```";
        let parts = split(text, 28);
        assert_eq!(
            parts,
            ["```\none two three\n```", "```\nfour five six\n```"]
        );
    }

    #[test]
    fn an_escape_is_not_torn() {
        let text = format!("{}&amp;{}", "a".repeat(14), "b".repeat(30));
        for part in split(&text, 20) {
            assert!(!part.contains('&') || part.contains("&amp;"), "{part}");
        }
    }

    proptest! {
        #[test]
        fn parts_fit_and_nothing_is_lost(text in "[a-z \n\u{e9}]{0,400}", most in 20usize..80) {
            let parts = split(&text, most);
            for part in &parts {
                prop_assert!(part.chars().count() <= most, "{part:?}");
            }
            let words = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(words(&parts.join(" ")), words(&text));
        }

        #[test]
        fn a_longer_text_has_the_same_first_parts(text in "[a-z \n]{0,200}", more in "[a-z]{1,100}", most in 20usize..60) {
            let before = split(&text, most);
            let after = split(&format!("{}{more}", text.trim_end()), most);
            let settled = before.len().saturating_sub(2);
            prop_assert_eq!(&before[..settled], &after[..settled]);
        }

        #[test]
        fn fences_are_even(text in "(a|b| |\n|```\n){0,120}", most in 24usize..60) {
            if text.matches("```").count() % 2 == 0 {
                for part in split(&text, most) {
                    prop_assert_eq!(part.matches("```").count() % 2, 0, "{}", part);
                }
            }
        }
    }
}
