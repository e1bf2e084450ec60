//! Names of files within a package: relative, plain, and never a way out of it.

use std::path::{Component, Path, PathBuf};

/// The longest part of a name.
const LONGEST: usize = 120;

/// The name as it stands in the package, or why it cannot stand there.
pub(super) fn relative(name: &Path) -> Result<PathBuf, &'static str> {
    let mut clean = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => {
                let part = part.to_str().ok_or("it is not UTF-8")?;
                if part.len() > LONGEST {
                    return Err("a part of it is longer than 120 bytes");
                }
                if part.chars().any(|char| char.is_control() || char == '\\') {
                    return Err("it holds a control character or a backslash");
                }
                clean.push(part);
            }
            Component::CurDir => {}
            Component::ParentDir => return Err("“..” leads out of the package"),
            Component::RootDir | Component::Prefix(_) => return Err("it is absolute"),
        }
    }
    if clean.as_os_str().is_empty() { Err("it is empty") } else { Ok(clean) }
}

/// Makes a directory's name out of a scenario's: lower-case ASCII words joined by hyphens.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for char in text.chars().filter(|char| *char != '\'' && *char != '’') {
        if char.is_ascii_alphanumeric() {
            slug.push(char.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= 60 {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "drill".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_lead_out() {
        assert_eq!(relative(Path::new("./logs//server.log")).unwrap(), Path::new("logs/server.log"));
        for bad in ["", ".", "..", "a/../../b", "/etc/passwd", "a\nb", "a\\b", &"x".repeat(121)] {
            assert!(relative(Path::new(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn slugs_are_plain() {
        assert_eq!(slug("A migration that corrupts a table's data"), "a-migration-that-corrupts-a-tables-data");
        assert_eq!(slug("../../etc"), "etc");
        assert_eq!(slug("表"), "drill");
    }
}
