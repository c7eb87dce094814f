use std::os::unix::fs::PermissionsExt as _;

use tenantry_store::{KeySecret, StoreConfig};

use super::*;

async fn open(folder: &Path) -> Store {
    Store::open(&StoreConfig { database_url: None, data_dir: folder.to_owned() }).await.unwrap()
}

fn secret(folder: &Path) -> String {
    std::fs::read_to_string(folder.join(ADMIN_KEY_FILE)).unwrap().trim().to_owned()
}

async fn live_keys(store: &Store) -> Vec<tenantry_types::KeyId> {
    let operator = store.tenant_by_name(&OPERATOR_TENANT.parse().unwrap()).await.unwrap();
    assert!(operator.operator);
    let keys = store.keys(operator.id).await.unwrap();
    keys.into_iter().filter(|key| key.is_live(10) && key.role == Role::PlatformAdmin).map(|key| key.id).collect()
}

#[tokio::test]
async fn the_first_start_leaves_a_private_key_and_later_ones_leave_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    ensure_operator(&store, folder.path(), 1).await.unwrap();
    let mode = std::fs::metadata(folder.path().join(ADMIN_KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = secret(folder.path());
    assert_eq!(live_keys(&store).await, [KeySecret::parse(&first).unwrap().0]);

    ensure_operator(&store, folder.path(), 2).await.unwrap();
    assert_eq!(secret(folder.path()), first);
    std::fs::remove_file(folder.path().join(ADMIN_KEY_FILE)).unwrap();
    ensure_operator(&store, folder.path(), 3).await.unwrap();
    assert!(!folder.path().join(ADMIN_KEY_FILE).exists(), "the operator moved it away on purpose");
    assert_eq!(live_keys(&store).await.len(), 1);
}

#[tokio::test]
async fn a_first_start_that_died_half_way_is_finished_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    // Died after the key was made, before its file was written.
    write_private(&folder.path().join(PENDING_FILE), "").unwrap();
    let operator = store.create_tenant(&OPERATOR_TENANT.parse().unwrap(), true, 1).await.unwrap();
    let (lost, _) = store
        .create_key(operator.id, NewKey { label: KEY_LABEL.to_owned(), ..NewKey::of(Role::PlatformAdmin) }, 1)
        .await
        .unwrap();
    ensure_operator(&store, folder.path(), 2).await.unwrap();
    let (kept, _) = KeySecret::parse(&secret(folder.path())).unwrap();
    assert_eq!(live_keys(&store).await, [kept]);
    assert_ne!(kept, lost.id);
    assert!(!folder.path().join(PENDING_FILE).exists());
}
