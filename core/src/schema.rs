//! Catalog snapshots: every schema object as canonical data, and their differences.
