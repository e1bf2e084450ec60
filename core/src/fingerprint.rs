//! Data fingerprints: row hashes, their sums, and the sidecar that lists exactly which rows differ.
