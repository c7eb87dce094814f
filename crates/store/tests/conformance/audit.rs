//! The audit trail.

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tenantry_store::limits::{MAX_AUDIT_DETAIL_CHARS, MAX_AUDIT_WORD_CHARS};
use tenantry_store::{
    AuditActor, AuditEntry, AuditFault, AuditFaultKind, AuditQuery, AuditRecord, AuditVerification, NewKey, NewVersion,
    ReadError, Role, Store, StoreConfig, Thing, WriteError,
};
use tenantry_types::{KeyId, TenantId};

use crate::support::{Place, Shared, file, model, tenant, upload};

fn entry(tenant: Option<TenantId>, action: &str, at_ms: i64) -> AuditEntry {
    AuditEntry {
        at_ms,
        actor: AuditActor::Server,
        source: None,
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
    let actor = AuditActor::Key { tenant: acme.id, key: KeyId::from_parts(1, [1; 10]), role: "admin".into() };
    let source = Some("2001:db8::7".parse().unwrap());
    let told = AuditEntry { actor, source, ..entry(Some(acme.id), "key.create", 7) };
    let (key, _) = store.audited(told.clone()).create_key(acme.id, NewKey::of(Role::Invoker), 7).await.unwrap();
    let expected = AuditEntry { object: key.id.to_string(), ..told };
    let records = all(&store).await;
    assert_eq!((records.len(), records[0].sequence, &records[0].entry), (1, 1, &expected));
    assert_eq!(records[0].generation, Some(store.revision().await.unwrap()), "the revision that the write made");
    assert_eq!((records[0].previous.as_str(), records[0].hash.len()), ("0".repeat(64).as_str(), 64));

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
    // The oldest first, to go on where an earlier answer ended.
    let first = read(AuditQuery { limit: 2, after: Some(0), ..AuditQuery::default() }).await;
    assert_eq!(actions(&first), ["a1", "a2"]);
    let next = read(AuditQuery { after: Some(first[1].sequence), ..of(acme.id) }).await;
    assert_eq!(actions(&next), ["a4"]);
    assert!(first.iter().all(|record| record.generation.is_none()), "they tell of no write");
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
    assert_eq!((verified(&store).await.verified, broken(&store).await), (40, None));
}

/// A place whose trail holds five records, the last two of them a key's.
async fn five(backend: &Shared) -> (Place, Store, AnyConnection) {
    let (place, store) = backend.store().await;
    let acme = tenant(&store, "acme").await;
    let actor = AuditActor::Key { tenant: acme.id, key: KeyId::from_parts(1, [1; 10]), role: "admin".into() };
    let unknown = AuditActor::Unknown { key: Some(KeyId::from_parts(2, [2; 10])) };
    let source = Some("127.0.0.1".parse().unwrap());
    store.append_audit(&[entry(None, "a1", 1), entry(None, "a2", 2)]).await.unwrap();
    let told = AuditEntry { actor, source, detail: "d".to_owned(), ..entry(Some(acme.id), "tenant.create", 3) };
    store.audited(told.clone()).create_tenant(&"globex".parse().unwrap(), false, 3).await.unwrap();
    store.append_audit(&[AuditEntry { actor: unknown, ..told.clone() }, told]).await.unwrap();
    let raw = AnyConnection::connect(&place.raw_url()).await.unwrap();
    (place, store, raw)
}

async fn verified(store: &Store) -> AuditVerification {
    store.verify_audit().await.unwrap()
}

async fn broken(store: &Store) -> Option<(u64, AuditFaultKind)> {
    let found = verified(store).await;
    if let Some(AuditFault { sequence, .. }) = found.broken {
        // What comes before it is good.
        assert!(found.verified <= sequence && found.verified + 2 >= sequence, "{found:?}");
    }
    found.broken.map(|AuditFault { sequence, kind }| (sequence, kind))
}

pub(crate) async fn is_a_chain_in_which_every_change_is_found(backend: Shared) {
    use AuditFaultKind::{HashDiffers, HeadDiffers, LinkBroken, Missing};

    let (_place, store, mut raw) = five(&backend).await;
    let good = verified(&store).await;
    assert_eq!((good.verified, good.first, good.last, good.broken), (5, Some(1), Some(5), None));
    let records = all(&store).await;
    assert_eq!(records[0].hash, good.hash);
    assert!(records.windows(2).all(|pair| pair[0].previous == pair[1].hash));
    assert_eq!(records[1].entry.actor, AuditActor::Unknown { key: Some(KeyId::from_parts(2, [2; 10])) });

    let flip = |column: &str| format!("{column} = 'x' || substr({column}, 2)");
    let texts = [
        "actor_tenant",
        "actor_key",
        "actor_role",
        "tenant_id",
        "action",
        "object",
        "outcome",
        "detail",
        "source",
        "previous",
        "hash",
    ];
    let texts = texts.map(flip);
    let numbers = ["at_ms = at_ms + 1", "generation = generation + 1", "generation = NULL", "actor_key = NULL"];
    let changes = texts.iter().map(String::as_str).chain(numbers);
    for change in changes {
        let mut run = async |statement: String| raw.execute(AssertSqlSafe(statement)).await.unwrap().rows_affected();
        run("CREATE TABLE kept AS SELECT * FROM audit WHERE sequence = 3".to_owned()).await;
        assert_eq!(run(format!("UPDATE audit SET {change} WHERE sequence = 3")).await, 1);
        assert_eq!(broken(&store).await, Some((3, HashDiffers)), "{change}");
        run("DELETE FROM audit WHERE sequence = 3".to_owned()).await;
        assert_eq!(broken(&store).await, Some((3, Missing)));
        run("INSERT INTO audit SELECT * FROM kept".to_owned()).await;
        run("DROP TABLE kept".to_owned()).await;
        assert_eq!(broken(&store).await, None);
    }

    let mut run = async |statement: &'static str| raw.execute(statement).await.unwrap().rows_affected();
    // Two records that change places, a number that is another's, a record put in.
    run("UPDATE audit SET sequence = 9 WHERE sequence = 2").await;
    run("UPDATE audit SET sequence = 2 WHERE sequence = 3").await;
    run("UPDATE audit SET sequence = 3 WHERE sequence = 9").await;
    assert_eq!(broken(&store).await, Some((2, HashDiffers)));
    run("UPDATE audit SET sequence = 9 WHERE sequence = 2").await;
    run("UPDATE audit SET sequence = 2 WHERE sequence = 3").await;
    assert_eq!(broken(&store).await, Some((3, Missing)));
    run("UPDATE audit SET sequence = 3 WHERE sequence = 9").await;
    assert_eq!(broken(&store).await, None);
    run("INSERT INTO audit SELECT sequence + 1, at_ms, actor_tenant, actor_key, actor_role, tenant_id, action, object, outcome,
             detail, source, generation, previous, hash FROM audit WHERE sequence = 5")
        .await;
    assert_eq!(broken(&store).await, Some((6, HeadDiffers)));
    run("DELETE FROM audit WHERE sequence = 6").await;
    // A record and its hash that fit each other, but not their neighbours.
    let other = backend.store().await.1;
    other.append_audit(&[entry(None, "x1", 1), entry(None, "x2", 2)]).await.unwrap();
    let x2 = other.audit(&AuditQuery::default()).await.unwrap().remove(0);
    let put =
        "UPDATE audit SET action = 'x2', object = 'it', outcome = 'ok', previous = $1, hash = $2 WHERE sequence = 2";
    sqlx::query(put).bind(&x2.previous).bind(&x2.hash).execute(&mut raw).await.unwrap();
    assert_eq!(broken(&store).await, Some((2, LinkBroken)));
}

pub(crate) async fn is_found_short_and_without_its_end(backend: Shared) {
    use AuditFaultKind::{HeadDiffers, LinkBroken, Missing};

    let (_place, store, mut raw) = five(&backend).await;
    raw.execute("DELETE FROM audit WHERE sequence = 5").await.unwrap();
    assert_eq!(broken(&store).await, Some((5, Missing)), "the newest is gone");
    raw.execute("UPDATE audit_ends SET sequence = 4 WHERE name = 'head'").await.unwrap();
    assert_eq!(broken(&store).await, Some((4, HeadDiffers)), "its hash is still known");
    // What is added to a broken trail does not mend it.
    store.append_audit(&[entry(None, "next", 4)]).await.unwrap();
    assert_eq!(broken(&store).await, Some((5, LinkBroken)));
    raw.execute("DELETE FROM audit").await.unwrap();
    assert_eq!(broken(&store).await, Some((1, Missing)));
    raw.execute("UPDATE audit_ends SET sequence = 0 WHERE name = 'head'").await.unwrap();
    let found = store.verify_audit().await.unwrap();
    assert_eq!(found.broken, Some(AuditFault { sequence: 0, kind: HeadDiffers }));
}

pub(crate) async fn verifies_after_the_oldest_went(backend: Shared) {
    let (_place, store) = backend.store().await;
    assert_eq!((verified(&store).await.verified, broken(&store).await), (0, None), "an empty one is whole");
    // More than a page, and one whose clock was ahead.
    let entries: Vec<AuditEntry> = (1..=1_005).map(|at| entry(None, "a", if at == 4 { 5_000 } else { at })).collect();
    store.append_audit(&entries).await.unwrap();
    assert_eq!(store.prune_audit(10, 10_000).await.unwrap(), 3, "nothing goes from behind a record that stays");
    let found = verified(&store).await;
    assert_eq!((found.verified, found.first, found.last, found.broken), (1_002, Some(4), Some(1_005), None));
    assert_eq!(store.prune_audit(0, 2).await.unwrap(), 1_000);
    let found = verified(&store).await;
    assert_eq!((found.verified, found.first, found.last, found.broken), (2, Some(1_004), Some(1_005), None));
    let newest = found.hash;
    assert_eq!(store.prune_audit(i64::MAX, 2).await.unwrap(), 2);
    let found = verified(&store).await;
    assert_eq!((found.verified, found.first, found.broken, found.hash), (0, None, None, newest.clone()));
    store.append_audit(&[entry(None, "next", 1)]).await.unwrap();
    assert_eq!(all(&store).await[0].previous, newest);
    assert_eq!(broken(&store).await, None);
}

pub(crate) async fn of_before_it_was_a_chain_becomes_one(backend: Shared) {
    let (place, store, mut raw) = five(&backend).await;
    let before = verified(&store).await.hash;
    store.close().await;
    drop(store);
    // As an earlier version left it: no hashes, and a record that went out of the middle by its age.
    raw.execute("UPDATE audit SET previous = '', hash = ''").await.unwrap();
    raw.execute("UPDATE audit_ends SET hash = ''").await.unwrap();
    raw.execute("DELETE FROM audit WHERE sequence = 2").await.unwrap();
    let store = Store::open(&place.config).await.unwrap();
    let found = verified(&store).await;
    assert_eq!((found.verified, found.first, found.last, found.broken), (4, Some(1), Some(5), None));
    assert_ne!(found.hash, before);
    store.append_audit(&[entry(None, "next", 9)]).await.unwrap();
    assert_eq!(broken(&store).await, None);
    raw.execute("DELETE FROM audit WHERE sequence = 3").await.unwrap();
    assert_eq!(verified(&store).await.broken.map(|fault| fault.kind), Some(AuditFaultKind::Missing));
}
