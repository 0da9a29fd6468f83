//! Taking out all that a database holds: one session, one snapshot, each table by `COPY` in binary.
//!
//! The tables are locked against being dropped, which the snapshot alone would not prevent: a month that goes while it is
//! read would leave half of itself in the copy. Reading and writing go on.

use domain::{Restored, Time};
use futures::TryStreamExt;
use tokio_postgres::binary_copy::BinaryCopyOutStream;

use super::connection::{Conn, Role};
use super::fault::{Fault, Outcome};
use super::settings::{Server, Settings};
use super::sql::get;
use super::{Postgres, partitions, schema};
use crate::Result;
use crate::copying::{self, Cell, KEPT, Kept, Layout, Lines, Piece, Pieces, TableLayout, unheard};

/// How long a copy may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(6 * 60 * 60);

impl Postgres {
    pub(super) async fn latest_restore(&self) -> Result<Option<Restored>> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(
                "SELECT at, backup_at FROM restores ORDER BY at DESC LIMIT 1",
                &[],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Restored {
            at: get(&row, 0)?,
            backup: get(&row, 1)?,
        }))
    }
}

/// A session for long work.
pub(super) async fn connect(settings: &Settings) -> Outcome<Conn> {
    let settings = Settings {
        statement_timeout: PATIENCE,
        ..settings.clone()
    };
    let server = Server::new(&settings)?;
    Conn::open(&server, Role::General).await
}

/// Takes out all that the database holds.
///
/// # Errors
/// It can't be reached or read, or whoever takes the pieces has gone.
pub async fn dump(settings: &Settings, pieces: Pieces) -> Result<()> {
    let mut conn = connect(settings).await?;
    let there = tables(&mut conn).await?;
    if there.is_empty() {
        return Err(copying::nothing());
    }
    conn.script("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .await?;
    // Before the snapshot, which the first query takes.
    let names: Vec<&str> = there.iter().map(|kept| kept.name).collect();
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
    conn.script(&lock).await?;
    let layout = layout(&mut conn, &there).await?;
    let tables = layout.tables.clone();
    send(&pieces, Piece::Begin(layout)).await?;
    for (number, table) in tables.iter().enumerate() {
        take_out(&mut conn, number, table, &pieces).await?;
    }
    send(&pieces, Piece::End).await
}

async fn send(pieces: &Pieces, piece: Piece) -> Result<()> {
    pieces.send(piece).await.map_err(|_| unheard())
}

/// The tables of ours that there are.
pub(super) async fn tables(conn: &mut Conn) -> Outcome<Vec<&'static Kept>> {
    let rows = conn
        .query(
            "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND pg_table_is_visible(oid)",
            &[],
        )
        .await?;
    let names: Vec<String> = rows.iter().map(|row| get(row, 0)).collect::<Outcome<_>>()?;
    let is_there = |kept: &&Kept| names.iter().any(|name| name == kept.name);
    Ok(KEPT.iter().filter(is_there).collect())
}

async fn layout(conn: &mut Conn, there: &[&Kept]) -> Outcome<Layout> {
    let schema = schema::version(conn).await?;
    let rows = conn.query("SELECT now()", &[]).await?;
    let taken_at: Option<Time> = rows.first().map(|row| get(row, 0)).transpose()?;
    let mut tables = Vec::new();
    for kept in there {
        tables.push(TableLayout {
            name: kept.name.to_owned(),
            columns: columns(conn, kept).await?,
        });
    }
    let months = partitions::months(conn).await?;
    Ok(Layout {
        schema,
        taken_at: taken_at.unwrap_or_default(),
        months,
        tables,
    })
}

async fn columns(conn: &mut Conn, kept: &Kept) -> Outcome<Vec<String>> {
    let sql = format!(
        "SELECT attname::text FROM pg_attribute
         WHERE attrelid = '{}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname",
        kept.name
    );
    let rows = conn.query(&sql, &[]).await?;
    let found: Vec<String> = rows.iter().map(|row| get(row, 0)).collect::<Outcome<_>>()?;
    let is_copied = |name: &String| !kept.without.contains(&name.as_str());
    Ok(found.into_iter().filter(is_copied).collect())
}

async fn take_out(
    conn: &mut Conn,
    number: usize,
    table: &TableLayout,
    pieces: &Pieces,
) -> Result<()> {
    let Some(kept) = KEPT.iter().find(|kept| kept.name == table.name) else {
        return Ok(());
    };
    let types = conn.types(&table.name, &table.columns).await?;
    let query = query(kept, table, &types);
    let copy = format!("COPY ({query}) TO STDOUT (FORMAT binary)");
    let rows = BinaryCopyOutStream::new(conn.copy_out(&copy).await?, &types);
    let mut rows = std::pin::pin!(rows);
    let mut row_cells: Vec<Cell> = Vec::with_capacity(types.len());
    let mut lines = Lines::default();
    let broken = |error| Fault::sql(error, false);
    while let Some(row) = rows.try_next().await.map_err(broken)? {
        row_cells.clear();
        for column in 0..types.len() {
            row_cells.push(row.try_get(column).map_err(broken)?);
        }
        if lines.add(&row_cells)? {
            flush(number, &mut lines, pieces).await?;
        }
    }
    flush(number, &mut lines, pieces).await
}

async fn flush(table: usize, lines: &mut Lines, pieces: &Pieces) -> Result<()> {
    if lines.count == 0 {
        return Ok(());
    }
    let Lines { bytes, count } = std::mem::take(lines);
    let piece = Piece::Rows {
        table,
        count,
        lines: bytes,
    };
    send(pieces, piece).await
}

/// The rows, in the order in which every store has them: texts by their bytes. Counters that lie in several rows are added
/// up.
fn query(kept: &Kept, table: &TableLayout, types: &[tokio_postgres::types::Type]) -> String {
    use tokio_postgres::types::Type;
    let order = if kept.order.is_empty() {
        // What numbers them in the order in which they came.
        kept.without.join(", ")
    } else {
        let by = kept.order.iter().map(|column| {
            let ty = table.position(column).and_then(|n| types.get(n));
            let collation = if ty == Some(&Type::TEXT) {
                " COLLATE \"C\""
            } else {
                ""
            };
            format!("{column}{collation}")
        });
        by.collect::<Vec<_>>().join(", ")
    };
    if !kept.without.contains(&"slot") {
        let columns = table.columns.join(", ");
        return format!("SELECT {columns} FROM {} ORDER BY {order}", table.name);
    }
    let columns = table.columns.iter().map(|column| {
        if kept.order.contains(&column.as_str()) {
            column.clone()
        } else {
            format!("sum({column})::bigint")
        }
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let by = kept.order.join(", ");
    format!(
        "SELECT {columns} FROM {} GROUP BY {by} ORDER BY {order}",
        table.name
    )
}
