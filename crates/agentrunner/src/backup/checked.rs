//! A backup that was read to its end before anything is made of it.

use std::path::Path;

use anyhow::ensure;
use domain::Time;
use serde_json::{Value, json};
use store::copying::{Kind, Survey};

use super::{Files, Head, Item, Manifest, Opened};
use crate::screen::Screen;

/// A backup in which everything is as it must be.
pub(crate) struct Checked {
    pub(crate) opened: Opened,
    pub(crate) head: Head,
    pub(crate) manifest: Manifest,
    pub(crate) survey: Survey,
    /// Its files, compared with the folder of agents.
    pub(crate) files: Files,
}

impl Checked {
    /// Reads a backup to its end.
    ///
    /// # Errors
    /// It is no backup, is damaged, of a newer version or hostile, or has another digest than it should have.
    pub(crate) fn new(
        screen: &Screen,
        mut opened: Opened,
        sha256: Option<&str>,
        config: &Path,
    ) -> anyhow::Result<Self> {
        if let Some(wanted) = sha256 {
            ensure!(
                wanted.trim().eq_ignore_ascii_case(&opened.sha256),
                "{} has the SHA-256 {}, not the one that was given; nothing of it was used",
                opened.name,
                opened.sha256
            );
        }
        let progress = screen.progress("checking", opened.length());
        let mut survey = None;
        let mut widths = Vec::new();
        let mut files = Files::new(config);
        let read = opened.read(
            |bytes| progress.set_position(bytes),
            &mut |item| match item {
                Item::Head(head) => {
                    survey = Some(Survey::new(&head.layout)?);
                    widths = head
                        .layout
                        .tables
                        .iter()
                        .map(|table| table.columns.len())
                        .collect();
                    Ok(())
                }
                Item::File(path, content) => files.add(path, content).map(drop),
                Item::Rows(table, lines) => {
                    let (Some(survey), Some(width)) = (&mut survey, widths.get(table)) else {
                        anyhow::bail!("rows come before the head");
                    };
                    let lines = lines.strip_suffix(b"\n").unwrap_or(&lines);
                    for line in lines.split(|byte| *byte == b'\n') {
                        survey.line(table, line, *width)?;
                    }
                    Ok(())
                }
            },
        );
        progress.finish_and_clear();
        let refused = |error: anyhow::Error| error.context(format!("{} is refused", opened.name));
        let (head, manifest) = read.map_err(refused)?;
        let Some(survey) = survey else {
            anyhow::bail!("{} is refused: it has no head", opened.name);
        };
        Ok(Self {
            opened,
            head,
            manifest,
            survey,
            files,
        })
    }

    /// What is in it.
    pub(crate) fn about(&self) -> Value {
        json!({
            "sha256": self.opened.sha256,
            "bytes": self.opened.length(),
            "taken_at": self.head.layout.taken_at,
            "made_by": self.head.product,
            "store": self.head.store,
            "schema": self.head.layout.schema,
            "rows": self.manifest.rows(),
            "files": self.manifest.files.len(),
            "executions": self.survey.count(Kind::Over)
                + self.survey.count(Kind::Resumes)
                + self.survey.count(Kind::Waits)
                + self.survey.count(Kind::Unknown),
        })
    }

    /// How what is in it goes on, when it is restored at `now`: rows to show.
    pub(crate) fn how_it_goes_on(&self, now: Time) -> Vec<Value> {
        let row = |what: &str, count: u64, then: &str, which: Vec<String>| json!({ "what": what, "count": count, "then": then, "which": which });
        let some = |kind: Kind| {
            let ids = self.survey.some(kind).into_iter();
            ids.map(|id| id.to_string()).collect::<Vec<_>>()
        };
        let schedules = self.survey.schedules();
        let is_late = |due: &Option<Time>| due.is_some_and(|due| due <= now);
        let late: Vec<String> = schedules
            .iter()
            .filter(|(_, due)| is_late(due))
            .take(20)
            .map(|(name, _)| name.clone())
            .collect();
        let overdue = self.survey.overdue(now);
        vec![
            row(
                "executions over",
                self.survey.count(Kind::Over),
                "stay as they ended",
                Vec::new(),
            ),
            row(
                "executions under way",
                self.survey.count(Kind::Resumes),
                "go on; before an unsafe call a person is asked",
                Vec::new(),
            ),
            row(
                "executions that wait for a person",
                self.survey.count(Kind::Waits),
                "wait on: agentrunner inbox list",
                some(Kind::Waits),
            ),
            row(
                "executions in the middle of an unsafe call",
                self.survey.count(Kind::Unknown),
                "a person says whether it happened: agentrunner inbox list",
                some(Kind::Unknown),
            ),
            row(
                "of these past their deadline",
                overdue,
                "end as timed out",
                Vec::new(),
            ),
            row(
                "schedules at work",
                schedules.len() as u64,
                "go on",
                Vec::new(),
            ),
            row(
                "of these with fire times missed",
                schedules.iter().filter(|(_, due)| is_late(due)).count() as u64,
                "act by their misfire_policy; before an unsafe call a person is asked",
                late,
            ),
        ]
    }
}
