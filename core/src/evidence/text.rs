//! Strings made safe for the place they go to, and numbers made readable.
//!
//! Names and values come from databases, repositories and programs: anything can stand in them. It knows nothing about what they mean.

use jiff::Timestamp;
use std::fmt::Write as _;

/// The text on one line, without escape sequences, control characters or characters that reorder what is read.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.trim_end_matches(['\n', '\r']).chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => skip_escape(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\u{2028}' | '\u{2029}' => out.push_str(" ⏎ "),
            '\t' => out.push(' '),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}')
            }
            char if char.is_control() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

/// After ESC: a control sequence, a string such as a window's title or a link, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_control_sequence(chars);
        }
        Some(']' | 'P' | '^' | '_' | 'X') => {
            while let Some(char) = chars.next() {
                if char == '\u{7}' || char == '\u{9c}' || (char == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        Some(char) if char.is_ascii_graphic() => {
            chars.next();
        }
        _ => {}
    }
}

fn skip_control_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while chars.next_if(|char| ('\u{20}'..='\u{3f}').contains(char)).is_some() {}
    chars.next_if(|char| ('\u{40}'..='\u{7e}').contains(char));
}

/// At most `most` characters, the end marked where something was left out.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Prose in Markdown: nothing in it is markup, a mention, a link or a cell's end.
pub(super) fn markdown_prose(text: &str) -> String {
    let text = plain(text);
    let mut out = String::with_capacity(text.len() + 8);
    let mut before = ' ';
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '|' | '`' | '*' | '[' | ']' | '\\' | '~' | '$' => out.extend(['\\', char]),
            // Within a word an underscore is only an underscore.
            '_' if !(before.is_alphanumeric() && chars.peek().is_some_and(|next| next.is_alphanumeric())) => out.push_str("\\_"),
            // A word joiner keeps a name from being notified and a number from becoming an issue.
            '@' | '#' => out.extend([char, '\u{2060}']),
            char => out.push(char),
        }
        before = char;
    }
    out
}

/// A name or a value in Markdown, as code.
pub(super) fn markdown_code(text: &str) -> String {
    let text = plain(text);
    if text.is_empty() {
        return "<code></code>".to_owned();
    }
    // Inside backticks a table still splits at “|”; inside <code> everything can be written as an entity.
    if !text.contains(['`', '|', '\\']) && !text.starts_with(' ') && !text.ends_with(' ') {
        return format!("`{text}`");
    }
    let mut out = String::from("<code>");
    for char in text.chars() {
        if char.is_ascii_punctuation() {
            let _ = write!(out, "&#{};", u32::from(char));
        } else {
            out.push(char);
        }
    }
    out + "</code>"
}

/// A duration given in milliseconds: `38 ms`, `4.21 s`, `2 min 05 s`, `1 h 02 min`.
#[must_use]
pub fn duration(ms: u64) -> String {
    let seconds = (ms + 500) / 1000;
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..9_995 => format!("{}.{:02} s", (ms + 5) / 1000, (ms + 5) % 1000 / 10),
        9_995..59_950 => format!("{}.{} s", (ms + 50) / 1000, (ms + 50) % 1000 / 100),
        59_950..3_599_500 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A time as reports show it: UTC, to the second.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A time to the microsecond.
pub(super) fn exact_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S%.6f UTC").to_string()
}

/// A whole number with its thousands apart.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 row`, `2 rows`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// A size in the unit that makes it readable.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut tenths = u128::from(bytes) * 10;
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    tenths = (tenths + 500) / 1000;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths = (tenths + 500) / 1000;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_control_characters_do_not_survive() {
        assert_eq!(plain("\u{1b}[31;1mred\u{1b}[0m \u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\link \u{9b}2Kz"), "red xlink z");
        assert_eq!(plain("a\nb\r\nc\td\u{0}\u{202e}e\n"), "a ⏎ b ⏎ c d\u{fffd}\u{fffd}e");
        assert_eq!(plain("end\u{1b}"), "end");
        assert_eq!(plain("ünïcode “quoted” 表"), "ünïcode “quoted” 表");
    }

    #[test]
    fn markdown_is_only_text() {
        assert_eq!(
            markdown_prose("a|b `c` <script> @team #12 data_rollback _x_ [l](u)"),
            "a\\|b \\`c\\` &lt;script&gt; @\u{2060}team #\u{2060}12 data_rollback \\_x\\_ \\[l\\](u)"
        );
        assert_eq!(markdown_code("public.dummy"), "`public.dummy`");
        assert_eq!(markdown_code("a|`b`"), "<code>a&#124;&#96;b&#96;</code>");
    }

    #[test]
    fn numbers_read_well() {
        let read: Vec<_> = [0, 38, 999, 1000, 4_215, 9_996, 12_340, 59_960, 125_000, 3_725_000].into_iter().map(duration).collect();
        assert_eq!(read, ["0 ms", "38 ms", "999 ms", "1.00 s", "4.22 s", "10.0 s", "12.3 s", "1 min 00 s", "2 min 05 s", "1 h 02 min"]);
        assert_eq!([number(7), number(1_000), number(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([size(999), size(1_000), size(31_457_280), size(999_960)], ["999 B", "1.0 kB", "31.5 MB", "1.0 MB"]);
    }
}
