//! What somebody should know before the schema is changed: who works with the database, how large it is, and what going back
//! loses. Read out of the migrations themselves, so that it can't be forgotten for a new one.

/// A database before its schema is changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The workers that were heard of within the last minute.
    pub alive: Vec<String>,
    /// Sessions of others, in words; a database in a file has none.
    pub sessions: Vec<String>,
    /// Transactions that have been open for long and would hold a change up, in words.
    pub blockers: Vec<String>,
    /// The tables with the most rows, largest first.
    pub tables: Vec<TableSize>,
}

/// How large a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// Its name.
    pub name: String,
    /// How many rows; estimated, where counting would take long.
    pub rows: u64,
    /// With its indexes, in bytes; none where only the whole file has a size.
    pub bytes: Option<u64>,
}

/// How many tables are told of.
pub(crate) const TOLD: usize = 5;

/// What is lost when a migration is undone, in words; nothing when there is nothing that only it has a place for.
pub(crate) fn losses(down: &str) -> Vec<String> {
    let mut lost = Vec::new();
    for statement in statements(down) {
        let words: Vec<&str> = statement
            .split([' ', ','])
            .filter(|word| !word.is_empty())
            .collect();
        match words.as_slice() {
            ["DROP", "TABLE", name, ..] => lost.push(format!("table {name}")),
            ["ALTER", "TABLE", name, rest @ ..] => {
                let columns = rest.windows(3).filter_map(|three| match three {
                    ["DROP", "COLUMN", column] => Some(*column),
                    _ => None,
                });
                lost.extend(columns.map(|column| format!("column {name}.{column}")));
            }
            _ => {}
        }
    }
    lost
}

/// The tables that are there before a migration and are gone through by it.
pub(crate) fn touched(up: &str) -> Vec<String> {
    let mut made = Vec::new();
    let mut touched: Vec<String> = Vec::new();
    for statement in statements(up) {
        let words: Vec<&str> = statement
            .split([' ', '('])
            .filter(|word| !word.is_empty())
            .collect();
        let table = match words.as_slice() {
            ["CREATE", "TABLE", name, ..] => {
                made.push((*name).to_owned());
                continue;
            }
            ["CREATE", "INDEX", _, "ON", name, ..]
            | ["CREATE", "UNIQUE", "INDEX", _, "ON", name, ..]
            | ["UPDATE", name, ..] => (*name).to_owned(),
            _ => continue,
        };
        if !made.contains(&table) && !touched.contains(&table) {
            touched.push(table);
        }
    }
    touched
}

/// The statements of a script, each on one line and without comments. What a function's body holds are statements, too,
/// and no harm.
fn statements(script: &str) -> Vec<String> {
    let without_comments = script
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default());
    let all = without_comments.collect::<Vec<_>>().join(" ");
    let each = all
        .split(';')
        .map(|one| one.split_whitespace().collect::<Vec<_>>().join(" "));
    each.filter(|one| !one.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_going_back_loses_is_told() {
        let down = "-- They would wait for ever.\nUPDATE executions SET due_at = 1;\nDROP INDEX executions_turn;
            ALTER TABLE executions DROP COLUMN place, DROP COLUMN waits_turn;\nDROP TABLE errands;";
        assert_eq!(
            losses(down),
            [
                "column executions.place",
                "column executions.waits_turn",
                "table errands"
            ]
        );
        assert_eq!(losses("DROP INDEX inputs_open;"), [""; 0]);
    }

    #[test]
    fn only_what_is_there_before_is_gone_through() {
        let up = "CREATE TABLE a (x integer);\nCREATE INDEX a_x ON a (x);\nALTER TABLE b ADD COLUMN y text;
            CREATE UNIQUE INDEX b_y ON b (y);\nCREATE INDEX c_z ON c(z); UPDATE c SET z = 1;";
        assert_eq!(touched(up), ["b", "c"]);
    }
}
