//! The secrets of one platform: made at random, handed to the cluster through its API, never shown.

use std::fmt;
use uuid::Uuid;

/// The user that the application's database belongs to.
pub const DATABASE_USER: &str = "orders";

/// The secrets of one platform.
#[derive(Clone)]
pub struct Secrets {
    /// The access key of the S3 server.
    pub access_key: String,
    /// Its secret.
    pub access_secret: String,
    /// The password of the application's database user.
    pub database: String,
}

impl Secrets {
    /// New ones, 122 random bits each.
    #[must_use]
    pub fn generate() -> Self {
        let new = || Uuid::new_v4().simple().to_string();
        Self { access_key: new(), access_secret: new(), database: new() }
    }

    /// What must not stand in any evidence.
    #[must_use]
    pub fn values(&self) -> Vec<String> {
        vec![self.access_key.clone(), self.access_secret.clone(), self.database.clone()]
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}
