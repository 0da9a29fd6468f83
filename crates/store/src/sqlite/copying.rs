//! Taking out all that a database file holds, and making a file of it.
//!
//! It is read in one transaction, so it is of one moment; the write-ahead log can't be emptied meanwhile. It is written
//! into a file beside the database, which takes its place when it is whole: whoever is killed before that has changed
//! nothing, and a later attempt begins anew.

use std::fs;
use std::path::{Path, PathBuf};

use domain::{Restored, Time};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params_from_iter};

use super::fault::{Fault, Outcome, corrupt, internal, unavailable};
use super::sql::{Sql, micros, time};
use super::{Options, Sqlite, connection, schema};
use crate::copying::{
    self, Cell, Coming, KEPT, Kept, Layout, Lines, Piece, Pieces, Revival, TableLayout, Target,
    Wish, each_line, unheard,
};
use crate::error::refused;
use crate::{Error, Result};

/// How much of a file that is being made is kept in memory, in KiB.
const CACHE_KIB: u32 = 32 * 1024;

impl Sqlite {
    pub(super) async fn latest_restore(&self) -> Result<Option<Restored>> {
        let read = |conn: &Connection| {
            conn.first(
                "SELECT at, backup_at FROM restores ORDER BY at DESC LIMIT 1",
                [],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
            )
        };
        let Some((at, backup)) = self.readers.read(read).await? else {
            return Ok(None);
        };
        Ok(Some(Restored {
            at: time(at)?,
            backup: time(backup)?,
        }))
    }
}

/// Takes out all that the database at `path` holds.
///
/// # Errors
/// There is none, it can't be read, or whoever takes the pieces has gone.
pub async fn dump(path: PathBuf, now: Time, pieces: Pieces) -> Result<()> {
    run(move || {
        let conn = open_existing(&path)?;
        conn.execute_batch("BEGIN").map_err(Fault::from)?;
        let layout = layout(&conn, now)?;
        if layout.tables.is_empty() {
            return Err(copying::nothing());
        }
        let tables: Vec<_> = layout.tables.clone();
        send(&pieces, Piece::Begin(layout))?;
        for (number, table) in tables.iter().enumerate() {
            take_out(&conn, number, table, &pieces)?;
        }
        send(&pieces, Piece::End)
    })
    .await
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let working = tokio::task::spawn_blocking(work);
    working
        .await
        .unwrap_or_else(|_| Err(internal("a copy panicked; see the log")))
}

fn open_existing(path: &Path) -> Result<Connection> {
    if !path.is_file() {
        return Err(refused(format!(
            "there is no database at {}",
            path.display()
        )));
    }
    let conn = connection::open_reader(path, &Options::default())?;
    schema::check(&conn, path)?;
    Ok(conn)
}

fn send(pieces: &Pieces, piece: Piece) -> Result<()> {
    pieces.blocking_send(piece).map_err(|_| unheard())
}

fn layout(conn: &Connection, now: Time) -> Result<Layout> {
    let mut tables = Vec::new();
    for kept in &KEPT {
        let columns = columns(conn, kept)?;
        if !columns.is_empty() {
            tables.push(TableLayout {
                name: kept.name.to_owned(),
                columns,
            });
        }
    }
    let months = if tables.is_empty() {
        Vec::new()
    } else {
        months(conn)?
    };
    Ok(Layout {
        schema: schema::version(conn)?,
        taken_at: now,
        months,
        tables,
    })
}

/// By name: the databases have them in different orders.
fn columns(conn: &Connection, kept: &Kept) -> Result<Vec<String>> {
    let found: Vec<String> = conn.all(
        "SELECT name FROM pragma_table_info(?1) ORDER BY name",
        [kept.name],
        |row| row.get(0),
    )?;
    let is_copied = |name: &String| !kept.without.contains(&name.as_str());
    Ok(found.into_iter().filter(is_copied).collect())
}

/// The months of the ids, which begin with a time in milliseconds.
fn months(conn: &Connection) -> Result<Vec<String>> {
    let mut months: Vec<String> = Vec::new();
    let mut statement = conn
        .prepare("SELECT id FROM executions ORDER BY id")
        .map_err(Fault::from)?;
    let mut rows = statement.query([]).map_err(Fault::from)?;
    while let Some(row) = rows.next().map_err(Fault::from)? {
        let id: [u8; 16] = row.get(0).map_err(Fault::from)?;
        if let Some(month) = month(id)
            && months.last() != Some(&month)
        {
            months.push(month);
        }
    }
    Ok(months)
}

fn month(id: [u8; 16]) -> Option<String> {
    let millis = u128::from_be_bytes(id) >> 80;
    let time = Time::from_timestamp_millis(i64::try_from(millis).ok()?)?;
    // Ids of other kinds begin with anything.
    let is_of_our_time = (2020..2100).contains(&chrono::Datelike::year(&time));
    is_of_our_time.then(|| time.format("%Y-%m").to_string())
}

fn take_out(conn: &Connection, number: usize, table: &TableLayout, pieces: &Pieces) -> Result<()> {
    let order = KEPT.iter().find(|kept| kept.name == table.name);
    let order = match order.map(|kept| kept.order) {
        Some(columns) if !columns.is_empty() => columns.join(", "),
        _ => "rowid".to_owned(),
    };
    let sql = format!(
        "SELECT {} FROM {} ORDER BY {order}",
        table.columns.join(", "),
        table.name
    );
    let mut statement = conn.prepare(&sql).map_err(Fault::from)?;
    let mut rows = statement.query([]).map_err(Fault::from)?;
    let mut row_cells = Vec::with_capacity(table.columns.len());
    let mut lines = Lines::default();
    while let Some(row) = rows.next().map_err(Fault::from)? {
        row_cells.clear();
        for column in 0..table.columns.len() {
            row_cells.push(cell(row, column)?);
        }
        if lines.add(&row_cells)? {
            flush(number, &mut lines, pieces)?;
        }
    }
    flush(number, &mut lines, pieces)
}

fn flush(table: usize, lines: &mut Lines, pieces: &Pieces) -> Result<()> {
    if lines.count == 0 {
        return Ok(());
    }
    let Lines { bytes, count } = std::mem::take(lines);
    send(
        pieces,
        Piece::Rows {
            table,
            count,
            lines: bytes,
        },
    )
}

fn cell(row: &Row<'_>, column: usize) -> Outcome<Cell> {
    Ok(match row.get_ref(column)? {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(n) => Cell::Int(n),
        ValueRef::Real(n) => Cell::Real(n),
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).map_err(|error| corrupt("a row", error))?;
            Cell::Text(text.to_owned())
        }
        ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
    })
}

/// What is at `path`, for whoever means to put something there.
///
/// # Errors
/// It can't be read, or is not ours.
pub async fn target(path: PathBuf, now: Time) -> Result<Target> {
    run(move || look(&path, now)).await
}

fn look(path: &Path, now: Time) -> Result<Target> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let mut target = Target {
        name: name.to_string_lossy().into_owned(),
        ..Target::default()
    };
    if !path.exists() || path.metadata().is_ok_and(|file| file.len() == 0) {
        return Ok(target);
    }
    let conn = open_existing(path)?;
    for kept in &KEPT {
        if columns(&conn, kept)?.is_empty() {
            continue;
        }
        let sql = format!("SELECT 1 FROM {} LIMIT 1", kept.name);
        if conn.query_row(&sql, [], |_| Ok(())).is_ok() {
            target.filled.push(kept.name.to_owned());
        }
    }
    target.alive = schema::alive(&conn, now)?;
    Ok(target)
}

/// Makes the database at `path` of what comes.
///
/// # Errors
/// Something is there already and was not named, it is in use, it can't be written, or what comes is not whole; the
/// database is as it was.
pub async fn load(path: PathBuf, coming: Coming, wish: Wish) -> Result<()> {
    run(move || {
        look(&path, wish.now)?.check(wish.over.as_deref())?;
        let path = std::path::absolute(&path).map_err(|error| broken(&path, &error))?;
        let beside = beside(&path);
        forget(&beside)?;
        let made = make(&beside, coming, &wish).and_then(|()| put_in_place(&beside, &path));
        if made.is_err() {
            // What could not be removed is removed by the next attempt.
            drop(forget(&beside));
        }
        made
    })
    .await
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    path.with_file_name(name)
}

fn forget(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(broken(path, &error)),
        _ => Ok(()),
    }
}

fn broken(path: &Path, error: &std::io::Error) -> Error {
    unavailable(format!("{}: {error}", path.display()))
}

/// Writes the file. It is nobody's yet: nothing of it need be durable before it is whole.
fn make(path: &Path, mut coming: Coming, wish: &Wish) -> Result<()> {
    let path = connection::prepare(path)?;
    let mut conn = connection::open(&path, &Options::default())?;
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB};"
    ))
    .map_err(Fault::from)?;
    let Some(Piece::Begin(layout)) = coming.blocking_recv() else {
        return Err(copying::cut_off());
    };
    layout.check()?;
    schema::up_to(&mut conn, layout.schema)?;
    let tx = conn.transaction().map_err(Fault::from)?;
    put_in(&tx, &layout, &mut coming, wish)?;
    tx.commit().map_err(Fault::from)?;
    check_references(&conn)?;
    schema::up(&mut conn)?;
    if let Some(restored) = wish.restored {
        conn.run(
            "INSERT INTO restores (id, at, backup_at, source) VALUES (?1, ?2, ?3, ?4)",
            rusqlite::params![
                uuid::Uuid::new_v4().into_bytes(),
                micros(restored.at),
                micros(restored.backup),
                wish.source
            ],
        )?;
    }
    conn.close().map_err(|(_, error)| Fault::from(error))?;
    let file = fs::File::open(&path).map_err(|error| broken(&path, &error))?;
    file.sync_all().map_err(|error| broken(&path, &error))
}

fn put_in(conn: &Connection, layout: &Layout, coming: &mut Coming, wish: &Wish) -> Result<()> {
    let mut revival = Revival::new(layout, wish.restored)?;
    let inserts: Vec<String> = layout.tables.iter().map(insert).collect();
    loop {
        let (table, lines) = match coming.blocking_recv() {
            Some(Piece::Rows { table, lines, .. }) => (table, lines),
            Some(Piece::End) => return Ok(()),
            Some(Piece::Begin(_)) | None => return Err(copying::cut_off()),
        };
        let (Some(place), Some(sql)) = (layout.tables.get(table), inserts.get(table)) else {
            return Err(corrupt(
                "the copy",
                "it has rows of a table that it does not name",
            ));
        };
        let mut statement = conn.prepare_cached(sql).map_err(Fault::from)?;
        each_line(&lines, place.columns.len(), |mut row| -> Outcome<()> {
            revival.row(table, &mut row)?;
            statement.execute(params_from_iter(row.into_iter().map(value)))?;
            Ok(())
        })?;
    }
}

fn insert(table: &TableLayout) -> String {
    let marks = vec!["?"; table.columns.len()].join(", ");
    format!(
        "INSERT INTO {} ({}) VALUES ({marks})",
        table.name,
        table.columns.join(", ")
    )
}

fn value(cell: Cell) -> rusqlite::types::Value {
    use rusqlite::types::Value;
    match cell {
        Cell::Null => Value::Null,
        Cell::Int(n) => Value::Integer(n),
        Cell::Real(n) => Value::Real(n),
        Cell::Text(text) => Value::Text(text),
        Cell::Bytes(bytes) => Value::Blob(bytes),
    }
}

/// Whether all that rows refer to is there.
fn check_references(conn: &Connection) -> Result<()> {
    let found = conn.first("PRAGMA foreign_key_check", [], |row| {
        row.get::<_, String>(0)
    })?;
    match found {
        None => Ok(()),
        Some(table) => Err(corrupt(
            "the copy",
            format!("a row of {table} belongs to an execution that is not in it"),
        )),
    }
}

/// Puts a whole file in the place of the database.
fn put_in_place(made: &Path, path: &Path) -> Result<()> {
    if path.metadata().is_ok_and(|file| file.len() > 0) {
        retire(path)?;
    }
    for log in ["-wal", "-shm"] {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(log);
        forget(&path.with_file_name(name))?;
    }
    fs::rename(made, path).map_err(|error| broken(path, &error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let folder = fs::File::open(folder).map_err(|error| broken(path, &error))?;
    folder.sync_all().map_err(|error| broken(path, &error))
}

/// Moves what is in the log into the file and takes the log away: another file's log must not be found beside it. That can
/// be done only when nobody else has the file open.
fn retire(path: &Path) -> Result<()> {
    let options = Options {
        busy_timeout: std::time::Duration::from_secs(1),
        ..Options::default()
    };
    let conn = connection::open(path, &options)?;
    let mode = conn.query_row("PRAGMA journal_mode = DELETE", [], |row| {
        row.get::<_, String>(0)
    });
    match mode {
        Ok(mode) if mode == "delete" => Ok(()),
        Ok(_) | Err(_) => Err(refused(format!(
            "another process has {} open; stop it first. Nothing was changed",
            path.display()
        ))),
    }
}
