//! Where a database is: a PostgreSQL URL or a unix socket. The password is kept for those that need it and never shown.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::str::FromStr as _;

use sqlx::postgres::PgConnectOptions;

use super::DatabaseError;

/// A database's address.
#[derive(Clone)]
pub struct Address {
    url: String,
    options: PgConnectOptions,
}

impl Address {
    /// Reads a PostgreSQL URL: `postgresql://user:password@host:port/database?sslmode=require`, or with `?host=/socket/directory`.
    ///
    /// # Errors
    /// [`DatabaseError::Address`], without repeating the text.
    pub fn parse(url: &str) -> Result<Self, DatabaseError> {
        let refuse = |problem: &str| Err(DatabaseError::Address { problem: problem.into() });
        if !Self::looks_like_url(url) {
            return refuse("it begins with neither postgresql:// nor postgres://");
        }
        // libpq takes a user without a host (`postgresql://me@/db?host=/run`); the URL parser wants one, and `host=` overrules it.
        let whole = if url.contains("?host=") || url.contains("&host=") { url.replacen("@/", "@localhost/", 1) } else { url.to_owned() };
        match PgConnectOptions::from_str(&whole) {
            Ok(options) => Ok(Self { url: url.to_owned(), options }),
            // The parser's own words name the part that is wrong and hold none of the URL's.
            Err(sqlx::Error::Configuration(problem)) => refuse(&problem.to_string()),
            Err(_) => refuse("it cannot be read"),
        }
    }

    /// Whether the text is meant as a URL rather than as a directory.
    #[must_use]
    pub fn looks_like_url(text: &str) -> bool {
        text.starts_with("postgresql://") || text.starts_with("postgres://")
    }

    /// A database behind the unix socket in `directory`.
    #[must_use]
    pub fn socket(directory: &Path, port: u16, user: &str, database: &str) -> Self {
        let host = directory.to_string_lossy();
        let options = PgConnectOptions::new_without_pgpass().socket(directory).port(port).username(user).database(database);
        let url = format!("postgresql:///{}?host={}&port={port}&user={}", encode(database), encode(&host), encode(user));
        Self { url, options }
    }

    /// The same server's other database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("postgresql", &self.url));
        let (before, query) = rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)));
        let authority = before.split_once('/').map_or(before, |(authority, _)| authority);
        let mut url = format!("{scheme}://{authority}/{}", encode(database));
        let kept: Vec<&str> = query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.starts_with("dbname=")).collect();
        if !kept.is_empty() {
            let _ = write!(url, "?{}", kept.join("&"));
        }
        Self { url, options: self.options.clone().database(database) }
    }

    /// The whole URL, the password included: for a child process's environment, never for a message.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's name; PostgreSQL's own default is the user's.
    #[must_use]
    pub fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }

    /// What the client connects with.
    #[must_use]
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (user, port, database) = (encode(self.options.get_username()), self.options.get_port(), encode(self.database()));
        match self.options.get_socket() {
            Some(directory) => write!(f, "postgresql://{user}@/{database}?host={}&port={port}", directory.display()),
            None => write!(f, "postgresql://{user}@{}:{port}/{database}", self.options.get_host()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Percent-encodes everything but unreserved characters.
fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_and_never_shown() {
        let address = Address::parse("postgresql://ann:s3cr%40t@db.example:6432/app?sslmode=disable").unwrap();
        assert_eq!(address.to_string(), "postgresql://ann@db.example:6432/app");
        assert!(!format!("{address:?}").contains("s3cr"));
        let other = address.with_database("a/b ?");
        assert_eq!(other.url(), "postgresql://ann:s3cr%40t@db.example:6432/a%2Fb%20%3F?sslmode=disable");
        assert_eq!(other.database(), "a/b ?");
        assert_eq!(Address::parse(other.url()).unwrap().database(), "a/b ?");
    }

    #[test]
    fn a_socket_reads_back_as_a_url() {
        let name = "Órders \"x\" select";
        let address = Address::socket(Path::new("/tmp/some dir"), 5433, "ann o", "other").with_database(name);
        let again = Address::parse(address.url()).unwrap();
        assert_eq!(again.database(), name);
        assert_eq!(again.options().get_socket().unwrap(), Path::new("/tmp/some dir"));
        assert_eq!((again.options().get_port(), again.options().get_username()), (5433, "ann o"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_repeating_it() {
        for text in ["mysql://u:geheim@h/d", "geheim", "postgresql://u:geheim@h:notaport/d", "postgresql://u:geheim@h/d?sslmode=never"] {
            let problem = Address::parse(text).unwrap_err().to_string();
            assert!(problem.contains("not a PostgreSQL URL") && !problem.contains("geheim"), "{problem}");
        }
    }
}
