//! Reads feature files, the embedded ones and the user's, and unfolds them into scenarios. It starts nothing.

use cucumber::feature::Ext;
use cucumber::gherkin::{Feature, GherkinEnv, Step};
use include_dir::{Dir, include_dir};
use std::path::{Path, PathBuf};

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/features");

/// The largest feature file that is read, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// A feature file's text and where it came from.
#[derive(Clone, Debug)]
pub struct Source {
    /// What people see: a path, or the name of a shipped feature.
    pub name: String,
    /// Where files that it names are looked up.
    pub base: PathBuf,
    /// Its text, without a byte order mark.
    pub text: String,
}

/// One scenario, unfolded: its background first, its examples filled in.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The feature's name.
    pub feature: String,
    /// Where it came from.
    pub file: String,
    /// Where files that it names are looked up.
    pub base: PathBuf,
    /// The scenario's name.
    pub name: String,
    /// Where it begins.
    pub line: usize,
    /// Where it begins in that line.
    pub column: usize,
    /// Its steps, background first.
    pub steps: Vec<Step>,
}

/// Why a feature could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// The file or directory cannot be read.
    #[error("cannot read {path}: {source}; name a feature file, a directory of them, or a shipped feature")]
    Read {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A directory without feature files.
    #[error("{0} holds no .feature file: name the directory that does, or a file")]
    NoFeatures(String),
    /// Not text.
    #[error("{0} is not UTF-8 text: save it as UTF-8")]
    NotText(String),
    /// Too large to be a feature file.
    #[error("{0} is larger than 1 MiB: not a feature file; name another")]
    TooLarge(String),
    /// Neither a file nor the name of a shipped feature.
    #[error("there is no file {name} and no shipped feature of that name; shipped are: {shipped}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        shipped: String,
    },
}

/// The shipped feature of that name, with or without its ending.
pub fn shipped(name: &str) -> Option<Source> {
    let file = SHIPPED.get_file(format!("{}.feature", name.trim_end_matches(".feature")))?;
    Some(Source { name: format!("{} (shipped)", file.path().display()), base: PathBuf::from("."), text: file.contents_utf8()?.to_owned() })
}

/// Names of the shipped features.
pub fn shipped_names() -> Vec<String> {
    let mut names: Vec<_> = SHIPPED.files().filter_map(|file| Some(file.path().file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

/// Reads what the user named: files, directories of feature files, or shipped features by name.
///
/// # Errors
/// [`FeatureError`] naming the path.
pub fn load(paths: &[PathBuf]) -> Result<Vec<Source>, FeatureError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            let read = |source| FeatureError::Read { path: path.display().to_string(), source };
            let mut files = Vec::new();
            for entry in std::fs::read_dir(path).map_err(read)? {
                let file = entry.map_err(read)?.path();
                if file.extension().is_some_and(|extension| extension == "feature") {
                    files.push(file);
                }
            }
            files.sort();
            if files.is_empty() {
                return Err(FeatureError::NoFeatures(path.display().to_string()));
            }
            for file in files {
                sources.push(read_file(&file)?);
            }
        } else if path.exists() {
            sources.push(read_file(path)?);
        } else {
            let name = path.display().to_string();
            sources.push(shipped(&name).ok_or_else(|| FeatureError::Unknown { name, shipped: shipped_names().join(", ") })?);
        }
    }
    Ok(sources)
}

fn read_file(path: &Path) -> Result<Source, FeatureError> {
    let name = path.display().to_string();
    let read = |source| FeatureError::Read { path: name.clone(), source };
    if std::fs::metadata(path).map_err(read)?.len() > LARGEST {
        return Err(FeatureError::TooLarge(name));
    }
    let bytes = std::fs::read(path).map_err(read)?;
    let text = String::from_utf8(bytes).map_err(|_| FeatureError::NotText(name.clone()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let base = path.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    Ok(Source { name, base, text })
}

/// Why a source is no feature: where, a stable code, and what is wrong.
pub struct Unreadable {
    pub line: usize,
    pub column: usize,
    pub code: &'static str,
    pub message: String,
}

/// Parses a source and fills in its examples.
///
/// # Errors
/// [`Unreadable`], also for an outline that would never run.
pub fn parse(source: &Source) -> Result<Feature, Unreadable> {
    let feature = Feature::parse(&source.text, GherkinEnv::default()).map_err(|error| {
        // The parser keeps its position private and prints it as “Error at LINE:COLUMN: …”.
        let text = error.to_string();
        let mut place = text.trim_start_matches("Error at ").splitn(3, ':');
        let mut number = || place.next().and_then(|part| part.trim().parse().ok()).unwrap_or(1);
        let (line, column) = (number(), number());
        Unreadable { line, column, code: "not-gherkin", message: "this line is not Gherkin here".to_owned() }
    })?;
    let all = feature.scenarios.iter().chain(feature.rules.iter().flat_map(|rule| &rule.scenarios));
    let rows = |example: &cucumber::gherkin::Examples| example.table.as_ref().map_or(0, |table| table.rows.len());
    for scenario in all {
        let outline = scenario.keyword.contains("Outline") || scenario.keyword.contains("Template") || !scenario.examples.is_empty();
        // The first row names the columns.
        if outline && !scenario.examples.iter().any(|example| rows(example) > 1) {
            let message = format!("the outline “{}” has no row of Examples, so it would never run", scenario.name);
            return Err(Unreadable { line: scenario.position.line, column: scenario.position.col, code: "no-examples", message });
        }
    }
    feature.expand_examples().map_err(|error| Unreadable {
        line: error.pos.line,
        column: error.pos.col,
        code: "unknown-placeholder",
        message: format!("there is no column <{}> in the examples", error.name),
    })
}

/// Unfolds a feature into its scenarios.
pub fn scenarios(source: &Source, feature: &Feature) -> Vec<Scenario> {
    let background = |background: &Option<cucumber::gherkin::Background>| background.as_ref().map_or_else(Vec::new, |b| b.steps.clone());
    let outer = background(&feature.background);
    let mut unfolded = Vec::new();
    let mut push = |scenario: &cucumber::gherkin::Scenario, before: Vec<Step>| {
        unfolded.push(Scenario {
            feature: feature.name.clone(),
            file: source.name.clone(),
            base: source.base.clone(),
            name: scenario.name.clone(),
            line: scenario.position.line,
            column: scenario.position.col,
            steps: before.into_iter().chain(scenario.steps.iter().cloned()).collect(),
        });
    };
    for scenario in &feature.scenarios {
        push(scenario, outer.clone());
    }
    for rule in &feature.rules {
        let inner: Vec<_> = outer.iter().cloned().chain(background(&rule.background)).collect();
        for scenario in &rule.scenarios {
            push(scenario, inner.clone());
        }
    }
    unfolded
}
