//! The usage ledger: from the log into the books, each record once.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use sqlx::{AnyConnection, Connection as _, Executor as _};
use tenantry_store::{Bookkeeper, Ledger, Store, UsageGroup, UsageQuery, UsageRecord};
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{Attempted, DeviceTime, Outcome, SlotTime, UsageKind, Used};
use tenantry_types::{BootId, DeploymentId, KeyId, RequestId, TenantId, VersionId};

use crate::support::Shared;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn attempted(tenant: u8, admitted_ms: i64) -> Attempted {
    Attempted {
        kind: UsageKind::Inference,
        tenant: TenantId::from_parts(1, [tenant; 10]),
        key: Some(KeyId::from_parts(1, [tenant; 10])),
        deployment: Some(DeploymentId::from_parts(1, [tenant; 10])),
        model: format!("tenant-{tenant}/model").into(),
        version: VersionId::from_parts(1, [tenant; 10]),
        version_number: 1,
        tier: ShareTier::Burstable,
        request: Some(RequestId::from_parts(2, [tenant; 10])),
        admitted_ms,
    }
}

fn used(ns: u64) -> Used {
    let device = DeviceTime { compute_ns: ns, padding_ns: 1, load_ns: 2, aborted_ns: 3 };
    Used {
        device,
        duration_ns: 10 * ns,
        queue_ns: 5,
        cpu_ns: 6,
        bytes_in: 7,
        bytes_out: 8,
        tokens: 9,
        ..Used::nothing(Outcome::Ok)
    }
}

async fn records(store: &Store) -> Vec<UsageRecord> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.usage_records(None, after, 7).await.unwrap();
        let Some(last) = page.last() else { return all };
        after = Some(last.key);
        all.extend(page);
    }
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "log"))
        .count()
}

pub(crate) async fn a_record_comes_into_the_books_once_and_whole(backend: Shared) {
    let (place, store) = backend.store().await;
    let folder = place.folder().join("ledger");
    let ledger = Arc::new(Ledger::open(&folder, 1_000).unwrap());
    let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    let key = ledger.next_key();
    assert_eq!(key.sequence, 1);
    let mine = attempted(1, 5);
    let opened = ledger.opened(1, &mine).unwrap();
    assert_eq!(books.carry().await.unwrap().closed, 0);
    assert_eq!(records(&store).await, []);
    ledger.closed(1, Some(opened), &mine, &used(100), DAY_MS + 7).unwrap();
    // One that was never given to a worker was not opened.
    ledger.next_key();
    let refused = Attempted { key: None, deployment: None, request: None, kind: UsageKind::Load, ..attempted(2, 6) };
    ledger.closed(2, None, &refused, &Used::nothing(Outcome::Rejected), 8).unwrap();
    for expected in [2, 0, 0] {
        assert_eq!(books.carry().await.unwrap().closed, expected);
    }
    let found = records(&store).await;
    assert_eq!(found[0], UsageRecord { key, attempted: mine, used: used(100), ended_ms: DAY_MS + 7 });
    assert_eq!((found.len(), &found[1].attempted), (2, &refused));
    // Whoever begins anew, as after a kill between two rounds, adds nothing.
    let mut again = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    assert_eq!(again.carry().await.unwrap().closed, 0);
    assert_eq!(records(&store).await.len(), 2);

    let query = |tenant, groups: &[UsageGroup]| UsageQuery { tenant, days: (0, 1), groups: groups.to_vec() };
    let sum = store.usage(&query(None, &[])).await.unwrap();
    assert_eq!((sum.len(), sum[0].attempts, sum[0].used), (1, 2, used(100)));
    let days = store.usage(&query(None, &[UsageGroup::Day, UsageGroup::Kind])).await.unwrap();
    let seen: Vec<_> = days.iter().map(|row| (row.day, row.kind, row.attempts)).collect();
    assert_eq!(seen, [(Some(0), Some(UsageKind::Load), 1), (Some(1), Some(UsageKind::Inference), 1)]);
    let of_two = query(
        Some(refused.tenant),
        &[UsageGroup::Deployment, UsageGroup::Version, UsageGroup::Outcome, UsageGroup::Tier],
    );
    let [row] = &store.usage(&of_two).await.unwrap()[..] else { panic!("one line") };
    assert_eq!((row.deployment, row.model.as_deref(), row.version), (None, Some("tenant-2/model"), Some(1)));
    assert_eq!((row.outcome, row.tier, row.tenant), (Some(Outcome::Rejected), Some(ShareTier::Burstable), None));
    let nothing = UsageQuery { days: (2, 9), ..query(None, &[]) };
    assert_eq!(store.usage(&nothing).await.unwrap()[0].attempts, 0);
    assert_eq!(store.usage_records(Some(refused.tenant), None, 0).await.unwrap().len(), 1);
}

pub(crate) async fn what_a_start_left_open_is_closed_by_the_next_as_interrupted(backend: Shared) {
    let (place, store) = backend.store().await;
    let folder = place.folder().join("ledger");
    let first = Arc::new(Ledger::open(&folder, 1_000).unwrap());
    let opened = [1, 2, 3].map(|sequence| {
        first.next_key();
        Some(first.opened(sequence, &attempted(1, 2_000)).unwrap())
    });
    first.closed(2, opened[1], &attempted(1, 2_000), &used(50), 2_500).unwrap();
    first.slots(2_600, SlotTime { wall_ns: 1_000, slots: 2, busy_ns: 56, system_ns: 0 }, false).unwrap();
    // Carried in part, then killed, in the middle of a write.
    Bookkeeper::new(Arc::clone(&first), store.clone()).carry().await.unwrap();
    first.closed(3, opened[2], &attempted(1, 2_000), &used(60), 2_700).unwrap();
    let name = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .find(|path| path.extension().is_some())
        .unwrap();
    std::fs::OpenOptions::new().append(true).open(&name).unwrap().write_all(&[40, 0, 0, 0, 1, 2, 3]).unwrap();
    drop(first);

    let second = Arc::new(Ledger::open(&folder, 3_000).unwrap());
    let mut books = Bookkeeper::new(Arc::clone(&second), store.clone());
    let carried = books.carry().await.unwrap();
    assert_eq!((carried.closed, carried.interrupted, carried.torn), (1, 1, 1));
    assert_eq!(files(&folder), 1, "the files of the first start are of no use any more");
    let found = records(&store).await;
    let seen: Vec<_> = found.iter().map(|record| (record.key.sequence, record.used.outcome, record.ended_ms)).collect();
    assert_eq!(seen, [(2, Outcome::Ok, 2_500), (3, Outcome::Ok, 2_700), (1, Outcome::Interrupted, 2_700)]);
    assert_eq!(books.carry().await.unwrap(), tenantry_store::Carried::default());

    let accounts = store.usage_accounts().await.unwrap();
    let old = accounts.iter().find(|account| account.done).unwrap();
    assert_eq!((old.records, old.interrupted, old.charged_ns), (3, 1, 50 + 60 + 12));
    // What came after the node last told of its slots is in the records, and shows.
    assert_eq!((old.slots.capacity_ns(), old.idle_ns(), old.unaccounted_ns()), (2_000, 1_944, -66));
    assert_eq!(old.node, second.node(), "a node keeps its name");
    assert_ne!(old.boot, second.boot());
}

pub(crate) async fn a_damaged_file_is_kept_and_holds_up_nobody(backend: Shared) {
    let (place, store) = backend.store().await;
    let folder = place.folder().join("ledger");
    let only = |folder: &std::path::Path, of: BootId| {
        let mut all = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        all.find(|path| path.to_string_lossy().contains(&of.to_string())).unwrap()
    };
    let write = |at_ms: i64| {
        let ledger = Ledger::open(&folder, at_ms).unwrap();
        for _ in 0..100 {
            let sequence = ledger.next_key().sequence;
            ledger.closed(sequence, None, &attempted(1, at_ms), &used(1), at_ms + 1).unwrap();
        }
        ledger.boot()
    };
    let damaged = write(1_000);
    let path = only(&folder, damaged);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    // Nothing of it can be read.
    let strange = write(2_000);
    let path = only(&folder, strange);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    write(3_000);
    let ledger = Arc::new(Ledger::open(&folder, 4_000).unwrap());
    let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    books.carry().await.unwrap_err();
    assert!(only(&folder, damaged).extension().is_some_and(|end| end == "damaged"));
    let sum = store.usage(&UsageQuery { tenant: None, days: (0, 0), groups: Vec::new() }).await.unwrap();
    assert!((140..200).contains(&sum[0].attempts), "{}", sum[0].attempts);
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(books.carry().await.unwrap(), tenantry_store::Carried::default());
}

pub(crate) async fn files_go_when_they_are_in_the_books(backend: Shared) {
    let (place, store) = backend.store().await;
    let folder = place.folder().join("ledger");
    let ledger = Arc::new(Ledger::open(&folder, 1_000).unwrap().with_files_of(10_000));
    let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    // One that stays open keeps the file it was opened in, and those behind it.
    let kept = ledger.opened(1, &attempted(1, 1)).unwrap();
    let one = attempted(2, 1);
    let mut sequence = 1;
    while files(&folder) < 3 {
        let opened = ledger.opened_together((1..=20).map(|number| (sequence + number, &one))).unwrap();
        for done in sequence + 1..=sequence + 20 {
            ledger.closed(done, Some(opened), &one, &Used::nothing(Outcome::Cancelled), 2).unwrap();
            sequence = done;
        }
    }
    let closed = books.carry().await.unwrap().closed;
    assert_eq!(closed, sequence - 1);
    assert_eq!(files(&folder), 3);
    ledger.closed(1, Some(kept), &attempted(1, 1), &used(1), 3).unwrap();
    books.carry().await.unwrap();
    assert_eq!(files(&folder), 1);
    ledger.sync().unwrap();
    let sum = store.usage(&UsageQuery { tenant: None, days: (0, 0), groups: Vec::new() }).await.unwrap();
    assert_eq!(sum[0].attempts, sequence);
}

pub(crate) async fn an_error_half_way_doubles_nothing(backend: Shared) {
    let (place, store) = backend.store().await;
    let ledger = Arc::new(Ledger::open(&place.folder().join("ledger"), 1_000).unwrap());
    let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    let mut expected = BTreeMap::new();
    let mut raw = AnyConnection::connect(&place.raw_url()).await.unwrap();
    for round in 0..4_u64 {
        for tenant in 1..=50 {
            let sequence = ledger.next_key().sequence;
            ledger.closed(sequence, None, &attempted(tenant, 1), &used(sequence), 2).unwrap();
            expected.insert(sequence, used(sequence));
        }
        if round % 2 == 1 {
            // The days cannot be written after the records were.
            raw.execute("ALTER TABLE usage_days RENAME TO lost").await.unwrap();
            books.carry().await.unwrap_err();
            raw.execute("ALTER TABLE lost RENAME TO usage_days").await.unwrap();
        }
        books.carry().await.unwrap();
        let found = records(&store).await;
        let found: BTreeMap<u64, Used> = found.into_iter().map(|record| (record.key.sequence, record.used)).collect();
        assert_eq!(found, expected);
        let sum = &store.usage(&UsageQuery { tenant: None, days: (0, 0), groups: Vec::new() }).await.unwrap()[0];
        assert_eq!(sum.attempts, expected.len() as u64);
        assert_eq!(sum.used.device.compute_ns, expected.values().map(|used| used.device.compute_ns).sum::<u64>());
    }
    raw.close().await.unwrap();
}

pub(crate) async fn what_waits_too_long_in_memory_is_read_from_the_files(backend: Shared) {
    let (place, store) = backend.store().await;
    let folder = place.folder().join("ledger");
    // Some records wait, then it is too much; files are short, and one of them cannot be begun.
    let ledger = Arc::new(Ledger::open(&folder, 1_000).unwrap().with_files_of(2_000).with_waiting_of(1_000));
    let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    std::fs::write(folder.join(format!("{}-00000002.log", ledger.boot())), [1]).unwrap();
    let (mut expected, mut refused) = (BTreeMap::new(), 0);
    for round in 0..6_u64 {
        for _ in 0..(round * 7) {
            let sequence = ledger.next_key().sequence;
            let opened = ledger.opened(sequence, &attempted(1, 1));
            let Ok(opened) = opened else {
                refused += 1;
                continue;
            };
            match ledger.closed(sequence, Some(opened), &attempted(1, 1), &used(sequence), 2) {
                Ok(()) => drop(expected.insert(sequence, used(sequence))),
                Err(_) => {
                    refused += 1;
                    ledger.closes_later(sequence, Some(opened), &attempted(1, 1), &used(sequence), 2);
                    expected.insert(sequence, used(sequence));
                }
            }
        }
        ledger.slots(10, SlotTime { wall_ns: round + 1, slots: 1, busy_ns: 0, system_ns: 0 }, false).unwrap();
        books.carry().await.unwrap();
        let found = records(&store).await;
        let found: BTreeMap<u64, Used> = found.into_iter().map(|record| (record.key.sequence, record.used)).collect();
        assert_eq!(found, expected);
        assert_eq!(store.usage_accounts().await.unwrap()[0].slots.wall_ns, round + 1);
    }
    assert_eq!(refused, 1);
    assert_eq!(files(&folder), 1, "nothing is open");
    assert_eq!(store.usage_accounts().await.unwrap()[0].records, expected.len() as u64);
}

pub(crate) async fn whoever_leaves_while_the_books_are_brought_up_to_date_doubles_nothing(backend: Shared) {
    let (place, store) = backend.store().await;
    let ledger = Arc::new(Ledger::open(&place.folder().join("ledger"), 1_000).unwrap());
    let mut books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    let mut expected = 0;
    for patience in 0..40 {
        for _ in 0..3 {
            let sequence = ledger.next_key().sequence;
            ledger.closed(sequence, None, &attempted(1, 1), &used(1), 2).unwrap();
            expected += 1;
        }
        let leave = async {
            for _ in 0..patience {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            carried = books.carry() => drop(carried.unwrap()),
            () = leave => {}
        }
    }
    books.carry().await.unwrap();
    assert_eq!(records(&store).await.len(), expected);
    let sum = store.usage(&UsageQuery { tenant: None, days: (0, 0), groups: Vec::new() }).await.unwrap();
    assert_eq!((sum[0].attempts, sum[0].used.device.compute_ns), (expected as u64, expected as u64));
    // Nor does another keeper of the same log; whoever comes second finds that the mark has moved, and tries again.
    ledger.closed(ledger.next_key().sequence, None, &attempted(1, 1), &used(1), 2).unwrap();
    let mut other = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    for keeper in [&mut other, &mut books] {
        if keeper.carry().await.is_err() {
            keeper.carry().await.unwrap();
        }
        assert_eq!(records(&store).await.len(), expected + 1);
    }
}
