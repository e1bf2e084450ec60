//! Finds what has the shape of a secret.

use std::ops::Range;

/// The longest value that is taken for one secret; what is longer is a document.
const LONGEST: usize = 8 * 1024;

/// Prefixes that services give their keys: prefix, fewest characters after it, and the punctuation allowed among them.
const PREFIXES: &[(&[u8], usize, &[u8])] = &[
    (b"AKIA", 16, b""),
    (b"ASIA", 16, b""),
    (b"AIza", 30, b"_-"),
    (b"AGE-SECRET-KEY-1", 40, b""),
    (b"SG.", 40, b"._-"),
    (b"dop_v1_", 40, b""),
    (b"ghp_", 20, b""),
    (b"gho_", 20, b""),
    (b"ghu_", 20, b""),
    (b"ghs_", 20, b""),
    (b"ghr_", 20, b""),
    (b"github_pat_", 20, b"_"),
    (b"glpat-", 16, b"_-"),
    (b"hf_", 30, b""),
    (b"hvs.", 20, b"_-"),
    (b"npm_", 30, b""),
    (b"pypi-", 40, b"_-"),
    (b"rk_live_", 16, b""),
    (b"sk_live_", 16, b""),
    (b"sk_test_", 16, b""),
    (b"sk-", 32, b"_-"),
    (b"xoxa-", 10, b"-"),
    (b"xoxb-", 10, b"-"),
    (b"xoxp-", 10, b"-"),
    (b"xoxr-", 10, b"-"),
    (b"xoxs-", 10, b"-"),
];

/// How surely a name says that its value is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strength {
    /// Whatever the value.
    Strong,
    /// Only a value that looks like one: `token` is also a word of grammars.
    Weak,
    /// A header whose whole line is secret.
    Line,
}

/// Everything in `text` that has the shape of a secret; in order and apart.
pub(super) fn spans(text: &[u8]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    let mut word_before = false;
    while at < text.len() {
        let byte = text[at];
        let found = match byte {
            b':' if text[at..].starts_with(b"://") => url(text, at),
            b':' | b'=' => assigned(text, at),
            b'-' if text[at..].starts_with(b"-----BEGIN ") => pem(text, at),
            b'-' if text[at..].starts_with(b"--") && !word_before => flag(text, at),
            b'A' | b'B' | b'P' | b'S' | b'a' | b'b' | b'd' | b'e' | b'g' | b'h' | b'm' | b'n' | b'p' | b'r' | b's' | b'x'
                if !word_before =>
            {
                token(text, at)
            }
            _ => None,
        };
        let found = found.or_else(|| if at == 0 || text[at - 1] == b'\n' { password_file(text, at) } else { None });
        let next = match found {
            Some(span) => {
                let end = span.end;
                spans.push(span);
                end.max(at + 1)
            }
            None => at + 1,
        };
        word_before = is_word(text[next - 1]);
        at = next;
    }
    spans
}

/// Whether a value under this name is a secret as a whole.
pub(super) fn held_under(name: &str, value: &str) -> bool {
    strength(name.as_bytes()).is_some_and(|strength| is_secret(strength, value.as_bytes()))
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn strength(name: &[u8]) -> Option<Strength> {
    // Decides most names by their last letter: this runs for every colon of every log.
    if name.len() < 3 || !matches!(name[name.len() - 1] | 32, b'd' | b'e' | b't' | b'n' | b'y' | b's' | b'h') {
        return None;
    }
    let plain: Vec<u8> = name.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    const STRONG: &[&[u8]] = &[
        b"password",
        b"passwd",
        b"passphrase",
        b"apikey",
        b"secretkey",
        b"secretaccesskey",
        b"privatekey",
        b"accountkey",
        b"clientsecret",
        b"sharedsecret",
        b"webhooksecret",
        b"accesstoken",
        b"refreshtoken",
        b"authtoken",
        b"apitoken",
        b"bearertoken",
        b"sessiontoken",
        b"idtoken",
        b"securitytoken",
        b"xamzsignature",
        b"xamzcredential",
    ];
    const WEAK: &[&[u8]] = &[b"secret", b"token", b"credential", b"credentials", b"pwd", b"accesskey", b"encryptionkey", b"auth", b"pass"];
    if matches!(plain.as_slice(), b"authorization" | b"proxyauthorization" | b"cookie" | b"setcookie") {
        Some(Strength::Line)
    } else if STRONG.iter().any(|end| plain.ends_with(end)) {
        Some(Strength::Strong)
    } else if WEAK.iter().any(|end| plain.ends_with(end)) {
        Some(Strength::Weak)
    } else {
        None
    }
}

fn is_secret(strength: Strength, value: &[u8]) -> bool {
    let placeholder = value.is_empty()
        || value.starts_with(super::MARK.as_bytes())
        || value.len() >= 3 && value.iter().all(|byte| b"*.x-?".contains(byte))
        || matches!(value[0], b'$' | b'%' | b'<' | b'{') && value.len() < 48 && !value.starts_with(b"$2")
        || [&b"null"[..], b"none", b"nil", b"true", b"false", b"undefined", b"redacted", b"(hidden)"]
            .iter()
            .any(|word| value.eq_ignore_ascii_case(word));
    if placeholder {
        return false;
    }
    match strength {
        Strength::Strong | Strength::Line => true,
        Strength::Weak => looks_random(value, 8),
    }
}

/// Letters and digits mixed, without a path or a sentence in it.
fn looks_random(value: &[u8], fewest: usize) -> bool {
    value.len() >= fewest
        && value.iter().any(u8::is_ascii_digit)
        && value.iter().any(u8::is_ascii_alphabetic)
        && !value.iter().any(|byte| byte.is_ascii_whitespace())
        && !value.starts_with(b"/")
        && !value.starts_with(b"./")
}

/// `name: value`, `name=value`, `"name": "value"`, also escaped inside another string.
fn assigned(text: &[u8], at: usize) -> Option<Range<usize>> {
    let mut end = at;
    while end > 0 && at - end < 4 && matches!(text[end - 1], b' ' | b'\t' | b'"' | b'\'' | b'\\' | b':') {
        end -= 1;
    }
    let mut start = end;
    while start > 0 && end - start < 64 && (is_word(text[start - 1]) || matches!(text[start - 1], b'-' | b'.')) {
        start -= 1;
    }
    let strength = strength(&text[start..end])?;
    let mut from = at + 1;
    while from < text.len() && from - at < 12 && matches!(text[from], b' ' | b'\t' | b'=' | b'>') {
        from += 1;
    }
    value(text, from, strength)
}

/// `--password value`; with `=` it is an assignment.
fn flag(text: &[u8], at: usize) -> Option<Range<usize>> {
    let start = at + 2;
    let end = (start..text.len().min(start + 64)).find(|i| !is_word(text[*i]) && text[*i] != b'-')?;
    let strength = strength(&text[start..end])?;
    let from = if matches!(text[end], b' ') { end + 1 } else { return None };
    if text.get(from).is_none_or(|byte| *byte == b'-') {
        return None;
    }
    value(text, from, strength)
}

/// The value that begins at `from`, quotes left standing, if it is a secret.
fn value(text: &[u8], from: usize, strength: Strength) -> Option<Range<usize>> {
    let mut start = from;
    while start < text.len() && start - from < 4 && text[start] == b'\\' {
        start += 1;
    }
    let quote = text.get(start).copied().filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
    let limit = text.len().min(from.saturating_add(LONGEST));
    let (start, mut end) = match quote {
        Some(quote) => {
            let opened = start - from;
            let start = start + 1;
            let mut end = start;
            while end < limit && text[end] != b'\n' {
                if text[end] == quote {
                    break;
                }
                // Inside a plain quote a backslash hides what follows it; inside an escaped one it belongs to the closing quote.
                end += if text[end] == b'\\' && opened == 0 { 2 } else { 1 };
            }
            let end = end.min(limit);
            let slashes = text[start..end].iter().rev().take(opened).take_while(|byte| **byte == b'\\').count();
            (start, end - slashes)
        }
        None if strength == Strength::Line => {
            let end = (from..limit).find(|i| matches!(text[*i], b'\n' | b'\r' | b'"')).unwrap_or(limit);
            (from, end)
        }
        None => {
            let end =
                (from..limit).find(|i| text[*i].is_ascii_whitespace() || matches!(text[*i], b'"' | b'\'' | b'`' | b'&')).unwrap_or(limit);
            (from, end)
        }
    };
    if quote.is_none() {
        while end > start
            && matches!(text[end - 1], b',' | b';' | b')' | b'}' | b']' | b'\\' | b'.' | b'|')
            && !text[start..end].ends_with(super::MARK.as_bytes())
        {
            end -= 1;
        }
    }
    is_secret(strength, &text[start..end]).then_some(start..end)
}

/// The password in `scheme://user:password@host`.
fn url(text: &[u8], at: usize) -> Option<Range<usize>> {
    let from = at + 3;
    let limit = text.len().min(from + 1024);
    let end = (from..limit)
        .find(|i| text[*i].is_ascii_whitespace() || matches!(text[*i], b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'`'))
        .unwrap_or(limit);
    // A password may hold an “@” that nobody encoded, so the last one ends it; one with an unencoded “/” or “?” ends at the host's “@” behind it.
    let host = match text[from..end].iter().rposition(|byte| *byte == b'@') {
        Some(place) => from + place,
        None => {
            text[from..end].iter().position(|byte| *byte == b':')?;
            let line =
                (from..limit).find(|i| text[*i].is_ascii_whitespace() || matches!(text[*i], b'"' | b'\'' | b'<' | b'`')).unwrap_or(limit);
            let place = from + text[from..line].iter().position(|byte| *byte == b'@')?;
            // host:port/path?x=a@b is an address without a password.
            let port = text[from..end].iter().rposition(|byte| *byte == b':').map(|colon| &text[from + colon + 1..end])?;
            if port.iter().all(u8::is_ascii_digit) || port.ends_with(b"]") {
                return None;
            }
            place
        }
    };
    let colon = from + text[from..host].iter().position(|byte| *byte == b':')?;
    let password = &text[colon + 1..host];
    (!password.is_empty() && password != super::MARK.as_bytes()).then_some(colon + 1..host)
}

/// A private key in PEM, with its armour; to the end of the text where its own end is missing.
fn pem(text: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    let head = &rest[..rest.len().min(64)];
    find(head, b"PRIVATE KEY")?;
    let end = match find(rest, b"-----END ") {
        Some(end) => end + b"-----END ".len() + find(&rest[end + b"-----END ".len()..], b"-----").map_or(0, |armour| armour + 5),
        None => rest.len(),
    };
    Some(at..at + end)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Words that are secrets themselves or announce one.
fn token(text: &[u8], at: usize) -> Option<Range<usize>> {
    let rest = &text[at..];
    for (prefix, fewest, among) in PREFIXES {
        if rest.starts_with(prefix) {
            let body = &rest[prefix.len()..];
            let length = body.iter().take_while(|byte| byte.is_ascii_alphanumeric() || among.contains(byte)).count();
            if length >= *fewest && body[..length].iter().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()) {
                return Some(at..at + prefix.len() + length);
            }
        }
    }
    match rest[0] | 32 {
        b'b' => announced(rest, b"bearer ").or_else(|| announced(rest, b"basic ")),
        b'e' => web_token(rest),
        b'm' => md5_password(rest),
        b'p' => sql_password(rest),
        b's' => scram_verifier(rest),
        _ => None,
    }
    .map(|span| at + span.start..at + span.end)
}

/// `Bearer …` and `Basic …`; not “basic authentication”.
fn announced(rest: &[u8], word: &[u8]) -> Option<Range<usize>> {
    if rest.len() <= word.len() || !rest[..word.len()].eq_ignore_ascii_case(word) {
        return None;
    }
    let body = &rest[word.len()..];
    let length = body.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"._~+/=-".contains(byte)).count();
    let random = body[..length].iter().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    (length >= 8 && random).then_some(word.len()..word.len() + length)
}

/// A JSON Web Token: three parts in base64url, the first two objects.
fn web_token(rest: &[u8]) -> Option<Range<usize>> {
    if !rest.starts_with(b"eyJ") {
        return None;
    }
    let part = |from: usize| from + rest[from..].iter().take_while(|byte| is_word(**byte) || **byte == b'-').count();
    let first = part(0);
    if first < 12 || rest.get(first) != Some(&b'.') || !rest[first + 1..].starts_with(b"eyJ") {
        return None;
    }
    let second = part(first + 1);
    let end = if rest.get(second) == Some(&b'.') { part(second + 1) } else { second };
    Some(0..end)
}

/// `md5` and 32 digits: PostgreSQL's own way to store a password.
fn md5_password(rest: &[u8]) -> Option<Range<usize>> {
    let digits = rest.starts_with(b"md5").then(|| rest[3..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count())?;
    (digits == 32 && !rest.get(35).is_some_and(|byte| is_word(*byte))).then_some(0..35)
}

/// `SCRAM-SHA-256$4096:…`: likewise.
fn scram_verifier(rest: &[u8]) -> Option<Range<usize>> {
    if !rest.starts_with(b"SCRAM-SHA-256$") {
        return None;
    }
    Some(0..rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"-$:+/=".contains(byte)).count())
}

/// `ALTER ROLE … PASSWORD '…'`.
fn sql_password(rest: &[u8]) -> Option<Range<usize>> {
    if rest.len() < 10 || !rest[..8].eq_ignore_ascii_case(b"password") {
        return None;
    }
    let blank = rest[8..].iter().take(8).take_while(|byte| byte.is_ascii_whitespace()).count();
    let mut open = 8 + blank;
    if matches!(rest.get(open), Some(b'E' | b'e')) {
        open += 1;
    }
    if blank == 0 || rest.get(open) != Some(&b'\'') {
        return None;
    }
    value(rest, open, Strength::Strong)
}

/// A line of `.pgpass`: host:port:database:user:password.
fn password_file(text: &[u8], at: usize) -> Option<Range<usize>> {
    let line = &text[at..text.len().min(at + 512)];
    let line = &line[..line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut colons = line.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(place, _)| place);
    let (first, second, third, fourth) = (colons.next()?, colons.next()?, colons.next()?, colons.next()?);
    let port = &line[first + 1..second];
    let a_port = port == b"*" || (4..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit);
    let password = &line[fourth + 1..];
    let named = third > second + 1 && fourth > third + 1 && first > 0;
    let plain = a_port && named && !password.is_empty() && !line.iter().any(|byte| byte.is_ascii_whitespace());
    (plain && password != super::MARK.as_bytes()).then_some(at + fourth + 1..at + line.len())
}
