//! Databases and folders for the tests.

mod postgres;
mod values;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tenantry_store::{Store, StoreConfig};

pub(crate) use postgres::Cluster;
pub(crate) use values::*;

/// Where the suite runs.
pub(crate) enum Backend {
    Sqlite,
    Postgres { cluster: Cluster, databases: AtomicU64 },
}

impl Backend {
    pub(crate) fn postgres(cluster: Cluster) -> Self {
        Self::Postgres { cluster, databases: AtomicU64::new(0) }
    }

    /// A new empty folder and database.
    pub(crate) async fn place(&self) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let database_url = match self {
            Self::Sqlite => None,
            Self::Postgres { cluster, databases } => {
                let name = format!("case_{}", databases.fetch_add(1, Ordering::Relaxed));
                Some(cluster.create_database(&name).await)
            }
        };
        let config = StoreConfig { database_url, data_dir: folder.path().join("data") };
        Place { folder, config }
    }

    /// A store in a new place.
    pub(crate) async fn store(&self) -> (Place, Store) {
        let place = self.place().await;
        let store = Store::open(&place.config).await.unwrap();
        (place, store)
    }
}

/// A folder and a database, which a store can be opened in again and again.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) config: StoreConfig,
}

impl Place {
    /// The URL under which a test can reach into the database beside the store.
    pub(crate) fn raw_url(&self) -> String {
        let sqlite = || format!("sqlite://{}", self.config.data_dir.join("tenantry.sqlite").display());
        self.config.database_url.clone().unwrap_or_else(sqlite)
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Every file below the artefacts and the staging area, relative, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for kind in ["artefacts", "optimised", "staging"] {
            walk(&self.config.data_dir, &self.config.data_dir.join(kind), &mut files);
        }
        files.sort_unstable();
        files
    }
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}

/// A backend shared by a suite's cases.
pub(crate) type Shared = Arc<Backend>;
