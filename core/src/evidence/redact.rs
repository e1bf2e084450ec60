//! Takes secrets out of text: those that are known, and whatever has the shape of one.
//!
//! One pass over bytes, by hand, with bounded look-back, so that a large log costs no more than reading it. It errs on the side of taking
//! out too much of a password and too little of ordinary text: words, LSNs, times, UUIDs and digests stay. It knows nothing about files.

mod known;
mod scan;

use serde_json::Value;
use std::borrow::Cow;
use std::ops::Range;

/// What stands where a secret stood.
pub const MARK: &str = "[redacted]";

/// Takes secrets out of text. Secret shapes are always on; known secrets are added as they become known.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    known: known::Known,
}

impl Redactor {
    /// A redactor that knows shapes only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A redactor that also knows these secrets.
    pub fn knowing<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Self {
        let mut redactor = Self::new();
        for secret in secrets {
            redactor.know(secret.as_ref());
        }
        redactor
    }

    /// Adds a secret, to be taken out wherever it stands: plain, percent-encoded, in base64, in hexadecimal or escaped as in JSON.
    ///
    /// Returns whether it was taken: a secret shorter than six bytes, or a word such as `postgres` that stands in every log, would blot out the
    /// report and hide nothing. Such a one is still taken out where its place gives it away (`password=…`, `postgres://u:…@h`).
    pub fn know(&mut self, secret: &str) -> bool {
        self.known.add(secret)
    }

    /// The text without its secrets, and how many were taken out.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> (Cow<'a, str>, u64) {
        match self.bytes(text.as_bytes()) {
            (Cow::Borrowed(_), count) => (Cow::Borrowed(text), count),
            (Cow::Owned(bytes), count) => (Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()), count),
        }
    }

    /// The same for text whose encoding is not known to be UTF-8, such as a server's log.
    #[must_use]
    pub fn bytes<'a>(&self, text: &'a [u8]) -> (Cow<'a, [u8]>, u64) {
        let spans = self.spans(text);
        if spans.is_empty() {
            return (Cow::Borrowed(text), 0);
        }
        let mut clean = Vec::with_capacity(text.len());
        let mut from = 0;
        for span in &spans {
            clean.extend_from_slice(&text[from..span.start]);
            clean.extend_from_slice(MARK.as_bytes());
            from = span.end;
        }
        clean.extend_from_slice(&text[from..]);
        (Cow::Owned(clean), spans.len() as u64)
    }

    /// Takes the secrets out of every string of a JSON value, those under a secret's name as a whole; returns how many.
    pub fn value(&self, value: &mut Value) -> u64 {
        match value {
            Value::String(text) => {
                let (clean, count) = self.text(text);
                if let Cow::Owned(clean) = clean {
                    *text = clean;
                }
                count
            }
            Value::Array(items) => {
                // A row's key is recorded as pairs of column and value.
                if let [Value::String(name), Value::String(held)] = items.as_mut_slice()
                    && scan::held_under(name, held)
                {
                    *held = MARK.to_owned();
                    return 1;
                }
                items.iter_mut().map(|item| self.value(item)).sum()
            }
            Value::Object(members) => members
                .iter_mut()
                .map(|(name, held)| match held {
                    Value::String(text) if scan::held_under(name, text) => {
                        *text = MARK.to_owned();
                        1
                    }
                    other => self.value(other),
                })
                .sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }

    /// Where the secrets stand: in order, apart from one another.
    fn spans(&self, text: &[u8]) -> Vec<Range<usize>> {
        let mut spans = scan::spans(text);
        self.known.find(text, &mut spans);
        spans.sort_by_key(|span| (span.start, span.end));
        let mut apart: Vec<Range<usize>> = Vec::with_capacity(spans.len());
        for span in spans {
            match apart.last_mut() {
                Some(last) if span.start < last.end => last.end = last.end.max(span.end),
                _ => apart.push(span),
            }
        }
        apart
    }
}

/// Whether a file's beginning shows that it is not text: such files are left as they are.
#[must_use]
pub fn is_binary(beginning: &[u8]) -> bool {
    beginning.iter().take(8192).any(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
