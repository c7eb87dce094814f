//! The audit trail.

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tenantry_store::limits::{MAX_AUDIT_DETAIL_CHARS, MAX_AUDIT_WORD_CHARS};
use tenantry_store::{
    AuditActor, AuditEntry, AuditQuery, AuditRecord, NewVersion, ReadError, Role, Store, StoreConfig, Thing, WriteError,
};
use tenantry_types::{KeyId, TenantId};

use crate::support::{Shared, file, model, tenant, upload};

fn entry(tenant: Option<TenantId>, action: &str, at_ms: i64) -> AuditEntry {
    AuditEntry {
        at_ms,
        actor: AuditActor::Server,
        tenant,
        action: action.to_owned(),
        object: "it".to_owned(),
        outcome: "ok".to_owned(),
        detail: String::new(),
    }
}

async fn all(store: &Store) -> Vec<AuditRecord> {
    store.audit(&AuditQuery::default()).await.unwrap()
}

fn actions(records: &[AuditRecord]) -> Vec<&str> {
    records.iter().map(|record| record.entry.action.as_str()).collect()
}

pub(crate) async fn is_written_with_what_it_tells_of_or_not_at_all(backend: Shared) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let actor = AuditActor::Key { tenant: acme.id, key: KeyId::from_parts(1, [1; 10]), role: Role::Admin };
    let told = AuditEntry { actor, ..entry(Some(acme.id), "key.create", 7) };
    let (key, _) = store.audited(told.clone()).create_key(acme.id, Role::Invoker, "", None, 7).await.unwrap();
    let expected = AuditEntry { object: key.id.to_string(), ..told };
    assert_eq!(all(&store).await, [AuditRecord { sequence: 1, entry: expected.clone() }]);

    let mine = model(&store, acme.id, "m").await;
    let artefact = upload(&store, acme.id, b"x").await;
    let new = NewVersion { files: vec![file("model.onnx", artefact)], ..NewVersion::default() };
    let told = AuditEntry { object: "acme/m".to_owned(), ..entry(Some(acme.id), "version.create", 8) };
    store.audited(told).create_version(mine.id, new, 8).await.unwrap();
    assert_eq!(all(&store).await[0].entry.object, "acme/m:1");

    // What was not done is not told of.
    let taken = store.audited(entry(None, "tenant.create", 9)).create_tenant(&acme.name, false, 9).await.unwrap_err();
    assert!(matches!(taken, WriteError::AlreadyExists(Thing::Tenant)), "{taken:?}");
    assert_eq!(all(&store).await.len(), 2);
    // What cannot be told of is not done.
    let mut raw = AnyConnection::connect(&place.raw_url()).await.unwrap();
    raw.execute(AssertSqlSafe("ALTER TABLE audit RENAME TO lost")).await.unwrap();
    let globex = "globex".parse().unwrap();
    let failed = store.audited(entry(None, "tenant.create", 10)).create_tenant(&globex, false, 10).await.unwrap_err();
    assert!(matches!(failed, WriteError::Unavailable(_)), "{failed:?}");
    raw.execute(AssertSqlSafe("ALTER TABLE lost RENAME TO audit")).await.unwrap();
    raw.close().await.unwrap();
    assert!(matches!(store.tenant_by_name(&globex).await, Err(ReadError::NotFound(Thing::Tenant))));
    store.audited(entry(None, "tenant.create", 11)).create_tenant(&globex, false, 11).await.unwrap();
    assert_eq!(all(&store).await[0].sequence, 3);
    store.close().await;
    drop(store);

    let store = Store::open(&StoreConfig { ..place.config.clone() }).await.unwrap();
    assert_eq!(all(&store).await.last().unwrap().entry, expected);
}

pub(crate) async fn is_read_newest_first_by_tenant_time_and_page(backend: Shared) {
    let (_place, store) = backend.store().await;
    let (acme, globex) = (tenant(&store, "acme").await, tenant(&store, "globex").await);
    let before = store.revision().await.unwrap();
    let entries: Vec<AuditEntry> = (1..=6)
        .map(|number| {
            let whom = [None, Some(acme.id), Some(globex.id)][number % 3];
            entry(whom, &format!("a{number}"), number as i64 * 10)
        })
        .collect();
    store.append_audit(&entries).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), before, "a record is no change of what is served");
    assert_eq!(actions(&all(&store).await), ["a6", "a5", "a4", "a3", "a2", "a1"]);
    let of = |tenant| AuditQuery { tenant: Some(tenant), ..AuditQuery::default() };
    let read = async |query: AuditQuery| store.audit(&query).await.unwrap();
    assert_eq!(actions(&read(of(acme.id)).await), ["a4", "a1"]);
    assert_eq!(actions(&read(AuditQuery { since_ms: Some(20), ..of(acme.id) }).await), ["a4"]);
    let page = read(AuditQuery { limit: 2, ..AuditQuery::default() }).await;
    assert_eq!(actions(&page), ["a6", "a5"]);
    let next = read(AuditQuery { limit: 2, before: Some(page[1].sequence), ..AuditQuery::default() }).await;
    assert_eq!(actions(&next), ["a4", "a3"]);
    assert_eq!(actions(&read(AuditQuery { before: Some(5), ..of(globex.id) }).await), ["a2"]);
    // It outlives whom it concerns.
    store.delete_tenant(acme.id).await.unwrap();
    assert_eq!(actions(&read(of(acme.id)).await), ["a4", "a1"]);
}

pub(crate) async fn is_bounded_in_size_number_and_age(backend: Shared) {
    let (_place, store) = backend.store().await;
    let long = AuditEntry {
        object: "o\n".repeat(1_000),
        detail: "d\u{1b}[31m".repeat(1_000),
        ..entry(None, &"a".repeat(1_000), 1)
    };
    store.append_audit(&[long]).await.unwrap();
    let kept = &all(&store).await[0].entry;
    assert!(
        kept.action.chars().count() <= MAX_AUDIT_WORD_CHARS + 1
            && kept.object.chars().count() <= MAX_AUDIT_WORD_CHARS + 1
    );
    assert!(kept.detail.chars().count() <= MAX_AUDIT_DETAIL_CHARS + 1);
    assert!(!kept.detail.contains(char::is_control) && !kept.object.contains(char::is_control));

    let entries: Vec<AuditEntry> = (2..=9).map(|number| entry(None, &format!("a{number}"), number)).collect();
    store.append_audit(&entries).await.unwrap();
    assert_eq!(store.prune_audit(4, 100).await.unwrap(), 3);
    assert_eq!(store.prune_audit(0, 2).await.unwrap(), 4);
    assert_eq!(actions(&all(&store).await), ["a9", "a8"]);
    // Numbers are not given twice.
    store.append_audit(&[entry(None, "next", 10)]).await.unwrap();
    assert_eq!(all(&store).await[0].sequence, 10);
}

pub(crate) async fn has_one_order_however_many_write(backend: Shared) {
    let (_place, store) = backend.store().await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let name = format!("t{writer}-{round}");
                    let audited = store.audited(entry(None, &name, 1));
                    audited.create_tenant(&name.parse().unwrap(), false, 1).await.unwrap();
                    store.append_audit(&[entry(None, "incident", 1)]).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let numbers: Vec<u64> = all(&store).await.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, (1..=40).rev().collect::<Vec<u64>>());
}
