//! Secrets that are known by their value, in the forms in which they turn up.

use std::fmt;
use std::ops::Range;

/// Shorter ones would be found inside ordinary words.
const SHORTEST: usize = 6;

/// Passwords that are no secret and stand in every log as something else.
const ORDINARY: [&str; 6] = ["postgres", "password", "secret", "turnback", "orders", "example"];

/// Known secrets in all their forms. Never shown, not even for debugging.
#[derive(Clone, Default)]
pub(super) struct Known {
    forms: Vec<Vec<u8>>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} forms of known secrets", self.forms.len())
    }
}

impl Known {
    pub(super) fn add(&mut self, secret: &str) -> bool {
        if secret.len() < SHORTEST || ORDINARY.iter().any(|word| word.eq_ignore_ascii_case(secret)) {
            return false;
        }
        let json = serde_json::Value::from(secret).to_string();
        let forms = [
            secret.as_bytes().to_vec(),
            json.as_bytes()[1..json.len() - 1].to_vec(),
            percent(secret, "0123456789ABCDEF").into_bytes(),
            percent(secret, "0123456789abcdef").into_bytes(),
            base64(secret.as_bytes()).into_bytes(),
            hex::encode(secret).into_bytes(),
        ];
        for form in forms {
            if !self.forms.contains(&form) {
                self.forms.push(form);
            }
        }
        true
    }

    pub(super) fn find(&self, text: &[u8], spans: &mut Vec<Range<usize>>) {
        for form in &self.forms {
            let mut from = 0;
            while let Some(ahead) = text[from..].iter().position(|byte| *byte == form[0]) {
                let at = from + ahead;
                from = at + 1;
                if text[at..].starts_with(form) {
                    from = at + form.len();
                    spans.push(at..from);
                }
            }
        }
    }
}

fn percent(secret: &str, digits: &str) -> String {
    let digit = |value: u8| char::from(digits.as_bytes()[usize::from(value)]);
    let mut out = String::new();
    for byte in secret.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    // Without padding, so that the secret is also found where a newline follows it in what was encoded; a last, partial group is left out there.
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            let index = bits >> (18 - 6 * place) & 63;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}
