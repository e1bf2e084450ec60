//! As whom PostgreSQL's servers run: PostgreSQL refuses root, so root runs them as an unprivileged account.
//!
//! It knows nothing about servers.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The accounts that root looks for, in this order.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// The account that servers run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name, for messages.
    pub name: String,
    uid: u32,
    gid: u32,
    /// Whether processes must switch to it.
    switch: bool,
}

/// Why no account can be used.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// We are root, and there is no account to step down to.
    #[error("PostgreSQL refuses to run as root, and neither of the accounts postgres and nobody exists: run Turnback as an ordinary user")]
    NoneUnprivileged,
    /// The accounts could not be read.
    #[error("/etc/passwd could not be read: {0}; run Turnback as an ordinary user")]
    Unreadable(std::io::Error),
    /// A directory could not be handed over.
    #[error("{path} could not be prepared for the account {account}: {source}; choose another --work directory")]
    NotOwned {
        /// Which.
        path: PathBuf,
        /// For whom.
        account: String,
        /// Why.
        source: std::io::Error,
    },
    /// The account cannot get to a directory.
    #[error(
        "the account {account}, which PostgreSQL runs as, cannot enter {blocked}: choose a --work directory that it can reach, for example under /var/tmp"
    )]
    Unreachable {
        /// The directory that it cannot pass.
        blocked: PathBuf,
        /// Who.
        account: String,
    },
}

impl Account {
    /// The current user, or, for root, `postgres`, else `nobody`.
    ///
    /// # Errors
    /// [`AccountError`] where root finds no other account.
    pub fn find() -> Result<Self, AccountError> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").map_err(AccountError::Unreadable);
        if uid != 0 {
            let name = passwd.ok().and_then(|text| by_uid(&text, uid)).unwrap_or_else(|| format!("uid {uid}"));
            return Ok(Self { name, uid, gid, switch: false });
        }
        let passwd = passwd?;
        let found = UNPRIVILEGED.iter().find_map(|name| by_name(&passwd, name).map(|(uid, gid)| (*name, uid, gid)));
        let (name, uid, gid) = found.ok_or(AccountError::NoneUnprivileged)?;
        Ok(Self { name: name.to_owned(), uid, gid, switch: true })
    }

    /// Whoever runs Turnback, root too: for programs that only read what root alone may see.
    #[must_use]
    pub fn current() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { name: format!("uid {uid}"), uid, gid, switch: false }
    }

    /// Whether the account may read this file (or list this directory), as far as its permission bits say.
    pub(crate) fn may_read(&self, meta: &std::fs::Metadata) -> bool {
        let shift = if meta.uid() == self.uid {
            6
        } else if meta.gid() == self.gid {
            3
        } else {
            0
        };
        let wanted = if meta.is_dir() { 0o5 } else { 0o4 };
        !self.switch || (meta.mode() >> shift) & wanted == wanted
    }

    /// The ids to switch to, where a switch is needed. Supplementary groups are dropped by the standard library with it.
    pub(crate) fn switch_to(&self) -> Option<(u32, u32)> {
        self.switch.then_some((self.uid, self.gid))
    }

    /// Creates a directory (and its parents) that the account owns, with this mode.
    pub(crate) fn make_dir(&self, path: &Path, mode: u32) -> Result<(), AccountError> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(path)
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
            .and_then(|()| self.own(path))
            .map_err(|source| AccountError::NotOwned { path: path.to_owned(), account: self.name.clone(), source })
    }

    /// Hands a file or directory over to the account.
    pub(crate) fn own(&self, path: &Path) -> std::io::Result<()> {
        match self.switch_to() {
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Makes sure that the account can get to `path`.
    ///
    /// # Errors
    /// [`AccountError::Unreachable`] naming the directory in the way.
    pub fn reach(&self, path: &Path) -> Result<(), AccountError> {
        if !self.switch {
            return Ok(());
        }
        let closed = |dir: &&Path| {
            std::fs::metadata(dir).is_ok_and(|meta| {
                let bit = if meta.uid() == self.uid {
                    0o100
                } else if meta.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                meta.mode() & bit == 0
            })
        };
        match path.ancestors().find(closed) {
            Some(blocked) => Err(AccountError::Unreachable { blocked: blocked.to_owned(), account: self.name.clone() }),
            None => Ok(()),
        }
    }
}

fn fields(line: &str) -> Option<(&str, u32, u32)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some((name, uid, gid))
}

fn by_name(passwd: &str, wanted: &str) -> Option<(u32, u32)> {
    passwd.lines().filter_map(fields).find(|(name, ..)| *name == wanted).map(|(_, uid, gid)| (uid, gid))
}

fn by_uid(passwd: &str, wanted: u32) -> Option<String> {
    passwd.lines().filter_map(fields).find(|(_, uid, _)| *uid == wanted).map(|(name, ..)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_from_passwd_lines() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        assert_eq!(by_name(passwd, "postgres"), Some((101, 104)));
        assert_eq!(by_name(passwd, "nobody"), None);
        assert_eq!(by_uid(passwd, 0).as_deref(), Some("root"));
    }

    #[test]
    fn a_closed_directory_on_the_way_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account { name: "stranger".into(), uid: 4_000_001, gid: 4_000_001, switch: true };
        assert!(matches!(stranger.reach(&inner).unwrap_err(), AccountError::Unreachable { blocked, .. } if blocked == dir.path()));
    }
}
