//! `turnback snapshot URL --out DIR`: record a database's state.

use std::path::PathBuf;
use std::time::Duration;

use turnback::database::{self, Address, DatabaseError, Snapshot, SnapshotOptions};

/// Record the schema and every row of a database, to compare with later.
///
/// Writes DIR/snapshot.json (catalog, tables with their rows and digests, facts about the server) and DIR/rows.bin (a hash of every row
/// under its key). It only reads, in one snapshot of the database. Exit code 0 when recorded, 2 when not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The database: postgresql://USER@HOST:PORT/DATABASE, or postgresql:///DATABASE?host=/socket/directory.
    #[arg(value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub url: String,
    /// The directory to write to.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Connections to read over.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub connections: u16,
    /// Seconds that one statement may take; without it, as long as it needs.
    #[arg(long, value_name = "SECONDS")]
    pub statement_timeout: Option<u64>,
    /// A snapshot that another session exported with pg_export_snapshot() and keeps open.
    #[arg(long, value_name = "ID")]
    pub exported_snapshot: Option<String>,
    /// Print one line of JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Records the state; returns it and what to print.
///
/// # Errors
/// Why nothing was recorded: exit code 2.
pub async fn run(args: &Args) -> Result<(Snapshot, String), DatabaseError> {
    let options = SnapshotOptions {
        connections: usize::from(args.connections),
        exported_snapshot: args.exported_snapshot.clone(),
        statement_timeout: args.statement_timeout.map(Duration::from_secs),
    };
    let snapshot = database::snapshot(&Address::parse(&args.url)?, &options, &args.out).await?;
    let text = render(&snapshot, args.json);
    Ok((snapshot, text))
}

fn render(snapshot: &Snapshot, json: bool) -> String {
    let (server, directory) = (snapshot.server(), snapshot.directory().display());
    let (objects, tables, rows) = (snapshot.catalog().objects().len(), snapshot.tables().len(), snapshot.rows_total());
    if json {
        return serde_json::json!({
            "directory": directory.to_string(), "digest": snapshot.digest(), "objects": objects, "tables": tables, "rows": rows,
            "server": server, "excluded": snapshot.excluded(),
        })
        .to_string();
    }
    let mut text = format!(
        "recorded {}: {objects} schema objects, {rows} rows in {tables} tables (PostgreSQL {})\ndigest   {}\nin       {directory}\n",
        server.database,
        server.version,
        snapshot.digest()
    );
    for excluded in snapshot.excluded() {
        text += &format!("left out {excluded}\n");
    }
    text
}
