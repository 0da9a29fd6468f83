//! Putting all that comes into a database, in one transaction with the tables that it goes into: whoever is killed before
//! its end has changed nothing.

use std::pin::pin;

use chrono::NaiveDate;
use domain::Time;
use tokio_postgres::binary_copy::BinaryCopyInWriter;

use super::connection::Conn;
use super::copying::{connect, tables};
use super::fault::{Fault, Outcome, corrupt};
use super::settings::Settings;
use super::sql::get;
use super::{partitions, schema};
use crate::Result;
use crate::copying::{
    self, Cell, Coming, Layout, Piece, Revival, TableLayout, Target, Wish, each_line,
};

/// What is made of the rows once they are there.
const DERIVED: [&str; 2] = [
    "INSERT INTO execution_events (agent_name, event_id, execution_id)
     SELECT agent_name, event_id, id FROM executions WHERE event_id IS NOT NULL",
    "INSERT INTO execution_counts (agent_name, status, slot, n)
     SELECT agent_name, status, 0, count(*) FROM executions GROUP BY 1, 2",
];

/// What the database is, for whoever means to put something there.
///
/// # Errors
/// It can't be reached or read, or is newer than this program.
pub async fn target(settings: &Settings) -> Result<Target> {
    let mut conn = connect(settings).await?;
    Ok(look(&mut conn).await?)
}

async fn look(conn: &mut Conn) -> Outcome<Target> {
    let row = conn.query("SELECT current_database()::text", &[]).await?;
    let name: Option<String> = row.first().map(|row| get(row, 0)).transpose()?;
    let mut target = Target {
        name: name.unwrap_or_default(),
        ..Target::default()
    };
    if schema::version(conn).await? == 0 {
        return Ok(target);
    }
    for kept in tables(conn).await? {
        let any = format!("SELECT 1 FROM {} LIMIT 1", kept.name);
        if !conn.query(&any, &[]).await?.is_empty() {
            target.filled.push(kept.name.to_owned());
        }
    }
    target.alive = schema::alive(conn).await?;
    Ok(target)
}

/// Makes the database of what comes.
///
/// # Errors
/// Something is there already and was not named, it can't be reached or written, or what comes is not whole; the database
/// is as it was.
pub async fn load(settings: &Settings, mut coming: Coming, mut wish: Wish) -> Result<()> {
    let mut conn = connect(settings).await?;
    if let Some(restored) = &mut wish.restored {
        // Causes have the server's time.
        restored.at = now(&mut conn).await?.unwrap_or(restored.at);
    }
    let Some(Piece::Begin(layout)) = coming.recv().await else {
        return Err(copying::cut_off());
    };
    layout.check()?;
    // Whatever fails from here on ends with the session, and the transaction with it.
    conn.script("BEGIN; SET LOCAL lock_timeout = '15s'").await?;
    schema::take_lock(&mut conn).await?;
    clear(&mut conn, &wish).await?;
    schema::make(&mut conn, layout.schema).await?;
    prepare_months(&mut conn, &layout).await?;
    // A copy has each counter in one row.
    conn.script("ALTER TABLE usage_daily ALTER COLUMN slot SET DEFAULT 0")
        .await?;
    put_in(&mut conn, &layout, &mut coming, &wish).await?;
    conn.script("ALTER TABLE usage_daily ALTER COLUMN slot DROP DEFAULT")
        .await?;
    for sql in DERIVED {
        conn.script(sql).await?;
    }
    schema::make(&mut conn, schema::NEWEST).await?;
    if let Some(restored) = wish.restored {
        conn.query(
            "INSERT INTO restores (id, at, backup_at, source) VALUES ($1, $2, $3, $4)",
            &[
                &uuid::Uuid::new_v4(),
                &restored.at,
                &restored.backup,
                &wish.source,
            ],
        )
        .await?;
    }
    conn.script("COMMIT").await?;
    // Without it the first statements would be planned for empty tables.
    if let Err(fault) = conn.script("ANALYZE").await {
        let error = crate::Error::from(fault);
        tracing::warn!(%error, "the server has not counted the rows yet, and will by itself");
    }
    Ok(())
}

async fn now(conn: &mut Conn) -> Outcome<Option<Time>> {
    let row = conn.query("SELECT clock_timestamp()", &[]).await?;
    row.first().map(|row| get(row, 0)).transpose()
}

/// Takes away what is there, if that may be. The locks are held until the end, so that nobody can come between.
async fn clear(conn: &mut Conn, wish: &Wish) -> Result<()> {
    if schema::version(conn).await? > 0 {
        let there = tables(conn).await?;
        let names: Vec<&str> = there.iter().map(|kept| kept.name).collect();
        let lock = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "));
        conn.script(&lock).await?;
    }
    look(conn).await?.check(wish.over.as_deref())?;
    schema::unmake(conn).await?;
    Ok(())
}

async fn prepare_months(conn: &mut Conn, layout: &Layout) -> Result<()> {
    let months = layout
        .months
        .iter()
        .filter_map(|month| NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").ok());
    let months: Vec<NaiveDate> = months.collect();
    Ok(partitions::make(conn, &months).await?)
}

async fn put_in(conn: &mut Conn, layout: &Layout, coming: &mut Coming, wish: &Wish) -> Result<()> {
    let mut revival = Revival::new(layout, wish.restored)?;
    let mut next = coming.recv().await;
    for (number, table) in layout.tables.iter().enumerate() {
        if !matches!(&next, Some(Piece::Rows { table, .. }) if *table == number) {
            continue;
        }
        let types = conn.types(&table.name, &table.columns).await?;
        let sink = conn.copy_in(&copy(table)).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        let broken = |error| Fault::sql(error, false);
        while let Some(Piece::Rows {
            table: of, lines, ..
        }) = &next
            && *of == number
        {
            let mut rows: Vec<Vec<Cell>> = Vec::new();
            each_line(lines, table.columns.len(), |mut row| -> Result<()> {
                revival.row(number, &mut row)?;
                rows.push(row);
                Ok(())
            })?;
            for row in rows {
                writer.as_mut().write_raw(row).await.map_err(broken)?;
            }
            next = coming.recv().await;
        }
        writer.as_mut().finish().await.map_err(broken)?;
    }
    match next {
        Some(Piece::End) => Ok(()),
        Some(Piece::Rows { .. }) => Err(corrupt(
            "the copy",
            "it has rows of a table that it does not name, or not in its order",
        )),
        Some(Piece::Begin(_)) | None => Err(copying::cut_off()),
    }
}

fn copy(table: &TableLayout) -> String {
    format!(
        "COPY {} ({}) FROM STDIN (FORMAT binary)",
        table.name,
        table.columns.join(", ")
    )
}
