//! Reading YAML that somebody else wrote: every error names the file, and the line and column where there is one.

use serde::de::DeserializeOwned;

/// Why a YAML file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Nothing is in it.
    #[error("{file} is empty; it must hold one YAML document")]
    Empty {
        /// The file.
        file: String,
    },
    /// Bytes that are not UTF-8.
    #[error("{file}:{line}: not UTF-8 at byte {offset}; save the file as UTF-8")]
    Encoding {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The offset of the first wrong byte.
        offset: usize,
    },
    /// Not YAML, or not of the expected shape, or beyond the limits against alias bombs and deep nesting.
    #[error("{file}:{line}:{column}: {message}")]
    Invalid {
        /// The file.
        file: String,
        /// The line, from 1; 0 when the parser names none.
        line: u64,
        /// The column, from 1; 0 when the parser names none.
        column: u64,
        /// What is wrong.
        message: String,
    },
    /// YAML, but the field that is needed is missing or of another type.
    #[error("{file}: {field} {problem}")]
    Field {
        /// The file.
        file: String,
        /// The field's path.
        field: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Reads the one document of a file. A byte order mark and Windows line ends are read over; duplicate keys, undefined aliases, alias bombs and
/// deep nesting are refused.
pub fn read<T: DeserializeOwned>(file: &str, content: &[u8]) -> Result<T, YamlError> {
    let text = text(file, content)?;
    serde_yaml::from_str(text).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        // The plain message repeats its location on one line; the place is named in front here.
        let message = error.without_snippet().to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).lines().next().unwrap_or_default().to_owned();
        YamlError::Invalid { file: file.to_owned(), line, column, message }
    })
}

/// The file's text without a byte order mark.
pub fn text<'a>(file: &str, content: &'a [u8]) -> Result<&'a str, YamlError> {
    let text = std::str::from_utf8(content).map_err(|e| YamlError::Encoding {
        file: file.to_owned(),
        line: content[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1,
        offset: e.valid_up_to(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() { Err(YamlError::Empty { file: file.to_owned() }) } else { Ok(text) }
}

/// Writes a value, below the comment lines that the former text began with.
pub fn write(file: &str, former: &[u8], value: &serde_json::Value) -> Result<String, YamlError> {
    let body = serde_yaml::to_string(value).map_err(|e| YamlError::Invalid {
        file: file.to_owned(),
        line: 0,
        column: 0,
        message: e.to_string(),
    })?;
    let comments = text(file, former).unwrap_or_default().lines().take_while(|line| line.starts_with('#'));
    let mut written: String = comments.flat_map(|line| [line.trim_end(), "\n"]).collect();
    written.push_str(&body);
    if !written.ends_with('\n') {
        written.push('\n');
    }
    Ok(written)
}
