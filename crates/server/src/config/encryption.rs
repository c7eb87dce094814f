//! Encryption at rest as meant: what keeps the master key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_store::Encryption;
use tenantry_store::master::{EnvironmentKey, FileKey, MasterKey, MasterKeyError, VaultConfig, VaultKey};
use zeroize::Zeroizing;

use super::{EncryptionTable, SettingsError};

/// The file of the master key, in the data folder, unless another one is named.
const KEY_FILE: &str = "master-key";

/// What keeps the master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasterKeyPlace {
    /// A file.
    #[default]
    File,
    /// A variable of the environment.
    Environment,
    /// HashiCorp Vault's transit engine, or OpenBao's.
    Vault,
}

/// Encryption at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionSettings {
    /// Whether files are encrypted from now on.
    pub is_on: bool,
    /// What keeps the master key.
    pub master_key: MasterKeySettings,
}

/// What keeps the master key, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterKeySettings {
    /// This file.
    File {
        /// Where it is.
        path: PathBuf,
        /// Whether it is in the data folder, beside what it protects.
        is_beside: bool,
    },
    /// This variable.
    Environment(String),
    /// A key of Vault's.
    Vault {
        /// Where it is.
        config: VaultConfig,
        /// The file of the authorities that sign Vault's certificate.
        authorities: Option<PathBuf>,
    },
}

impl EncryptionSettings {
    /// What the table means.
    pub(super) fn from_table(table: &EncryptionTable, data_dir: &Path) -> Result<Self, SettingsError> {
        let fail = |key, problem: String| Err(SettingsError { key, problem });
        let master_key = match table.master_key {
            MasterKeyPlace::File => match &table.key_file {
                Some(path) if path.as_os_str().is_empty() || path.file_name().is_none() => {
                    return fail("encryption.key_file", "must name a file".to_owned());
                }
                Some(path) => MasterKeySettings::File { path: path.clone(), is_beside: path.starts_with(data_dir) },
                None => MasterKeySettings::File { path: data_dir.join(KEY_FILE), is_beside: true },
            },
            MasterKeyPlace::Environment if table.key_variable.is_empty() => {
                return fail("encryption.key_variable", "must name a variable".to_owned());
            }
            MasterKeyPlace::Environment => MasterKeySettings::Environment(table.key_variable.clone()),
            MasterKeyPlace::Vault => return Self::vault(table),
        };
        let is_unused = table.master_key != MasterKeyPlace::File && table.key_file.is_some();
        if is_unused {
            return fail("encryption.key_file", "has an effect only with `master_key = \"file\"`".to_owned());
        }
        if table.vault.address.is_some() {
            return fail("encryption.vault.address", "has an effect only with `master_key = \"vault\"`".to_owned());
        }
        Ok(Self { is_on: table.enabled, master_key })
    }

    fn vault(table: &EncryptionTable) -> Result<Self, SettingsError> {
        let fail = |key, problem: String| Err(SettingsError { key, problem });
        let vault = &table.vault;
        let Some(address) = &vault.address else {
            return fail(
                "encryption.vault.address",
                "must say where Vault is, such as \"https://vault:8200\"".to_owned(),
            );
        };
        if let Err(error) = VaultConfig::check_address(address) {
            return fail("encryption.vault.address", error.to_string());
        }
        for (key, name) in [("encryption.vault.mount", &vault.mount), ("encryption.vault.key", &vault.key)] {
            if !VaultConfig::is_name(name) {
                return fail(key, "must be a plain name, such as \"transit\"".to_owned());
            }
        }
        let Some(token_file) = &vault.token_file else {
            return fail("encryption.vault.token_file", "must name the file of Vault's token".to_owned());
        };
        if vault.timeout.0 < Duration::from_millis(1) {
            return fail("encryption.vault.timeout", "must be at least \"1ms\"".to_owned());
        }
        let config = VaultConfig {
            address: address.clone(),
            mount: vault.mount.clone(),
            key: vault.key.clone(),
            namespace: vault.namespace.clone(),
            token_file: token_file.clone(),
            authorities: None,
            timeout: vault.timeout.0,
        };
        Ok(Self {
            is_on: table.enabled,
            master_key: MasterKeySettings::Vault { config, authorities: vault.ca.clone() },
        })
    }

    /// Finds the master key; reads files.
    ///
    /// # Errors
    /// [`MasterKeyError`] says what is missing or wrong, and what to do.
    pub fn open(&self) -> Result<Encryption, MasterKeyError> {
        let master_key: Arc<dyn MasterKey> = match &self.master_key {
            MasterKeySettings::File { path, .. } => Arc::new(FileKey::open(path)?),
            MasterKeySettings::Environment(name) => {
                let value = Zeroizing::new(std::env::var(name).unwrap_or_default());
                Arc::new(EnvironmentKey::new(&value)?)
            }
            MasterKeySettings::Vault { config, authorities } => {
                let read = |path: &PathBuf| std::fs::read(path).map_err(MasterKeyError::System);
                let authorities = authorities.as_ref().map(read).transpose()?;
                Arc::new(VaultKey::new(VaultConfig { authorities, ..config.clone() })?)
            }
        };
        Ok(Encryption { master_key, is_on: self.is_on })
    }
}
