//! `turnback compare LEFT RIGHT`: every schema object and every row of two states, compared exactly.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use owo_colors::OwoColorize as _;
use turnback_core::comparison::{Change, Comparison, Difference, TableComparison};

use turnback::database::{self, Address, CompareOptions, DatabaseError, Snapshot, SnapshotOptions};

/// Compare two database states: every schema object and every row.
///
/// LEFT is the known-good state, RIGHT the one to judge; each is a PostgreSQL URL or a directory that `turnback snapshot` wrote.
/// Exit code 0 when they are equal, 1 when they differ, 2 when they cannot be compared.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The known-good state: a URL or a snapshot's directory.
    #[arg(value_name = "LEFT")]
    pub left: String,
    /// The state to judge: a URL or a snapshot's directory.
    #[arg(value_name = "RIGHT")]
    pub right: String,
    /// Count what is tolerated otherwise: sequences up to 32 values ahead, unlogged tables that came back empty.
    #[arg(long)]
    pub strict: bool,
    /// Differing rows to list per table; they are counted in any case.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rows: usize,
    /// Connections to read each database over.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The outcome: the process's exit code follows from `result.equal()`.
#[derive(Debug)]
pub struct Outcome {
    /// What was found.
    pub result: Comparison,
    /// What to print, styled for a terminal; print it through anstream, which strips the styles elsewhere.
    pub text: String,
}

impl Outcome {
    /// 0 equal, 1 different.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.result.equal())
    }
}

/// Compares the two states.
///
/// # Errors
/// Why they cannot be compared: exit code 2.
pub async fn run(args: &Args) -> Result<Outcome, DatabaseError> {
    // A live database is recorded in a directory that lives as long as the comparison.
    let scratch = tempfile::tempdir().map_err(|source| DatabaseError::File {
        operation: "create a directory in",
        path: std::env::temp_dir(),
        source,
    })?;
    let (left, right) = futures::future::try_join(
        state(&args.left, args, scratch.path().join("left")),
        state(&args.right, args, scratch.path().join("right")),
    )
    .await?;
    let result = database::compare(&left, &right, &CompareOptions { rows_shown: args.rows, strict: args.strict })?;
    let text = if args.json {
        // Maps with text keys into memory: this cannot fail.
        serde_json::to_string_pretty(&serde_json::json!({
            "equal": result.equal(), "summary": result.summary(), "left": side(&left), "right": side(&right), "comparison": result,
        }))
        .unwrap_or_default()
            + "\n"
    } else {
        render(&result)
    };
    Ok(Outcome { result, text })
}

async fn state(given: &str, args: &Args, scratch: PathBuf) -> Result<Snapshot, DatabaseError> {
    if Address::looks_like_url(given) {
        let options = SnapshotOptions { connections: usize::from(args.connections), ..SnapshotOptions::default() };
        return database::snapshot(&Address::parse(given)?, &options, &scratch).await;
    }
    if given.contains("://") {
        return Address::parse(given).and_then(|_| Snapshot::load(Path::new(given)));
    }
    let snapshot = Snapshot::load(Path::new(given))?;
    snapshot.verify()?;
    Ok(snapshot)
}

fn side(snapshot: &Snapshot) -> serde_json::Value {
    serde_json::json!({ "digest": snapshot.digest(), "server": snapshot.server() })
}

/// The result as text: schema differences grouped by kind, then tables with counts and the first keys.
#[must_use]
pub fn render(result: &Comparison) -> String {
    let mut out = String::new();
    let headline = result.summary();
    let _ = if result.equal() { writeln!(out, "{}", headline.green().bold()) } else { writeln!(out, "{}", headline.red().bold()) };
    differences(&mut out, "Schema", &result.schema);
    let width = result.damaged_tables().map(|table| table.table.chars().count()).max().unwrap_or_default();
    if width > 0 {
        let _ = writeln!(out, "\n{}", "Rows".bold());
    }
    for table in result.damaged_tables() {
        rows(&mut out, table, width);
    }
    differences(&mut out, "Tolerated", &result.tolerated);
    if !result.excluded.is_empty() {
        let _ = writeln!(out, "\n{}", "Left out".bold());
    }
    for excluded in &result.excluded {
        let _ = writeln!(out, "  {}", shown(excluded));
    }
    out
}

fn differences(out: &mut String, title: &str, all: &[Difference]) {
    if all.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", title.bold());
    let width = all.iter().map(|one| one.kind.len()).max().unwrap_or_default();
    for one in all {
        let property = if one.property.is_empty() { String::new() } else { format!(" {}", one.property.cyan()) };
        let _ = writeln!(out, "  {} {:width$}  {}{property}", mark(one.change), one.kind, shown(&one.object));
        for (sign, value) in [("-", &one.left), ("+", &one.right)] {
            if let (Some(value), Change::Changed) = (value, one.change) {
                let _ = writeln!(out, "      {sign} {}", self::value(value));
            }
        }
    }
}

fn rows(out: &mut String, table: &TableComparison, width: usize) {
    let mut counts = Vec::new();
    for (count, word) in [(table.removed, "removed"), (table.added, "added"), (table.changed, "changed")] {
        if count > 0 {
            counts.push(format!("{count} {word}"));
        }
    }
    let side = |rows: Option<u64>| rows.map_or_else(|| "no table".to_owned(), |rows| rows.to_string());
    let (before, after) = (side(table.rows_left), side(table.rows_right));
    let counts = if counts.is_empty() { "the table is on one side only".into() } else { counts.join(", ") };
    let _ = writeln!(out, "  {:width$}  {counts}  {}", shown(&table.table), format_args!("({before} → {after} rows)").dimmed());
    for row in &table.rows {
        let key: Vec<String> = row.key.iter().map(|(name, value)| format!("{}={}", shown(name), shown(value))).collect();
        let times = if row.count > 1 { format!(" ×{}", row.count) } else { String::new() };
        let _ = writeln!(out, "    {} {}{times}", mark(row.change), key.join(", "));
    }
    let listed: u64 = table.rows.iter().map(|row| row.count).sum();
    let rest = (table.added + table.removed + table.changed).saturating_sub(listed);
    if rest > 0 {
        let _ = writeln!(out, "    {}", format_args!("… and {rest} more").dimmed());
    }
}

fn mark(change: Change) -> String {
    match change {
        Change::Added => "+".green().to_string(),
        Change::Removed => "-".red().to_string(),
        Change::Changed => "~".yellow().to_string(),
    }
}

/// A definition on one line.
fn value(text: &str) -> String {
    shown(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Without control characters, and not too long: names and data come from a database and go to a terminal.
fn shown(text: &str) -> String {
    const LONGEST: usize = 110;
    let mut out = String::new();
    for character in text.chars().take(LONGEST) {
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use turnback_core::comparison::RowDifference;

    use super::*;

    #[test]
    fn text_is_grouped_counted_and_free_of_control_characters() {
        let difference = Difference {
            kind: "column".into(),
            object: "public.t.\"a\u{1b}[31m\"".into(),
            change: Change::Changed,
            property: "default".into(),
            left: Some("1".into()),
            right: None,
        };
        let row = |key: &str, change| RowDifference { change, key: vec![("id".into(), key.into())], count: 1 };
        let table = TableComparison {
            table: "public.t".into(),
            key: vec!["id".into()],
            rows_left: Some(10),
            rows_right: Some(9),
            digest_left: Some("0".into()),
            digest_right: Some("1".into()),
            added: 0,
            removed: 1,
            changed: 4,
            rows: vec![row("1", Change::Removed), row("2", Change::Changed)],
        };
        let result = Comparison { schema: vec![difference], tables: vec![table], excluded: vec!["x".into()], ..Comparison::default() };
        let text = anstream::adapter::strip_str(&render(&result)).to_string();
        let expected = "1 schema difference and 5 differing rows in 1 table\n\nSchema\n  ~ column  public.t.\"a\\u{1b}[31m\" default\n      - 1\n\n\
             Rows\n  public.t  1 removed, 4 changed  (10 → 9 rows)\n    - id=1\n    ~ id=2\n    … and 3 more\n\nLeft out\n  x\n";
        assert_eq!(text, expected);
    }
}
