//! Databases and folders for the tests.

mod postgres;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tenantry_store::master::FileKey;
use tenantry_store::{Encryption, OpenError, Store, StoreConfig};

pub(crate) use postgres::Cluster;
pub(crate) use values::*;

/// Where the suite runs.
pub(crate) struct Backend {
    postgres: Option<(Cluster, AtomicU64)>,
    is_encrypted: bool,
}

impl Backend {
    pub(crate) const fn sqlite(is_encrypted: bool) -> Self {
        Self { postgres: None, is_encrypted }
    }

    pub(crate) const fn postgres(cluster: Cluster) -> Self {
        Self { postgres: Some((cluster, AtomicU64::new(0))), is_encrypted: true }
    }

    /// A new empty folder and database.
    pub(crate) async fn place(&self) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let database_url = match &self.postgres {
            None => None,
            Some((cluster, databases)) => {
                let name = format!("case_{}", databases.fetch_add(1, Ordering::Relaxed));
                Some(cluster.create_database(&name).await)
            }
        };
        let config = StoreConfig { database_url, data_dir: folder.path().join("data") };
        Place { folder, config, is_encrypted: self.is_encrypted }
    }

    /// A store in a new place.
    pub(crate) async fn store(&self) -> (Place, Store) {
        let place = self.place().await;
        let store = place.open().await;
        (place, store)
    }

    /// A store that encrypts, whatever the suite runs on.
    pub(crate) async fn encrypted_store(&self) -> (Place, Store) {
        let place = Place { is_encrypted: true, ..self.place().await };
        let store = place.open().await;
        (place, store)
    }
}

/// A folder and a database, which a store can be opened in again and again.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) config: StoreConfig,
    is_encrypted: bool,
}

impl Place {
    /// Opens the store that is there, with the master key beside it where it is encrypted.
    pub(crate) async fn open(&self) -> Store {
        self.try_open().await.unwrap()
    }

    pub(crate) async fn try_open(&self) -> Result<Store, OpenError> {
        match self.is_encrypted {
            true => Store::open_encrypted(&self.config, self.encryption(true)).await,
            false => Store::open(&self.config).await,
        }
    }

    /// The master key of this place.
    pub(crate) fn encryption(&self, is_on: bool) -> Encryption {
        Encryption { master_key: Arc::new(FileKey::open(&self.master_key()).unwrap()), is_on }
    }

    pub(crate) fn master_key(&self) -> PathBuf {
        self.folder.path().join("master-key")
    }

    /// Where an address is on the disk.
    pub(crate) fn path(&self, address: &str) -> PathBuf {
        self.config.data_dir.join(if self.is_encrypted { format!("{address}.sealed") } else { address.to_owned() })
    }

    /// The URL under which a test can reach into the database beside the store.
    pub(crate) fn raw_url(&self) -> String {
        let sqlite = || format!("sqlite://{}", self.config.data_dir.join("tenantry.sqlite").display());
        self.config.database_url.clone().unwrap_or_else(sqlite)
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The address of every file below the artefacts and the staging area, relative, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let address = |name: &String| name.strip_suffix(".sealed").unwrap_or(name).to_owned();
        self.raw_files().iter().map(address).collect()
    }

    /// Every file there, as it is called.
    pub(crate) fn raw_files(&self) -> Vec<String> {
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
