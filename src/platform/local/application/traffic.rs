//! Orders placed in the background, so that what a restore loses is measured on writes that the application acknowledged.

use super::Application;
use crate::clock;
use crate::wait::{Poll, Wait};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Traffic ends by itself after this long, whatever becomes of the drill.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// The pause between two orders.
const PAUSE: Duration = Duration::from_millis(20);
/// Orders go round over the first entries of the catalogue.
const PRODUCTS: i64 = 1000;

/// An order that the application said was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Acknowledged {
    /// Its id.
    pub id: i64,
    /// When the answer came.
    pub at: Timestamp,
}

/// What became of the orders placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrafficSummary {
    /// The orders that were acknowledged, in their order.
    pub acknowledged: Vec<Acknowledged>,
    /// How many orders were refused or not answered.
    pub failed: u64,
    /// The first refusal.
    pub first_failure: Option<String>,
}

impl TrafficSummary {
    /// When the last order was acknowledged.
    #[must_use]
    pub fn last_acknowledged(&self) -> Option<Timestamp> {
        self.acknowledged.last().map(|order| order.at)
    }

    /// How many orders were acknowledged after this moment: lost, when it is the one restored to.
    #[must_use]
    pub fn acknowledged_after(&self, moment: Timestamp) -> usize {
        self.acknowledged.iter().filter(|order| order.at > moment).count()
    }
}

/// Orders being placed, one after another.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    summary: Arc<Mutex<TrafficSummary>>,
    task: JoinHandle<()>,
}

impl Traffic {
    /// Begins to place orders with an application, about fifty in a second, for at most 15 minutes.
    #[must_use]
    pub fn start(application: &Application) -> Self {
        Self::at(application.client.clone(), application.address.clone())
    }

    /// The same, with the application at `host:port`.
    #[must_use]
    pub fn at(client: reqwest::Client, address: String) -> Self {
        let (stop, summary) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(TrafficSummary::default())));
        let (told, into) = (Arc::clone(&stop), Arc::clone(&summary));
        // A thread of its own: the pace does not depend on what the drill is busy with.
        let runtime = tokio::runtime::Handle::current();
        let task = tokio::task::spawn_blocking(move || {
            let mut product = 0;
            let wait = Wait::new("the orders are told to stop", LONGEST).every(PAUSE).unheard();
            let orders = wait.until(async || {
                if told.load(Ordering::Relaxed) {
                    return Ok::<_, std::convert::Infallible>(Poll::Ready(()));
                }
                product = product % PRODUCTS + 1;
                let placed = place(&client, &address, product).await;
                let mut summary = into.lock().await;
                match placed {
                    Ok(id) => summary.acknowledged.push(Acknowledged { id, at: clock::now() }),
                    Err(error) => {
                        summary.failed += 1;
                        summary.first_failure.get_or_insert(error);
                    }
                }
                Ok(Poll::NotYet("placing orders".to_owned()))
            });
            // Reaching the limit is an end like any other: what was counted until then stands.
            let _ = runtime.block_on(orders);
        });
        Self { stop, summary, task }
    }

    /// What became of the orders so far.
    pub async fn so_far(&self) -> TrafficSummary {
        self.summary.lock().await.clone()
    }

    /// Places no more orders, and returns what became of them; an order under way is waited for.
    pub async fn stop(self) -> TrafficSummary {
        self.stop.store(true, Ordering::Relaxed);
        // A task that panicked leaves what it had counted.
        let _ = self.task.await;
        self.summary.lock().await.clone()
    }
}

/// Places an order with the application at `host:port`.
///
/// # Errors
/// What it said, or that it did not answer.
pub async fn place(client: &reqwest::Client, address: &str, product: i64) -> Result<i64, String> {
    #[derive(Deserialize)]
    struct Placed {
        id: Option<i64>,
        error: Option<Refused>,
    }
    #[derive(Deserialize)]
    struct Refused {
        message: String,
    }
    let answer = client
        .post(format!("http://{address}/orders"))
        .json(&json!({ "product": product }))
        .send()
        .await
        .map_err(|e| e.without_url().to_string())?;
    let status = answer.status();
    let placed: Placed = answer.json().await.map_err(|e| e.without_url().to_string())?;
    match (placed.id, placed.error) {
        (Some(id), _) if status.is_success() => Ok(id),
        (_, Some(refused)) => Err(format!("{status}: {}", refused.message)),
        _ => Err(status.to_string()),
    }
}
