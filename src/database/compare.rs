//! Compares two recorded states. Only tables whose sums differ are looked up in the rows files, part by part.

use std::collections::{BTreeMap, BTreeSet};

use turnback_core::comparison::{Change, Comparison, Difference, RowDifference, TableComparison};
use turnback_core::fingerprint::{Entries, RowJoin, RowSum};

use super::scan::decode_key;
use super::sidecar::{Reader, place, prefix};
use super::tables::KeyColumn;
use super::{DatabaseError, Snapshot, TableState};

/// Records of both sides held at once, in bytes of the rows files.
const PART_BYTES: u64 = 4 * 1024 * 1024;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct CompareOptions {
    /// Differing rows to list per table, in order of the key; the counts are exact in any case.
    pub rows_shown: usize,
    /// Whether tolerances (sequences ahead, unlogged tables empty) count as differences.
    pub strict: bool,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self { rows_shown: 20, strict: false }
    }
}

/// Compares `left` (known-good) with `right` (now).
///
/// # Errors
/// [`DatabaseError::File`] or [`DatabaseError::Damaged`] where a rows file that is needed cannot be read.
pub fn compare(left: &Snapshot, right: &Snapshot, options: &CompareOptions) -> Result<Comparison, DatabaseError> {
    let schema = left.catalog().diff(right.catalog(), options.strict);
    let mut result = Comparison { schema: schema.counted, tolerated: schema.tolerated, ..Comparison::default() };
    let mut rows = None;
    let (lefts, rights) = (by_name(left), by_name(right));
    let names: BTreeSet<&str> = lefts.keys().chain(rights.keys()).copied().collect();
    for name in names {
        let (before, after) = (lefts.get(name).copied(), rights.get(name).copied());
        if let (Some((_, l)), Some((_, r))) = (before, after)
            && !options.strict
            && l.unlogged
            && r.unlogged
            && l.rows.rows > 0
            && r.rows.rows == 0
        {
            result.tolerated.push(Difference {
                kind: "unlogged table".into(),
                object: name.into(),
                change: Change::Changed,
                property: "rows".into(),
                left: Some(l.rows.rows.to_string()),
                right: Some("0".into()),
            });
            continue;
        }
        let mut table = summary(name, before, after);
        if !table.equal() {
            if rows.is_none() {
                rows = Some((left.rows()?, right.rows()?));
            }
            if let Some((left_rows, right_rows)) = &rows {
                list(&mut table, (left_rows, before), (right_rows, after), options.rows_shown)?;
            }
        }
        result.tables.push(table);
    }
    let excluded: BTreeSet<&String> = left.excluded().iter().chain(right.excluded()).collect();
    result.excluded = excluded.into_iter().cloned().collect();
    Ok(result)
}

type Side<'a> = Option<(u32, &'a TableState)>;

fn by_name(snapshot: &Snapshot) -> BTreeMap<&str, (u32, &TableState)> {
    snapshot.tables().iter().zip(0..).map(|(table, index)| (table.name.as_str(), (index, table))).collect()
}

fn summary(name: &str, left: Side<'_>, right: Side<'_>) -> TableComparison {
    let sum = |side: Side<'_>| side.map(|(_, table)| table.rows);
    TableComparison {
        table: name.into(),
        key: key(left, right).into_iter().flatten().map(|column| column.name.clone()).collect(),
        rows_left: sum(left).map(|sum| sum.rows),
        rows_right: sum(right).map(|sum| sum.rows),
        digest_left: sum(left).map(|sum| sum.digest()),
        digest_right: sum(right).map(|sum| sum.digest()),
        added: 0,
        removed: 0,
        changed: 0,
        rows: Vec::new(),
    }
}

/// The key by which both sides' rows can be told apart. Where they have different ones, rows are told apart by their content.
fn key<'a>(left: Side<'a>, right: Side<'a>) -> Option<&'a [KeyColumn]> {
    let key = match (left, right) {
        (Some((_, l)), Some((_, r))) => (l.key == r.key).then_some(&l.key),
        (Some((_, only)), None) | (None, Some((_, only))) => Some(&only.key),
        (None, None) => None,
    };
    key.map(Vec::as_slice).filter(|key| !key.is_empty())
}

/// Finds the rows that differ, part by part of the places of their keys.
fn list(
    table: &mut TableComparison,
    (left_rows, left): (&Reader, Side<'_>),
    (right_rows, right): (&Reader, Side<'_>),
    shown: usize,
) -> Result<(), DatabaseError> {
    let key = key(left, right);
    let bytes: u64 = [(left_rows, left), (right_rows, right)]
        .iter()
        .filter_map(|(reader, side)| side.map(|(index, _)| reader.blocks(index).iter().map(|block| u64::from(block.length)).sum::<u64>()))
        .sum();
    let bits = u8::try_from(bytes.div_ceil(PART_BYTES).max(1).next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX).min(32);
    let mut join = RowJoin::new(shown);
    let (mut lefts, mut rights) = (Part::default(), Part::default());
    for part in 0..1u64 << bits {
        lefts.fill(left_rows, left, key.is_some(), bits, part)?;
        rights.fill(right_rows, right, key.is_some(), bits, part)?;
        join.part(&mut lefts.entries, &mut rights.entries);
    }
    lefts.check(left_rows, left)?;
    rights.check(right_rows, right)?;
    (table.added, table.removed, table.changed) = (join.added, join.removed, join.changed);
    table.rows = join
        .rows()
        .into_iter()
        .map(|(bytes, change, count)| RowDifference {
            change,
            key: match key {
                None => vec![("row".into(), hex::encode(bytes))],
                Some(key) => {
                    let values = decode_key(key.iter().map(|column| column.form), &bytes);
                    key.iter().map(|column| column.name.clone()).zip(values).collect()
                }
            },
            count,
        })
        .collect();
    Ok(())
}

/// One side's records of one part, and the sum of all that were read.
#[derive(Default)]
struct Part {
    entries: Entries,
    buffer: Vec<u8>,
    sum: RowSum,
}

impl Part {
    fn fill(&mut self, reader: &Reader, side: Side<'_>, by_key: bool, bits: u8, part: u64) -> Result<(), DatabaseError> {
        self.entries.clear();
        let Some((index, table)) = side else { return Ok(()) };
        // Blocks were made by the place of this side's own key, which helps only if that is what rows are told apart by.
        let made_by_it = by_key || table.key.is_empty();
        for block in reader.blocks(index) {
            let common = bits.min(block.bits);
            if made_by_it && u64::from(block.partition) >> (block.bits - common) != part >> (bits - common) {
                continue;
            }
            let (entries, sum) = (&mut self.entries, &mut self.sum);
            reader.read(block, &mut self.buffer, |key, hash| {
                let bytes = hash.to_be_bytes();
                let (at, key) = if by_key { (place(key, hash), key) } else { (place(&[], hash), bytes.as_slice()) };
                if prefix(at, bits) == part {
                    entries.push(key, hash);
                    sum.add(hash);
                }
            })?;
        }
        Ok(())
    }

    /// What was read must add up to what the snapshot says.
    fn check(&self, reader: &Reader, side: Side<'_>) -> Result<(), DatabaseError> {
        match side {
            Some((_, table)) if table.rows != self.sum => {
                Err(reader.damaged(format!("its rows of {} do not add up to what the snapshot says", table.name)))
            }
            _ => Ok(()),
        }
    }
}
