//! What can be told from the order of a scenario's steps: recovery points that no step recorded, and checks without which there is no GO.

use crate::steps::vocabulary::{Point, SENTENCES, Sentence};
use std::collections::BTreeSet;
use turnback_core::drill::CheckId;

/// What is wrong with the name of a recovery point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// No step before records it.
    Unknown { name: String, recorded: Vec<String> },
    /// A step before has recorded it already.
    Twice { name: String },
}

/// The names of recovery points so far.
#[derive(Debug, Default)]
pub struct Points {
    recorded: Vec<String>,
}

impl Points {
    /// Takes in the next step, by the sentence that it is and the name in it.
    pub fn next(&mut self, sentence: &Sentence, name: &str) -> Result<(), Naming> {
        let known = self.recorded.iter().any(|recorded| recorded == name);
        match sentence.point {
            Point::Recorded if known => Err(Naming::Twice { name: name.to_owned() }),
            Point::Recorded => {
                self.recorded.push(name.to_owned());
                Ok(())
            }
            Point::Named if !known => Err(Naming::Unknown { name: name.to_owned(), recorded: self.recorded.clone() }),
            Point::Named | Point::None => Ok(()),
        }
    }
}

/// The critical checks that no step makes, or that a later change makes worthless, each with the first sentence that would make it.
pub fn never_made<'a>(steps: impl Iterator<Item = &'a Sentence>) -> Vec<(&'static Sentence, Vec<CheckId>)> {
    let mut made: BTreeSet<CheckId> = BTreeSet::new();
    for sentence in steps {
        if sentence.changes {
            made.retain(|id| !CheckId::OF_THE_RESTORED.contains(id));
        }
        made.extend(sentence.makes);
    }
    let mut missing: Vec<(&'static Sentence, Vec<CheckId>)> = Vec::new();
    for id in CheckId::CRITICAL.into_iter().filter(|id| !made.contains(id)) {
        // Rather a sentence that holds for every migration than one that names an example.
        let makes = SENTENCES.iter().filter(|sentence| sentence.makes.contains(&id));
        let Some(sentence) = makes.min_by_key(|sentence| sentence.example.contains("corrupt_dummy")) else { continue };
        match missing.iter_mut().find(|(known, _)| known.example == sentence.example) {
            Some((_, ids)) => ids.push(id),
            None => missing.push((sentence, vec![id])),
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_critical_check_is_made_by_some_sentence() {
        let missing: Vec<_> = never_made(std::iter::empty()).into_iter().flat_map(|(_, ids)| ids).collect();
        assert_eq!(missing.len(), CheckId::CRITICAL.len(), "{missing:?}");
    }

    #[test]
    fn a_change_after_the_comparison_makes_it_worthless() {
        let sentence = |start: &str| SENTENCES.iter().find(|sentence| sentence.example.starts_with(start)).unwrap();
        let last = sentence("the fault: someone changes");
        let missing: Vec<_> = never_made(SENTENCES.iter().chain([last])).into_iter().flat_map(|(_, ids)| ids).collect();
        assert_eq!(missing, [CheckId::SchemaEqual, CheckId::DataEqual, CheckId::ChangeNotInHistory]);
        let all = SENTENCES.iter().filter(|sentence| sentence.phase != "fault");
        assert_eq!(never_made(all).len(), 0);
    }
}
