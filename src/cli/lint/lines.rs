//! What can be told from a feature's lines alone, before any grammar: misspelt keywords, and text that is never closed.
//!
//! It knows Gherkin's keywords and nothing about steps.

/// Words that begin a part of a feature, with a colon after them.
const HEADS: [&str; 7] = ["Feature", "Background", "Scenario", "Scenario Outline", "Examples", "Rule", "Example"];
/// Words that begin a step.
const STEPS: [&str; 5] = ["Given", "When", "Then", "And", "But"];
/// Words of their own that a description may well begin with.
const WORDS: [&str; 6] = ["They", "Them", "This", "That", "Than", "Thin"];
/// What opens and closes the text below a step.
const FENCES: [&str; 2] = ["\"\"\"", "```"];

/// A keyword that is misspelt, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelt {
    pub line: usize,
    pub column: usize,
    pub word: String,
    pub keyword: &'static str,
}

struct Line<'a> {
    number: usize,
    column: usize,
    text: &'a str,
}

/// Where text below a step begins that is never closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unclosed {
    pub line: usize,
    pub column: usize,
    pub fence: &'static str,
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().map(|(index, line)| {
        let trimmed = line.trim_start();
        Line { number: index + 1, column: line.chars().count() - trimmed.chars().count() + 1, text: trimmed }
    })
}

/// The lines that are not inside the text below a step, and where such a text is opened and not closed.
fn outside(text: &str) -> (Vec<Line<'_>>, Option<Unclosed>) {
    let mut found = Vec::new();
    let mut open: Option<Unclosed> = None;
    // The first text that holds what looks like steps: where a fence too few stands, that is the text it belongs to.
    let mut doubtful: Option<Unclosed> = None;
    for line in lines(text) {
        match &open {
            Some(at) if line.text.starts_with(at.fence) => open = None,
            Some(at) => {
                let first = line.text.split_whitespace().next().unwrap_or_default();
                if doubtful.is_none() && (STEPS.contains(&first) || first == "Scenario:") {
                    doubtful = Some(at.clone());
                }
            }
            None => match FENCES.iter().find(|fence| line.text.starts_with(**fence)) {
                // Opened and closed in one line.
                Some(fence) if line.text[fence.len()..].contains(fence) => {}
                Some(fence) => open = Some(Unclosed { line: line.number, column: line.column, fence }),
                None => found.push(line),
            },
        }
    }
    let unclosed = open.map(|last| doubtful.unwrap_or(last));
    (found, unclosed)
}

/// The text below a step that is opened and never closed.
pub fn unclosed(text: &str) -> Option<Unclosed> {
    outside(text).1
}

/// Lines that Gherkin takes for a description, or refuses, because their keyword is misspelt.
pub fn misspelt(text: &str) -> Vec<Misspelt> {
    let mut found = Vec::new();
    for line in outside(text).0 {
        if line.text.starts_with(['#', '@', '|']) {
            continue;
        }
        if let Some((head, _)) = line.text.split_once(':') {
            let exact = HEADS.contains(&head) || matches!(head, "Scenario Template" | "Scenarios" | "Ability" | "Business Need");
            let near = |keyword: &&&str| strsim::damerau_levenshtein(&head.to_lowercase(), &keyword.to_lowercase()) <= 2;
            if !exact
                && head.len() < 20
                && let Some(keyword) = HEADS.iter().find(near)
            {
                found.push(Misspelt { line: line.number, column: line.column, word: format!("{head}:"), keyword });
                continue;
            }
        }
        let word = line.text.split_whitespace().next().unwrap_or_default();
        let candidate = word.chars().next().is_some_and(char::is_uppercase) && !word.contains(':');
        if candidate
            && !STEPS.contains(&word)
            && !WORDS.contains(&word)
            && let Some(keyword) = STEPS.iter().find(|keyword| slipped(word, keyword))
        {
            found.push(Misspelt { line: line.number, column: line.column, word: word.to_owned(), keyword });
        }
    }
    found
}

/// Whether a word in a place where it could also be prose is this keyword with one slip. Short words are too near to English ones (“Any”,
/// “Bud”): of those only swapped letters count.
fn slipped(word: &str, keyword: &str) -> bool {
    let letters = |word: &str| {
        let mut letters: Vec<char> = word.to_lowercase().chars().collect();
        letters.sort_unstable();
        letters
    };
    let one = strsim::damerau_levenshtein(word, keyword) == 1;
    one && (word.len() >= 4 && keyword.len() >= 4 || letters(word) == letters(keyword))
}

/// The keyword that the first word of a line comes near, where the line cannot be prose: Gherkin has refused it.
pub fn keyword_near(line: &str) -> Option<(String, &'static str)> {
    let word = line.split_whitespace().next()?;
    let far = |keyword: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &keyword.to_lowercase());
    let (distance, keyword) = STEPS.iter().map(|keyword| (far(keyword), *keyword)).min()?;
    (!STEPS.contains(&word) && distance <= keyword.len() / 3).then(|| (word.to_owned(), keyword))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_never_closed_is_found_where_it_begins() {
        let at = |text: &str| unclosed(text).map(|found| (found.line, found.column));
        assert_eq!(at("Given a:\n  \"\"\"\n  x\n  \"\"\"\n"), None);
        assert_eq!(at("Given a:\n  \"\"\"\n  x\n"), Some((2, 3)));
        assert_eq!(at("Given a:\n```\n\"\"\"\n"), Some((2, 1)), "one kind does not close the other");
        assert_eq!(at("Given a:\n\"\"\"x\"\"\"\n"), None);
        // The first one lacks its end, so that every other one is taken for its contrary.
        assert_eq!(at("Given a:\n\"\"\"\nx\n\nWhen b:\n\"\"\"\ny\n\"\"\"\n"), Some((2, 1)));
    }

    #[test]
    fn prose_is_not_taken_for_a_slip() {
        for text in ["Any of them", "Band", "Bus", "But then", "Than that", "End", "A Bud is not But", "given by hand"] {
            assert_eq!(misspelt(text), [], "{text}");
        }
        for (text, keyword) in [("Adn x", "And"), ("Btu x", "But"), ("Whne x", "When"), ("Gievn x", "Given"), ("Thenn x", "Then")] {
            assert_eq!(misspelt(text).first().map(|found| found.keyword), Some(keyword), "{text}");
        }
    }

    #[test]
    fn a_line_that_gherkin_refuses_may_be_further_off() {
        for (line, keyword) in
            [("Ad x", Some("And")), ("and x", Some("And")), ("WHEN x", Some("When")), ("Bit x", Some("But")), ("Some x", None)]
        {
            assert_eq!(keyword_near(line).map(|found| found.1), keyword, "{line}");
        }
    }
}
