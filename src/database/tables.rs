//! Which tables hold rows, how each is read, and by which key its rows are told apart.

use sqlx::{PgConnection, Row as _};

use super::DatabaseError;
use super::session::{failed, fetch, one_text};

/// How a key column's value is kept, so that it sorts in the column's order where that is cheap, and reads as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyForm {
    /// A whole number of 2, 4 or 8 bytes.
    Integer,
    /// A UUID.
    Uuid,
    /// The text itself, in the order of its bytes.
    Text,
}

/// One column of the key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyColumn {
    /// Its name, unquoted.
    pub name: String,
    /// How its values are kept.
    pub form: KeyForm,
}

/// A table to be read.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub name: String,
    pub unlogged: bool,
    /// What follows SELECT: the table's columns, then the key's columns that must be cast to text.
    pub selected: String,
    /// How many of the selected fields are the table's own.
    pub columns: usize,
    /// How many fields are selected.
    pub fields: usize,
    pub key: Vec<KeyColumn>,
    /// Where each of the key's columns is among the selected fields.
    pub key_fields: Vec<usize>,
    /// Pages now; rows beyond them are not in the snapshot.
    pub pages: u64,
    /// How many rows to expect: more than there are rather than fewer.
    pub expected: u64,
    /// Whether it can be read in ranges of pages.
    pub ranges: bool,
}

/// Tables and materialized views with rows of their own; leaf partitions, not their parents; those of extensions too.
const TABLES: &str = r#"
SELECT c.oid::text, format('%I.%I', n.nspname, c.relname), (c.relpersistence = 'u')::text,
    (pg_relation_size(c.oid) / current_setting('block_size')::int)::text, greatest(c.reltuples, 0)::bigint::text,
    coalesce(m.amname = 'heap', false)::text, c.relkind::text, c.relispopulated::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am m ON m.oid = c.relam
WHERE c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY format('%I.%I', n.nspname, c.relname) COLLATE "C";
"#;

/// Columns in order. A value whose binary form has no function, or holds object identifiers (composites, arrays of types that are not
/// built in), is read as text, which is as exact under the pinned settings and the same in a logical copy.
const COLUMNS: &str = r#"
WITH RECURSIVE base AS (
    SELECT t.oid AS type, t.oid AS at, t.typtype, t.typbasetype, t.typelem, t.typcategory, t.typsend FROM pg_type t
    UNION ALL
    SELECT b.type, t.oid, t.typtype, t.typbasetype, t.typelem, t.typcategory, t.typsend FROM base b JOIN pg_type t ON t.oid = b.typbasetype
        WHERE b.typtype = 'd')
SELECT a.attrelid::text, a.attname::text, (b.typtype = 'c' OR b.typsend = 0 OR b.type = 'pg_catalog.record'::regtype
    OR (b.typcategory = 'A' AND b.typelem <> 0 AND (b.typelem >= 16384 OR e.typsend = 0 OR e.typtype = 'c')))::text,
    b.at::text, a.attnum::text
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN base b ON b.type = a.atttypid AND b.typtype <> 'd' LEFT JOIN pg_type e ON e.oid = b.typelem
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema'
ORDER BY a.attrelid, a.attnum;
"#;

/// Each table's key: the primary key, else the narrowest unique index over columns that cannot be NULL.
const KEYS: &str = r#"
SELECT DISTINCT ON (x.indrelid) x.indrelid::text,
    (SELECT string_agg(k.attnum::text, ' ' ORDER BY k.place) FROM unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, place)
        WHERE k.place <= x.indnkeyatts)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
WHERE x.indisunique AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL AND c.relkind IN ('r', 'm')
    AND NOT EXISTS (SELECT FROM unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum WHERE k.place <= x.indnkeyatts AND NOT a.attnotnull)
ORDER BY x.indrelid, x.indisprimary DESC, x.indnkeyatts, i.relname;
"#;

/// A page of 8 KiB holds no more rows than this; for tables that were never analysed.
const ROWS_PER_PAGE: u64 = 160;

pub(super) async fn list(connection: &mut PgConnection, excluded: &mut Vec<String>) -> Result<Vec<Table>, DatabaseError> {
    const READ: &str = "list the tables of";
    let mut columns = std::collections::HashMap::<String, Vec<Column>>::new();
    for row in fetch(connection, COLUMNS.to_owned(), READ, "the database").await? {
        let text = |index: usize| row.try_get::<String, _>(index).map_err(failed(READ, "the database"));
        columns.entry(text(0)?).or_default().push(Column {
            name: text(1)?,
            as_text: text(2)? == "true",
            base: text(3)?.parse().unwrap_or_default(),
            number: text(4)?,
        });
    }
    let mut keys = std::collections::HashMap::<String, String>::new();
    for row in fetch(connection, KEYS.to_owned(), READ, "the database").await? {
        let text = |index: usize| row.try_get::<String, _>(index).map_err(failed(READ, "the database"));
        keys.insert(text(0)?, text(1)?);
    }
    let mut tables = Vec::new();
    for row in fetch(connection, TABLES.to_owned(), READ, "the database").await? {
        let text = |index: usize| row.try_get::<String, _>(index).map_err(failed(READ, "the database"));
        let (oid, name, kind) = (text(0)?, text(1)?, text(6)?);
        if kind == "f" {
            excluded.push(format!("rows of foreign table {name}: they are kept on another server"));
            continue;
        }
        if kind == "m" && text(7)? == "false" {
            excluded.push(format!("rows of materialized view {name}: it is not populated"));
            continue;
        }
        let number = |index: usize| text(index).map(|value| value.parse::<u64>().unwrap_or_default());
        let (pages, rows) = (number(3)?, number(4)?);
        let mut table = Table {
            name,
            unlogged: text(2)? == "true",
            selected: String::new(),
            columns: 0,
            fields: 0,
            key: Vec::new(),
            key_fields: Vec::new(),
            pages,
            expected: if rows > 0 { rows } else { pages * ROWS_PER_PAGE },
            ranges: text(5)? == "true",
        };
        table.select(columns.get(&oid).map_or(&[], Vec::as_slice), keys.get(&oid).map_or("", String::as_str));
        tables.push(table);
    }
    if let Some(objects) = large_objects(connection, excluded).await? {
        tables.push(objects);
    }
    Ok(tables)
}

struct Column {
    name: String,
    as_text: bool,
    base: u32,
    number: String,
}

impl Table {
    /// Chooses what to select and where the key is in it.
    fn select(&mut self, columns: &[Column], key: &str) {
        let quoted = |column: &Column| format!("\"{}\"", column.name.replace('"', "\"\""));
        let mut selected: Vec<String> =
            columns.iter().map(|column| if column.as_text { format!("{}::text", quoted(column)) } else { quoted(column) }).collect();
        self.columns = selected.len();
        for number in key.split_whitespace() {
            let Some((place, column)) = columns.iter().enumerate().find(|(_, column)| column.number == number) else { continue };
            // int8, int2, int4; uuid; text, varchar, bpchar, name.
            let (form, field) = match column.base {
                _ if column.as_text => (KeyForm::Text, place),
                20 | 21 | 23 => (KeyForm::Integer, place),
                2950 => (KeyForm::Uuid, place),
                25 | 1043 | 1042 | 19 => (KeyForm::Text, place),
                _ => {
                    selected.push(format!("{}::text", quoted(column)));
                    (KeyForm::Text, selected.len() - 1)
                }
            };
            self.key.push(KeyColumn { name: column.name.clone(), form });
            self.key_fields.push(field);
        }
        self.fields = selected.len();
        self.selected = selected.join(", ");
    }

    /// The statement that reads pages from `first` up to, not including, `end`. The last range is open: its rows are in the snapshot.
    pub(super) fn copy(&self, first: u64, end: Option<u64>) -> String {
        let mut sql = format!("COPY (SELECT {} FROM ONLY {}", self.selected, self.name);
        if first > 0 || end.is_some() {
            sql += &format!(" WHERE ctid >= '({first},0)'::pg_catalog.tid");
        }
        if let Some(end) = end {
            sql += &format!(" AND ctid < '({end},0)'::pg_catalog.tid");
        }
        sql + ") TO STDOUT (FORMAT binary)"
    }
}

/// Large objects as a table of pages, where this role may read them.
async fn large_objects(connection: &mut PgConnection, excluded: &mut Vec<String>) -> Result<Option<Table>, DatabaseError> {
    let sql = "SELECT (SELECT count(*) FROM pg_largeobject_metadata)::text || ' ' || has_table_privilege('pg_largeobject', 'SELECT')::text \
               || ' ' || (CASE WHEN has_table_privilege('pg_largeobject', 'SELECT') THEN \
               pg_relation_size('pg_largeobject') / current_setting('block_size')::int ELSE 0 END)::text";
    let answer = one_text(connection, sql, "look for", "large objects").await?;
    let mut words = answer.split(' ');
    let (count, readable, pages) = (words.next().unwrap_or("0"), words.next() == Some("true"), words.next().unwrap_or("0"));
    if count == "0" {
        return Ok(None);
    }
    if !readable {
        excluded.push(format!("the content of {count} large objects: only a superuser may read pg_largeobject"));
        return Ok(None);
    }
    let pages = pages.parse().unwrap_or_default();
    let key = |name: &str| KeyColumn { name: name.into(), form: KeyForm::Integer };
    Ok(Some(Table {
        name: "pg_catalog.pg_largeobject".into(),
        unlogged: false,
        selected: "loid::int8, pageno, data".into(),
        columns: 3,
        fields: 3,
        key: vec![key("loid"), key("pageno")],
        key_fields: vec![0, 1],
        pages,
        expected: pages * 4,
        ranges: true,
    }))
}
