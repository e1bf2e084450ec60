//! Catalog snapshots: every schema object as canonical data, and their differences.
//!
//! An object is a kind, a qualified name and properties, all text: whatever reads a catalog decides what is a property, and this module
//! only orders and compares. It knows nothing about SQL or about which kinds exist, sequences' tolerance aside.

mod diff;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use diff::{SEQUENCE_AHEAD, SchemaDifferences};

/// One schema object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Object {
    /// `table`, `column`, `index`, `sequence`, …
    pub kind: String,
    /// Quoted and qualified the way PostgreSQL would need it: `public.orders."total amount"`.
    pub name: String,
    /// The relation or type it belongs to; empty for objects that stand alone. A column is not reported as removed beside its table.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent: String,
    /// What there is to say about it. A property that does not apply is absent.
    pub properties: BTreeMap<String, String>,
}

impl Object {
    /// An object that stands alone, without properties yet.
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), name: name.into(), parent: String::new(), properties: BTreeMap::new() }
    }

    /// The same object as part of `parent`.
    #[must_use]
    pub fn of(mut self, parent: impl Into<String>) -> Self {
        self.parent = parent.into();
        self
    }

    /// The same object with one property more.
    #[must_use]
    pub fn with(mut self, property: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(property.into(), value.into());
        self
    }

    /// A property's value.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }
}

/// All schema objects of one database, in order of kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Catalog {
    objects: Vec<Object>,
}

impl Catalog {
    /// A catalog of these objects, in canonical order.
    #[must_use]
    pub fn new(mut objects: Vec<Object>) -> Self {
        objects.sort();
        Self { objects }
    }

    /// The objects in order.
    #[must_use]
    pub fn objects(&self) -> &[Object] {
        &self.objects
    }

    /// The object of this kind and name.
    #[must_use]
    pub fn get(&self, kind: &str, name: &str) -> Option<&Object> {
        let found = self.objects.partition_point(|object| (object.kind.as_str(), object.name.as_str()) < (kind, name));
        self.objects.get(found).filter(|object| object.kind == kind && object.name == name)
    }

    /// How `right` differs from this catalog. Sequences ahead within [`SEQUENCE_AHEAD`] are tolerated unless `strict`.
    #[must_use]
    pub fn diff(&self, right: &Self, strict: bool) -> SchemaDifferences {
        diff::diff(self, right, strict)
    }
}
