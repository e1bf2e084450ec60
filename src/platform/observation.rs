//! What one look at the application finds, wherever it runs: health and metrics over HTTP. It judges nothing.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long an answer may take.
const ANSWERED: Duration = Duration::from_secs(5);

/// What one look at the application found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observation {
    /// Whether `/healthz` answered 200.
    pub healthy: bool,
    /// The HTTP status of `/healthz`; `None` when there was no answer.
    pub status: Option<u16>,
    /// The release that answered.
    pub version: Option<String>,
    /// The sum of `orders_database_errors_total` over all kinds, since the process started.
    pub database_errors: u64,
    /// What `/healthz` says is wrong, or why there was no answer; empty when healthy.
    pub detail: String,
    /// The error lines that the log gained since the last look.
    pub log_errors: Vec<String>,
    /// The text of `/metrics`.
    pub metrics: String,
}

/// A client that asks this machine only and gives up soon; with `reuse` it keeps its connection from one request to the next.
///
/// # Errors
/// When the HTTP client cannot be made.
pub fn http_client(reuse: bool) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(1))
        .timeout(ANSWERED)
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(if reuse { usize::MAX } else { 0 })
        .build()
}

/// Looks at `/healthz` and `/metrics` of the application at `host:port`, once. The log's error lines are left to whoever has the log.
pub async fn look(client: &reqwest::Client, address: &str) -> Observation {
    let health = client.get(format!("http://{address}/healthz")).send().await;
    let (status, body) = match health {
        Ok(answer) => (Some(answer.status().as_u16()), answer.json::<HealthAnswer>().await.map_err(|e| e.without_url().to_string())),
        Err(error) => (None, Err(error.without_url().to_string())),
    };
    let metrics = match client.get(format!("http://{address}/metrics")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    };
    let (version, detail) = match body {
        Ok(answer) => {
            let failing = answer.checks.iter().filter(|c| !c.ok).map(|c| format!("{}: {}", c.name, c.detail)).collect::<Vec<_>>();
            (Some(answer.version), failing.join("; "))
        }
        Err(error) => (None, format!("no answer: {error}")),
    };
    Observation {
        healthy: status == Some(200),
        status,
        version,
        database_errors: database_errors(&metrics),
        detail,
        log_errors: Vec::new(),
        metrics,
    }
}

/// Whether a line of the application's log reports an error.
#[must_use]
pub fn is_error_line(line: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line["level"] == "ERROR")
}

#[derive(Deserialize)]
struct HealthAnswer {
    version: String,
    checks: Vec<HealthCheck>,
}

#[derive(Deserialize)]
struct HealthCheck {
    name: String,
    ok: bool,
    detail: String,
}

fn database_errors(metrics: &str) -> u64 {
    let of_kind = metrics.lines().filter(|line| line.starts_with("orders_database_errors_total"));
    of_kind.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_summed_over_kinds_and_nothing_else_is_counted() {
        let metrics = "# TYPE orders_database_errors counter\norders_database_errors_total{kind=\"corrupt_row\"} 2\n\
                       orders_database_errors_total{kind=\"decode\"} 3\norders_written_total 7\n# EOF\n";
        assert_eq!(database_errors(metrics), 5);
        assert_eq!(database_errors(""), 0);
    }
}
