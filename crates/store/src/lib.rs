//! Durable truth: metadata in SQL, artefacts in an object store.
