//! Reads every row of every table over a few connections that share one snapshot, and writes the rows file.
//!
//! Memory is bounded by the number of connections: rows are hashed as they arrive and kept only in the rows file's blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt as _;
use sqlx::{Connection as _, PgConnection};
use turnback_core::fingerprint::{CopyReader, Row, RowSum};
use xxhash_rust::xxh3::xxh3_128;

use super::DatabaseError;
use super::session::{execute, failed};
use super::sidecar::{TableWriter, Writer};
use super::tables::{KeyForm, Table};

/// Pages read by one statement of a table that is worth dividing: 32 MiB.
const RANGE: u64 = 4096;
/// A database with fewer pages, and fewer tables, is read sooner by one connection than a second one is opened.
const WORTH_SHARING: (u64, usize) = (1024, 64);

/// The work, largest tables first, handed out range by range.
pub(super) struct Work {
    tables: Vec<Table>,
    ranges: Vec<(usize, u64, Option<u64>)>,
    next: AtomicUsize,
    writer: Writer,
}

impl Work {
    pub(super) fn new(tables: Vec<Table>, writer: Writer) -> Self {
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(tables[index].pages));
        let mut ranges = Vec::with_capacity(tables.len());
        for index in order {
            let table = &tables[index];
            let mut first = 0;
            while table.ranges && table.pages > first + 2 * RANGE {
                ranges.push((index, first, Some(first + RANGE)));
                first += RANGE;
            }
            ranges.push((index, first, None));
        }
        Self { tables, ranges, next: AtomicUsize::new(0), writer }
    }

    /// How many connections are worth having, up to `most`.
    pub(super) fn connections(&self, most: usize) -> usize {
        let pages: u64 = self.tables.iter().map(|table| table.pages).sum();
        if pages < WORTH_SHARING.0 && self.tables.len() < WORTH_SHARING.1 { 1 } else { most.min(self.ranges.len()).max(1) }
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }
}

/// Reads everything; returns each table's sum, in the order the tables were given.
pub(super) async fn run(work: Arc<Work>, connections: Vec<PgConnection>) -> Result<Vec<RowSum>, DatabaseError> {
    let mut workers = tokio::task::JoinSet::new();
    for connection in connections {
        workers.spawn(worker(Arc::clone(&work), connection));
    }
    let mut sums = vec![RowSum::default(); work.tables.len()];
    while let Some(done) = workers.join_next().await {
        let part = done.map_err(|end| DatabaseError::Worker { problem: end.to_string() })??;
        part.into_iter().for_each(|(table, sum)| sums[table].merge(sum));
    }
    Ok(sums)
}

async fn worker(work: Arc<Work>, mut connection: PgConnection) -> Result<Vec<(usize, RowSum)>, DatabaseError> {
    let plans = "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SET enable_seqscan = off";
    execute(&mut connection, plans.to_owned(), "begin reading", "rows").await?;
    let mut sums = Vec::new();
    let mut current: Option<(usize, TableWriter<'_>)> = None;
    while let Some(&(index, first, end)) = work.ranges.get(work.next.fetch_add(1, Ordering::Relaxed)) {
        let table = &work.tables[index];
        let written = |source| DatabaseError::File { operation: "write", path: super::ROWS_FILE.into(), source };
        let mut writer = match current.take() {
            Some((same, writer)) if same == index => writer,
            other => {
                if let Some((_, finished)) = other {
                    finished.finish().map_err(written)?;
                }
                TableWriter::new(&work.writer, u32::try_from(index).unwrap_or(u32::MAX), table.expected)
            }
        };
        let sum = read_range(&mut connection, table, &table.copy(first, end), &mut writer).await?;
        sums.push((index, sum));
        current = Some((index, writer));
    }
    if let Some((_, finished)) = current {
        finished.finish().map_err(|source| DatabaseError::File { operation: "write", path: super::ROWS_FILE.into(), source })?;
    }
    // The transaction only read: nothing is lost if the goodbye does not arrive.
    let _ = connection.close().await;
    Ok(sums)
}

async fn read_range(
    connection: &mut PgConnection,
    table: &Table,
    sql: &str,
    writer: &mut TableWriter<'_>,
) -> Result<RowSum, DatabaseError> {
    const READ: &str = "read the rows of";
    let broken = |source| DatabaseError::Rows { table: table.name.clone(), source };
    let mut stream = connection.copy_out_raw(sql).await.map_err(failed(READ, &table.name))?;
    let mut reader = CopyReader::new(table.fields);
    let (mut sum, mut key, mut unwritten) = (RowSum::default(), Vec::new(), None);
    while let Some(chunk) = stream.try_next().await.map_err(failed(READ, &table.name))? {
        reader
            .feed(&chunk, |row| {
                let hash = xxh3_128(row.first(table.columns));
                sum.add(hash);
                key.clear();
                encode_key(table, row, &mut key);
                if let Err(source) = writer.push(&key, hash) {
                    unwritten = Some(source);
                }
            })
            .map_err(broken)?;
        if let Some(source) = unwritten {
            return Err(DatabaseError::File { operation: "write", path: super::ROWS_FILE.into(), source });
        }
    }
    reader.finish().map_err(broken)?;
    Ok(sum)
}

/// The key as bytes that sort as the key does: whole numbers with their sign turned, texts ended by a zero byte.
fn encode_key(table: &Table, row: &Row<'_>, out: &mut Vec<u8>) {
    for (column, &field) in table.key.iter().zip(&table.key_fields) {
        let value = row.field(field).unwrap_or_default();
        match column.form {
            KeyForm::Integer => {
                let negative = value.first().is_some_and(|first| first & 0x80 != 0);
                let mut wide = if negative { [0xff; 8] } else { [0; 8] };
                let start = 8usize.saturating_sub(value.len());
                wide[start..].copy_from_slice(&value[..8 - start]);
                wide[0] ^= 0x80;
                out.extend_from_slice(&wide);
            }
            KeyForm::Uuid => out.extend_from_slice(value),
            KeyForm::Text => {
                out.extend_from_slice(value);
                out.push(0);
            }
        }
    }
}

/// The key's values as text.
pub(super) fn decode_key(forms: impl Iterator<Item = KeyForm>, mut key: &[u8]) -> Vec<String> {
    forms
        .map(|form| {
            let text_end = key.iter().position(|&byte| byte == 0).unwrap_or(key.len());
            let length = match form {
                KeyForm::Integer => 8,
                KeyForm::Uuid => 16,
                KeyForm::Text => text_end,
            };
            let (value, rest) = key.split_at(length.min(key.len()));
            key = if form == KeyForm::Text { rest.get(1..).unwrap_or_default() } else { rest };
            match form {
                KeyForm::Integer => {
                    value.try_into().map_or_else(|_| hex::encode(value), |wide| (i64::from_be_bytes(wide) ^ i64::MIN).to_string())
                }
                KeyForm::Uuid => uuid::Uuid::from_slice(value).map_or_else(|_| hex::encode(value), |uuid| uuid.to_string()),
                KeyForm::Text => String::from_utf8_lossy(value).into_owned(),
            }
        })
        .collect()
}
