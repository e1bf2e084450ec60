//! One scratch PostgreSQL server for a test binary: a unix socket only, no syncing, gone when it is dropped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use turnback::database::{Address, connect};
use turnback::wait::{Poll, Wait};

const PORT: u16 = 5432;

/// A running server.
pub struct Scratch {
    directory: tempfile::TempDir,
    programs: PathBuf,
}

impl Scratch {
    /// Makes and starts a server.
    pub fn start() -> Self {
        let programs = programs();
        let directory = tempfile::Builder::new().prefix("turnback-test-").tempdir().expect("a scratch directory");
        give(directory.path());
        let scratch = Self { directory, programs };
        let data = scratch.data();
        scratch.run("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]);
        scratch.launch(&data);
        scratch
    }

    fn data(&self) -> String {
        self.directory.path().join("data").display().to_string()
    }

    fn launch(&self, data: &str) {
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c max_connections=60 -c wal_level=logical -c autovacuum=off",
            self.directory.path().display()
        );
        let log = self.directory.path().join("log").display().to_string();
        self.run("pg_ctl", &["start", "-w", "-D", data, "-l", &log, "-o", &options]);
    }

    /// Stops the server, copies its files, and starts the copy instead.
    pub fn become_a_physical_copy(&self) {
        let (data, copy) = (self.data(), self.directory.path().join("copy").display().to_string());
        self.run("pg_ctl", &["stop", "-w", "-m", "fast", "-D", &data]);
        duct::cmd!("cp", "-a", &data, &copy).run().expect("cp");
        duct::cmd!("rm", "-rf", &data).run().expect("rm");
        duct::cmd!("mv", &copy, &data).run().expect("mv");
        self.launch(&data);
    }

    /// A database's address.
    pub fn address(&self, database: &str) -> Address {
        Address::socket(self.directory.path(), PORT, "postgres", database)
    }

    /// Runs SQL in a database.
    pub async fn sql(&self, database: &str, sql: &str) {
        let mut connection = connect(&self.address(database)).await.expect("a connection");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|problem| panic!("{sql}: {problem}"));
        sqlx::Connection::close(connection).await.expect("a goodbye");
    }

    /// Makes a database, from a template where one is given.
    pub async fn database(&self, name: &str, template: Option<&str>) {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let template = template.map(|template| format!(" TEMPLATE {}", quoted(template))).unwrap_or_default();
        let sql = format!("CREATE DATABASE {}{template}", quoted(name));
        // A session of the template that has said goodbye may not have ended yet.
        Wait::new("the template is free", Duration::from_secs(20))
            .until(async || {
                let mut connection = connect(&self.address("postgres")).await.map_err(|problem| problem.to_string())?;
                match sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&mut connection).await {
                    Ok(_) => Ok(Poll::Ready(())),
                    Err(problem) if problem.to_string().contains("being accessed") => Ok(Poll::NotYet(problem.to_string())),
                    Err(problem) => Err(problem.to_string()),
                }
            })
            .await
            .expect("a database");
    }

    /// Whether an extension's files are installed.
    pub async fn has_extension(&self, name: &str) -> bool {
        let mut connection = connect(&self.address("postgres")).await.expect("a connection");
        sqlx::query("SELECT FROM pg_available_extensions WHERE name = $1")
            .bind(name)
            .fetch_optional(&mut connection)
            .await
            .expect("a list")
            .is_some()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.programs.join(program).display().to_string();
        let command = if rustix::process::geteuid().is_root() {
            let all = ["--reuid=postgres", "--regid=postgres", "--init-groups", "--", &program];
            duct::cmd("setpriv", all.iter().chain(arguments))
        } else {
            duct::cmd(&program, arguments)
        };
        let said = self.directory.path().join("said");
        command.dir(self.directory.path()).stdout_path(&said).stderr_to_stdout().run().unwrap_or_else(|problem| {
            panic!("{program}: {problem}: {}", std::fs::read_to_string(&said).unwrap_or_default());
        });
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let data = self.data();
        if Path::new(&data).join("postmaster.pid").exists() {
            self.run("pg_ctl", &["stop", "-w", "-m", "immediate", "-D", &data]);
        }
    }
}

/// The newest supported server programs.
fn programs() -> PathBuf {
    let debian = (14..=18).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = debian.chain(std::env::split_paths(&path)).find(|directory| directory.join("initdb").exists());
    found.expect("PostgreSQL's server programs")
}

/// Root may not run a server: the directory goes to the account that will.
fn give(directory: &Path) {
    if rustix::process::geteuid().is_root() {
        duct::cmd!("chown", "postgres:", directory).run().expect("chown");
    }
}
