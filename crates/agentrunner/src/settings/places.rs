//! Where a setting that can't be used was set: there it is to be mended.

use std::collections::BTreeMap;

use super::Mistakes;

/// Where each variable was set.
pub(super) struct Places<'a> {
    pub(super) flags: &'a BTreeMap<String, String>,
    pub(super) environment: BTreeMap<String, String>,
    /// Of `.env`.
    pub(super) lines: BTreeMap<String, usize>,
}

impl Places<'_> {
    /// Says of each mistake where it is to be mended.
    pub(super) fn add_to(&self, Mistakes(mut mistakes): Mistakes) -> Mistakes {
        for mistake in &mut mistakes {
            let forms = [mistake.name.clone(), format!("{}_FILE", mistake.name)];
            if let Some(place) = forms.iter().find_map(|name| self.of(name)) {
                mistake.message.push_str(&format!(" ({place})"));
            }
        }
        Mistakes(mistakes)
    }

    fn of(&self, name: &str) -> Option<String> {
        if self.flags.contains_key(name) {
            Some("from the command line".to_owned())
        } else if self
            .environment
            .get(name)
            .is_some_and(|text| !text.is_empty())
        {
            Some("from the environment".to_owned())
        } else {
            let line = self.lines.get(name)?;
            Some(format!(".env, line {line}"))
        }
    }
}
