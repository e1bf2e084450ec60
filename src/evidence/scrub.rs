//! Takes the secrets out of a file on disk, piece by piece: logs may be larger than memory.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use turnback_core::evidence::redact::{Redactor, is_binary};

/// How much is looked at in one go.
const PIECE: usize = 1024 * 1024;

/// A line longer than this is cut; a secret that spans the cut may stay.
const LONGEST: usize = 8 * PIECE;

/// Rewrites the file without its secrets and returns how many there were; a binary file and one without secrets stay untouched.
pub(super) fn scrub(path: &Path, redactor: &Redactor) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut clean: Option<tempfile::NamedTempFile> = None;
    let mut pending: Vec<u8> = Vec::new();
    let (mut passed, mut replaced, mut first) = (0_u64, 0, true);
    loop {
        let before = pending.len();
        (&mut file).take(PIECE as u64).read_to_end(&mut pending)?;
        let ended = pending.len() == before;
        if std::mem::take(&mut first) && is_binary(&pending) {
            return Ok(0);
        }
        let end = if ended { pending.len() } else { cut(&pending) };
        let piece = &pending[..end];
        let (text, count) = redactor.bytes(piece);
        if count > 0 && clean.is_none() {
            clean = Some(begin(path, passed)?);
        }
        if let Some(clean) = &mut clean {
            clean.write_all(&text)?;
        }
        replaced += count;
        passed += end as u64;
        pending.drain(..end);
        if ended {
            break;
        }
    }
    if let Some(clean) = clean {
        clean.as_file().set_permissions(fs::metadata(path)?.permissions())?;
        clean.persist(path)?;
    }
    Ok(replaced)
}

/// A new file beside the old one that begins with what held no secret.
fn begin(path: &Path, passed: u64) -> io::Result<tempfile::NamedTempFile> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut clean = tempfile::Builder::new().prefix(".").suffix(".part").tempfile_in(dir)?;
    io::copy(&mut File::open(path)?.take(passed), &mut clean)?;
    Ok(clean)
}

/// Where a piece may end: after a line, and not within a private key.
fn cut(pending: &[u8]) -> usize {
    const KEY: &[u8] = b"-----BEGIN ";
    let line = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let key = pending[..line].windows(KEY.len()).rposition(|window| window == KEY);
    let open = key.filter(|start| !pending[*start..line].windows(9).any(|window| window == b"-----END "));
    match open.unwrap_or(line) {
        0 if pending.len() >= LONGEST => pending.iter().rposition(|byte| *byte == b',').map_or(pending.len(), |end| end + 1),
        end => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrubbed(bytes: &[u8]) -> (Vec<u8>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, bytes).unwrap();
        let count = scrub(&path, &Redactor::knowing(["opensesame"])).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
        (fs::read(&path).unwrap(), count)
    }

    #[test]
    fn a_log_of_many_pieces_loses_every_secret_and_nothing_else() {
        let mut log = Vec::new();
        for line in 0..60_000 {
            writeln!(log, "2026-11-20 21:04:05.{line:06} LOG:  connection received: host=10.0.0.1 port={line}").unwrap();
            if line == 30_000 || line == 59_000 {
                writeln!(log, "dsn postgres://app:opensesame@db/o").unwrap();
            }
        }
        assert!(log.len() > 3 * PIECE);
        let (clean, count) = scrubbed(&log);
        let expected = String::from_utf8(log).unwrap().replace("opensesame", "[redacted]");
        assert_eq!(count, 2);
        assert!(clean == expected.into_bytes());
    }

    #[test]
    fn a_key_across_two_pieces_is_found() {
        let mut log = vec![b'a'; PIECE - 60];
        log.extend_from_slice(b"\n-----BEGIN PRIVATE KEY-----\n");
        log.extend_from_slice("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n".repeat(20).as_bytes());
        log.extend_from_slice(b"-----END PRIVATE KEY-----\nafter\n");
        let (clean, count) = scrubbed(&log);
        assert_eq!(count, 1);
        assert!(clean.ends_with(b"\n[redacted]\nafter\n"));
    }

    #[test]
    fn a_line_without_end_is_survived() {
        let (clean, _) = scrubbed(&vec![b'a'; 2 * LONGEST + 5]);
        assert_eq!(clean.len(), 2 * LONGEST + 5);
    }

    #[test]
    fn binary_and_encodings_stay() {
        for bytes in [&b"rows\0password=hunter2x"[..], b"caf\xe9 is latin1\n", b""] {
            assert_eq!(scrubbed(bytes), (bytes.to_vec(), 0));
        }
    }
}
