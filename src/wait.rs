//! The one place that sleeps: wait for a named condition, with a deadline, reporting the last status seen.
//!
//! It knows nothing about what is being waited for.

use std::fmt;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How often a listener hears of a wait of which nothing new is seen.
const REMINDED: Duration = Duration::from_secs(1);

/// A wait that goes on.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// What is waited for.
    pub name: &'a str,
    /// The last status seen.
    pub status: &'a str,
    /// For how long already.
    pub elapsed: Duration,
}

type Listener = Box<dyn Fn(Waiting<'_>) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Lets one listener of the process hear of every wait, whenever a status was seen and about once a second; whoever shows progress listens.
/// A second listener is not taken.
pub fn listen(listener: impl Fn(Waiting<'_>) + Send + Sync + 'static) {
    let _taken = LISTENER.set(Box::new(listener));
}

/// What a look at the condition found.
#[derive(Debug)]
pub enum Poll<T> {
    /// It holds.
    Ready(T),
    /// Not yet; what was seen instead.
    NotYet(String),
}

/// Why a wait ended badly.
#[derive(Debug, thiserror::Error)]
pub enum WaitError<E> {
    /// The condition did not hold in time.
    #[error("{name}: not within {} s; last status: {last}", limit.as_secs_f32())]
    TimedOut {
        /// What was waited for.
        name: String,
        /// How long.
        limit: Duration,
        /// The last status seen.
        last: String,
    },
    /// Looking at it failed in a way that waiting does not mend.
    #[error("{name}: {source}")]
    Failed {
        /// What was waited for.
        name: String,
        /// The failure.
        source: E,
    },
}

/// A named wait with its deadline and its pace.
#[derive(Clone, Debug)]
pub struct Wait {
    name: String,
    limit: Duration,
    first: Duration,
    longest: Duration,
    heard: bool,
}

impl Wait {
    /// A wait for `name` (“the server accepts connections”), for at most `limit`.
    pub fn new(name: impl fmt::Display, limit: Duration) -> Self {
        Self { name: name.to_string(), limit, first: Duration::from_millis(2), longest: Duration::from_millis(50), heard: true }
    }

    /// Looks at most this often once the first, quicker looks have passed.
    #[must_use]
    pub fn every(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self.first = self.first.min(longest);
        self
    }

    /// Nobody waits for this: it goes on in the background, and listeners do not hear of it.
    #[must_use]
    pub fn unheard(mut self) -> Self {
        self.heard = false;
        self
    }

    fn tell(&self, status: &str, elapsed: Duration) {
        if let Some(listener) = LISTENER.get().filter(|_| self.heard) {
            listener(Waiting { name: &self.name, status, elapsed });
        }
    }

    /// Looks until the condition holds, fails, or the deadline passes.
    ///
    /// # Errors
    /// [`WaitError::Failed`] with what `look` returned, [`WaitError::TimedOut`] with the last status.
    #[expect(clippy::disallowed_methods, reason = "this is the wait that the rest uses")]
    pub async fn until<T, E>(&self, mut look: impl AsyncFnMut() -> Result<Poll<T>, E>) -> Result<T, WaitError<E>> {
        let start = Instant::now();
        let mut pause = self.first;
        let mut last = String::from("nothing seen yet");
        loop {
            let Some(left) = self.limit.checked_sub(start.elapsed()) else {
                return Err(WaitError::TimedOut { name: self.name.clone(), limit: self.limit, last });
            };
            self.tell(&last, start.elapsed());
            let mut looking = pin!(look());
            let reminded = async {
                loop {
                    match tokio::time::timeout(REMINDED, &mut looking).await {
                        Ok(seen) => return seen,
                        Err(_) => self.tell(&last, start.elapsed()),
                    }
                }
            };
            match tokio::time::timeout(left.max(Duration::from_millis(1)), reminded).await {
                Ok(Ok(Poll::Ready(value))) => return Ok(value),
                Ok(Ok(Poll::NotYet(status))) => last = status,
                Ok(Err(source)) => return Err(WaitError::Failed { name: self.name.clone(), source }),
                Err(_) => return Err(WaitError::TimedOut { name: self.name.clone(), limit: self.limit, last }),
            }
            tokio::time::sleep(pause.min(self.limit.saturating_sub(start.elapsed()))).await;
            pause = (pause * 3 / 2).min(self.longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_holds_ends_the_wait() {
        let mut looks = 0;
        let seen = Wait::new("three looks", Duration::from_secs(5))
            .until(async || {
                looks += 1;
                Ok::<_, std::io::Error>(if looks == 3 { Poll::Ready(looks) } else { Poll::NotYet(format!("{looks} looks")) })
            })
            .await;
        assert_eq!(seen.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_deadline_names_the_wait_and_the_last_status() {
        let end = Wait::new("the segment is archived", Duration::from_millis(20))
            .until(async || Ok::<Poll<()>, std::io::Error>(Poll::NotYet("3 segments waiting".into())))
            .await
            .unwrap_err()
            .to_string();
        assert!(end.contains("the segment is archived") && end.contains("3 segments waiting"), "{end}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_deadline() {
        let end = Wait::new("an answer", Duration::from_millis(20))
            .until(async || std::future::pending::<Result<Poll<()>, std::io::Error>>().await)
            .await;
        assert!(matches!(end, Err(WaitError::TimedOut { .. })));
    }
}
