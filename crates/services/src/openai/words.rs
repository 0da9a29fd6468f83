//! Which words of an execution's life a client is sent: each once, for a stream of this format can't take anything back.

use domain::StepBody;
use engine::LiveEvent;

/// Between what is said before tools are called and what is said after.
const PAUSE: &str = "\n\n";

/// What was sent so far.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// Whether only the last words count: those before would spoil an answer that is to be JSON.
    is_quiet: bool,
    /// What was sent of the model call under way.
    sent: String,
    /// How much of that was heard in its present try, in bytes.
    heard: usize,
    /// What the latest model call said, whole, and was sent.
    latest: Option<String>,
}

/// A model call was made again, and says something else than what was sent of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diverged;

impl Words {
    /// Nothing was sent. When `is_quiet`, nothing is until the end.
    pub(super) fn new(is_quiet: bool) -> Self {
        Self {
            is_quiet,
            ..Self::default()
        }
    }

    /// The words that this event adds.
    ///
    /// # Errors
    /// What was sent does not count any more.
    pub(super) fn hear(&mut self, event: &LiveEvent) -> Result<Option<String>, Diverged> {
        match event {
            _ if self.is_quiet => Ok(None),
            LiveEvent::Delta { text, .. } => self.piece(text),
            // The try that begins may say the same; whether it does is seen as it comes.
            LiveEvent::Supersede { .. } => {
                self.heard = 0;
                Ok(None)
            }
            LiveEvent::ToolCallBegins { .. } => Ok(None),
            LiveEvent::Step(step) => match &step.body {
                StepBody::ModelCall(call) if call.purpose.is_said() => self.whole(&call.reply.text),
                _ => Ok(None),
            },
        }
    }

    /// The words that are still to be sent of the answer.
    pub(super) fn end(&mut self, output: &str) -> Option<String> {
        if output.is_empty() || self.latest.as_deref() == Some(output) {
            return None;
        }
        self.sent.clear();
        Some(self.after_pause(output))
    }

    fn piece(&mut self, text: &str) -> Result<Option<String>, Diverged> {
        let known = self.sent.as_bytes().get(self.heard..).unwrap_or_default();
        let overlap = known.len().min(text.len());
        let is_same = text.as_bytes().get(..overlap) == known.get(..overlap);
        // What is known ends where a character does, so this never cuts one.
        let (true, Some(new)) = (is_same, text.get(overlap..)) else {
            return Err(Diverged);
        };
        self.heard += text.len();
        if new.is_empty() {
            return Ok(None);
        }
        let words = self.after_pause(new);
        self.sent.push_str(new);
        Ok(Some(words))
    }

    fn whole(&mut self, text: &str) -> Result<Option<String>, Diverged> {
        let rest = text.strip_prefix(self.sent.as_str()).ok_or(Diverged)?;
        let words = (!rest.is_empty()).then(|| self.after_pause(rest));
        if !text.is_empty() {
            self.latest = Some(text.to_owned());
        }
        self.sent.clear();
        self.heard = 0;
        Ok(words)
    }

    fn after_pause(&self, words: &str) -> String {
        if self.sent.is_empty() && self.latest.is_some() {
            format!("{PAUSE}{words}")
        } else {
            words.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Seq;
    use engine::Position;
    use proptest::prelude::*;

    use super::*;

    fn position() -> Position {
        Position {
            seq: Seq::new(1),
            piece: Some((0, 0)),
        }
    }

    fn delta(text: &str) -> LiveEvent {
        let (position, text) = (position(), text.to_owned());
        LiveEvent::Delta { position, text }
    }

    fn supersede() -> LiveEvent {
        LiveEvent::Supersede {
            position: position(),
        }
    }

    fn cut(text: &str, at: usize) -> (&str, &str) {
        let at = (0..=at.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.split_at(at.unwrap_or_default())
    }

    proptest! {
        /// However a call is cut, given up and made again: if it says the same, the client has it once.
        #[test]
        fn words_are_sent_once(text in "\\PC{0,40}", cuts in prop::collection::vec(0usize..60, 0..6), before in 0usize..60) {
            let mut words = Words::default();
            let mut got = String::new();
            let mut hear = |words: &mut Words, event: &LiveEvent| {
                got.extend(words.hear(event).unwrap());
            };
            hear(&mut words, &delta(cut(&text, before).0));
            hear(&mut words, &supersede());
            let mut rest = text.as_str();
            for at in cuts {
                let (now, later) = cut(rest, at);
                hear(&mut words, &delta(now));
                rest = later;
            }
            got.extend(words.whole(&text).unwrap());
            got.extend(words.end(&text));
            prop_assert_eq!(got, text);
        }
    }

    #[test]
    fn another_answer_after_a_retry_is_not_passed_off_as_the_same() {
        let mut words = Words::default();
        assert_eq!(
            words.hear(&delta("It is 4")),
            Ok(Some("It is 4".to_owned()))
        );
        assert_eq!(words.hear(&supersede()), Ok(None));
        assert_eq!(words.hear(&delta("It is")), Ok(None));
        assert_eq!(words.hear(&delta(" five.")), Err(Diverged));
        assert_eq!(words.whole("It is five."), Err(Diverged));
    }

    #[test]
    fn what_is_said_before_and_after_tools_stands_apart() {
        let mut words = Words::default();
        assert_eq!(
            words.hear(&delta("I look.")),
            Ok(Some("I look.".to_owned()))
        );
        assert_eq!(words.whole("I look."), Ok(None));
        assert_eq!(
            words.whole("It rains."),
            Ok(Some("\n\nIt rains.".to_owned()))
        );
        assert_eq!(words.end("It rains."), None);
    }

    #[test]
    fn a_quiet_one_sends_the_last_words_alone() {
        let mut words = Words::new(true);
        assert_eq!(words.hear(&delta("{")), Ok(None));
        assert_eq!(words.end("{\"a\":1}"), Some("{\"a\":1}".to_owned()));
    }
}
