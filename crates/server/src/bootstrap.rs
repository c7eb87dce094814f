//! The first start: the operator's tenant and its first key, left in a file only the operator can read.
//!
//! Later starts leave the file alone, also when the operator has moved it away. A start that died between making the key
//! and writing the file leaves a marker; the next one revokes what nobody ever saw and makes another.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tenantry_store::{NewKey, ReadError, Role, Store, Tenant, WriteError};
use tenantry_types::TenantName;

/// The operator's tenant.
pub const OPERATOR_TENANT: &str = "platform";
/// The file with the first platform key, in the data folder, readable for its owner only.
pub const ADMIN_KEY_FILE: &str = "admin.key";

const PENDING_FILE: &str = "admin.key.pending";
const KEY_LABEL: &str = "first start";

/// Why the first key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// The store cannot be written.
    #[error("the store cannot be written")]
    Write(#[from] WriteError),
    /// The key file cannot be written.
    #[error("`{ADMIN_KEY_FILE}` cannot be written into the data folder")]
    File(#[from] io::Error),
    /// The program's own name for the operator's tenant is no name.
    #[error("`{OPERATOR_TENANT}` is no name for a tenant")]
    Name,
}

/// Makes the operator's tenant and key if there are none.
pub(crate) async fn ensure_operator(store: &Store, data_dir: &Path, now_ms: i64) -> Result<(), BootstrapError> {
    let pending = data_dir.join(PENDING_FILE);
    let operator = store.tenants().await?.into_iter().find(|tenant| tenant.operator);
    match operator {
        Some(operator) if pending.exists() => {
            for key in store.keys(operator.id).await?.into_iter().filter(|key| key.label == KEY_LABEL) {
                store.revoke_key(operator.id, key.id, now_ms).await?;
            }
            leave_key(store, &operator, data_dir, now_ms).await
        }
        Some(_) => Ok(()),
        None => {
            write_private(&pending, "")?;
            let name: TenantName = OPERATOR_TENANT.parse().map_err(|_| BootstrapError::Name)?;
            let operator = store.create_tenant(&name, true, now_ms).await?;
            leave_key(store, &operator, data_dir, now_ms).await
        }
    }
}

/// INVARIANT: the marker exists from before the key is made until its file is safely on the disk.
async fn leave_key(store: &Store, operator: &Tenant, data_dir: &Path, now_ms: i64) -> Result<(), BootstrapError> {
    let new = NewKey { label: KEY_LABEL.to_owned(), ..NewKey::of(Role::PlatformAdmin) };
    let (_, secret) = store.create_key(operator.id, new, now_ms).await?;
    let secret = secret.ok_or(BootstrapError::Name)?;
    let aside = data_dir.join(format!("{ADMIN_KEY_FILE}.new"));
    write_private(&aside, &format!("{secret}\n"))?;
    std::fs::rename(aside, data_dir.join(ADMIN_KEY_FILE))?;
    std::fs::File::open(data_dir)?.sync_all()?;
    std::fs::remove_file(data_dir.join(PENDING_FILE))?;
    tracing::info!("made the operator's tenant; its key is in {ADMIN_KEY_FILE} in the data folder");
    Ok(())
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    // The mode holds for a new file only, so that one left over with another mode must go first.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
