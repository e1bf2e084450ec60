//! What a comparison of two database states found: the result that checks, reports and evidence share.
//!
//! It knows nothing about how the states were read.

use serde::{Deserialize, Serialize};

/// How an object or a row differs, seen from the left state (known-good) to the right one (now).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only on the right.
    Added,
    /// Only on the left.
    Removed,
    /// On both, and not the same.
    Changed,
}

/// One property of one schema object that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The kind of object: `table`, `column`, `index`, `sequence`, …
    pub kind: String,
    /// Its name, quoted and schema-qualified the way PostgreSQL would need it: `public.dummy.amount`.
    pub object: String,
    /// Added, removed or changed.
    pub change: Change,
    /// The property that differs; empty where the whole object was added or removed.
    pub property: String,
    /// The value on the left, where there is one.
    pub left: Option<String>,
    /// The value on the right, where there is one.
    pub right: Option<String>,
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowDifference {
    /// Added (inserted), removed (deleted) or changed.
    pub change: Change,
    /// The key's columns and their values, as text; for a table without a key, the row's hash under the name `row`.
    pub key: Vec<(String, String)>,
    /// How many such rows, for a table without a key; otherwise 1.
    pub count: u64,
}

/// One table's rows, compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableComparison {
    /// Its quoted, schema-qualified name.
    pub table: String,
    /// The key by which rows were told apart; empty where there is none.
    pub key: Vec<String>,
    /// Rows on the left; `None` where the table is not there.
    pub rows_left: Option<u64>,
    /// Rows on the right.
    pub rows_right: Option<u64>,
    /// The digest of all rows on the left, in hexadecimal.
    pub digest_left: Option<String>,
    /// The digest of all rows on the right.
    pub digest_right: Option<String>,
    /// Rows inserted.
    pub added: u64,
    /// Rows deleted.
    pub removed: u64,
    /// Rows changed.
    pub changed: u64,
    /// The first differing rows, in order of the key; `added + removed + changed` says how many there are in all.
    pub rows: Vec<RowDifference>,
}

/// The whole result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Schema objects that differ, sequences' values among them.
    pub schema: Vec<Difference>,
    /// Every table compared, equal ones too.
    pub tables: Vec<TableComparison>,
    /// Differences that a stated tolerance covers (a sequence ahead by at most 32): reported, not counted.
    pub tolerated: Vec<Difference>,
    /// What was left out, and why.
    pub excluded: Vec<String>,
}

impl TableComparison {
    /// Whether every row is the same.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.rows_left.is_some() && self.rows_left == self.rows_right && self.digest_left == self.digest_right
    }
}

impl Comparison {
    /// Whether every schema object is the same.
    #[must_use]
    pub fn schema_equal(&self) -> bool {
        self.schema.is_empty()
    }

    /// Whether every row of every table is the same.
    #[must_use]
    pub fn data_equal(&self) -> bool {
        self.tables.iter().all(TableComparison::equal)
    }

    /// Whether nothing differs beyond the stated tolerances.
    #[must_use]
    pub fn equal(&self) -> bool {
        self.schema_equal() && self.data_equal()
    }

    /// The tables whose rows differ.
    pub fn damaged_tables(&self) -> impl Iterator<Item = &TableComparison> {
        self.tables.iter().filter(|table| !table.equal())
    }

    /// Rows compared on the right.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().filter_map(|table| table.rows_right).sum()
    }

    /// The same without the schema differences and the tables that the two questions answer with yes, so that only the rest counts.
    #[must_use]
    pub fn without(&self, schema: impl Fn(&Difference) -> bool, tables: impl Fn(&TableComparison) -> bool) -> Self {
        let mut rest = self.clone();
        rest.schema.retain(|difference| !schema(difference));
        rest.tables.retain(|table| !tables(table));
        rest
    }

    /// In one line: “2 schema objects and 1,000 rows in 1 table differ”.
    #[must_use]
    pub fn summary(&self) -> String {
        let plural = |count: u64, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        if self.equal() {
            let tables = plural(self.tables.len() as u64, "table", "tables");
            return format!("equal in every schema object and in all {} of {tables}", plural(self.rows(), "row", "rows"));
        }
        let mut parts = Vec::new();
        if !self.schema.is_empty() {
            parts.push(plural(self.schema.len() as u64, "schema difference", "schema differences"));
        }
        let rows: u64 = self.damaged_tables().map(|table| table.added + table.removed + table.changed).sum();
        let tables = self.damaged_tables().count() as u64;
        if tables > 0 {
            parts.push(format!("{} in {}", plural(rows, "differing row", "differing rows"), plural(tables, "table", "tables")));
        }
        parts.join(" and ")
    }
}
