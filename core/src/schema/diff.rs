//! The differences between two catalogs: a walk over both in order.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::{Catalog, Object};
use crate::comparison::{Change, Difference};

/// PostgreSQL logs a sequence's values up to this many ahead, so after a crash or a recovery it may stand that far ahead.
pub const SEQUENCE_AHEAD: i128 = 32;

/// What differs, and what differs within a stated tolerance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaDifferences {
    /// Differences that count.
    pub counted: Vec<Difference>,
    /// Differences that a tolerance covers.
    pub tolerated: Vec<Difference>,
}

/// The kinds whose parts are not reported again when they are added or removed as a whole.
const PARENTS: [&str; 8] = ["table", "view", "materialized view", "foreign table", "composite type", "domain", "enum", "type"];

pub(super) fn diff(left: &Catalog, right: &Catalog, strict: bool) -> SchemaDifferences {
    let whole = only_on_one_side(left, right);
    let mut found = SchemaDifferences::default();
    let (mut lefts, mut rights) = (left.objects.iter().peekable(), right.objects.iter().peekable());
    loop {
        let order = match (lefts.peek(), rights.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(l), Some(r)) => (&l.kind, &l.name).cmp(&(&r.kind, &r.name)),
        };
        match order {
            Ordering::Less => whole_object(lefts.next(), Change::Removed, &whole, &mut found),
            Ordering::Greater => whole_object(rights.next(), Change::Added, &whole, &mut found),
            Ordering::Equal => {
                if let (Some(l), Some(r)) = (lefts.next(), rights.next()) {
                    properties(l, r, strict, &mut found);
                }
            }
        }
    }
    found
}

/// Names of relations and types that exist on one side only.
fn only_on_one_side<'a>(left: &'a Catalog, right: &'a Catalog) -> BTreeSet<&'a str> {
    let names = |one: &'a Catalog, other: &'a Catalog| {
        one.objects
            .iter()
            .filter(move |object| PARENTS.contains(&object.kind.as_str()) && other.get(&object.kind, &object.name).is_none())
            .map(|object| object.name.as_str())
    };
    names(left, right).chain(names(right, left)).collect()
}

fn whole_object(object: Option<&Object>, change: Change, whole: &BTreeSet<&str>, found: &mut SchemaDifferences) {
    let Some(object) = object else { return };
    if whole.contains(object.parent.as_str()) {
        return;
    }
    // One line that says what it was: the definition where it has one.
    let shown = ["definition", "type", "value", "labels", "version"].iter().find_map(|name| object.property(name)).map(str::to_owned);
    let (left, right) = if change == Change::Removed { (shown, None) } else { (None, shown) };
    found.counted.push(Difference { kind: object.kind.clone(), object: object.name.clone(), change, property: String::new(), left, right });
}

fn properties(left: &Object, right: &Object, strict: bool, found: &mut SchemaDifferences) {
    let names: BTreeSet<&String> = left.properties.keys().chain(right.properties.keys()).collect();
    for name in names {
        let (before, after) = (left.properties.get(name), right.properties.get(name));
        if before == after {
            continue;
        }
        let difference = Difference {
            kind: left.kind.clone(),
            object: left.name.clone(),
            change: Change::Changed,
            property: name.clone(),
            left: before.cloned(),
            right: after.cloned(),
        };
        if !strict && tolerated(left, right, name) {
            found.tolerated.push(difference);
        } else {
            found.counted.push(difference);
        }
    }
}

fn tolerated(left: &Object, right: &Object, property: &str) -> bool {
    left.kind == "sequence" && (ahead(left, right, property) || reset_unlogged(left, right, property))
}

/// Called on both sides, and ahead on the right by no more than is logged ahead.
fn ahead(left: &Object, right: &Object, property: &str) -> bool {
    let number = |object: &Object, name: &str| object.property(name).and_then(|value| value.parse::<i128>().ok());
    let called = |object: &Object| object.property("is_called") == Some("true");
    let (Some(before), Some(after), Some(step)) = (number(left, "last_value"), number(right, "last_value"), number(left, "increment"))
    else {
        return false;
    };
    property == "last_value"
        && called(left)
        && called(right)
        && left.property("increment") == right.property("increment")
        && step != 0
        && (after - before) % step == 0
        && (1..=SEQUENCE_AHEAD).contains(&((after - before) / step))
}

/// An unlogged sequence starts anew after a recovery, as unlogged tables come back empty.
fn reset_unlogged(left: &Object, right: &Object, property: &str) -> bool {
    let unlogged = |object: &Object| object.property("persistence") == Some("unlogged");
    matches!(property, "last_value" | "is_called")
        && unlogged(left)
        && unlogged(right)
        && right.property("is_called") == Some("false")
        && right.property("last_value") == right.property("start")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(last: i64, called: bool) -> Object {
        Object::new("sequence", "public.ids")
            .with("increment", "2")
            .with("start", "1")
            .with("last_value", last.to_string())
            .with("is_called", called.to_string())
    }

    fn between(left: Vec<Object>, right: Vec<Object>) -> SchemaDifferences {
        Catalog::new(left).diff(&Catalog::new(right), false)
    }

    #[test]
    fn a_changed_property_is_named_with_both_values() {
        let column = |default: &str| Object::new("column", "public.t.a").of("public.t").with("type", "integer").with("default", default);
        let found = between(vec![column("1")], vec![column("2")]);
        let [difference] = &found.counted[..] else { panic!("{found:?}") };
        assert_eq!((difference.property.as_str(), difference.change), ("default", Change::Changed));
        assert_eq!((difference.left.as_deref(), difference.right.as_deref()), (Some("1"), Some("2")));
    }

    #[test]
    fn a_property_on_one_side_only_differs() {
        let found = between(vec![Object::new("view", "v").with("comment", "x")], vec![Object::new("view", "v")]);
        assert_eq!((found.counted[0].left.as_deref(), found.counted[0].right.as_deref()), (Some("x"), None));
    }

    #[test]
    fn a_removed_table_is_one_difference_and_a_removed_column_is_its_own() {
        let table = Object::new("table", "public.t");
        let column = Object::new("column", "public.t.a").of("public.t").with("type", "integer");
        let both = vec![table.clone(), column];
        let all = between(both.clone(), vec![]);
        assert_eq!(all.counted.iter().map(|d| d.kind.as_str()).collect::<Vec<_>>(), ["table"]);
        let one = between(both, vec![table]);
        assert_eq!(one.counted.iter().map(|d| (d.object.as_str(), d.change)).collect::<Vec<_>>(), [("public.t.a", Change::Removed)]);
    }

    #[test]
    fn a_sequence_is_tolerated_up_to_32_steps_ahead_and_never_behind() {
        let shift = |by: i64| between(vec![sequence(101, true)], vec![sequence(101 + by, true)]);
        for (by, counted) in [(2, 0), (64, 0), (66, 1), (-2, 1), (3, 1)] {
            let found = shift(by);
            assert_eq!((found.counted.len(), found.tolerated.len()), (counted, 1 - counted), "{by}");
        }
        let strict = Catalog::new(vec![sequence(1, true)]).diff(&Catalog::new(vec![sequence(3, true)]), true);
        assert_eq!((strict.counted.len(), strict.tolerated.len()), (1, 0));
    }

    #[test]
    fn a_sequence_used_only_on_the_right_is_a_difference() {
        assert_eq!(between(vec![sequence(1, false)], vec![sequence(1, true)]).counted.len(), 1);
    }
}
