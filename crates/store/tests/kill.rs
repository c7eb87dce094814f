//! `kill -9` at any moment: what was acknowledged is there, and nothing is there half.
//!
//! The test starts itself again as a child that writes and says after each write what is now promised. It is killed after
//! a number of promises and a short spin, both from a seed, and the store is opened and checked against the promises.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "support/values.rs"]
#[expect(dead_code, reason = "shared with the conformance suite, which uses all of it")]
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use tenantry_store::{NewKey, NewVersion, Role, Store, StoreConfig, VersionState};
use tenantry_types::{Digest, TenantId};

const FOLDER: &str = "TENANTRY_KILL_TEST_FOLDER";
const ROUND: &str = "TENANTRY_KILL_TEST_ROUND";
const SEED: u64 = 20_261_122;
const ROUNDS: u64 = 16;

/// A small generator (xorshift64*), so that a failing seed fails again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

fn config(folder: &Path) -> StoreConfig {
    StoreConfig { database_url: None, data_dir: folder.to_owned() }
}

/// What the child promised. The last write before the kill may have happened without a promise.
#[derive(Default)]
struct Promises {
    tenants: BTreeSet<TenantId>,
    /// Announced to go: may be there or not.
    leaving: BTreeSet<TenantId>,
    artefacts: BTreeSet<(TenantId, Digest)>,
    keys: BTreeMap<String, Digest>,
    /// By model and number: the state at least reached, and whether its removal was announced or done.
    versions: BTreeMap<(String, u32), (VersionState, Presence)>,
    aliases: BTreeSet<(String, String, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    There,
    Leaving,
    Gone,
}

impl Promises {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let tenant = || words[1].parse().unwrap();
        let version = || (words[1].to_owned(), words[2].parse().unwrap());
        match words[0] {
            "tenant" => drop(self.tenants.insert(tenant())),
            "leaving" => drop(self.leaving.insert(tenant())),
            "left" => drop(self.tenants.remove(&tenant())),
            "artefact" => drop(self.artefacts.insert((tenant(), words[2].parse().unwrap()))),
            "key" => drop(self.keys.insert(words[1].to_owned(), words[2].parse().unwrap())),
            "registering" => drop(self.versions.insert(version(), (VersionState::Registering, Presence::There))),
            "ready" => self.versions.get_mut(&version()).unwrap().0 = VersionState::Ready,
            "deleting" => self.versions.get_mut(&version()).unwrap().1 = Presence::Leaving,
            "deleted" => self.versions.get_mut(&version()).unwrap().1 = Presence::Gone,
            "alias" => drop(self.aliases.insert((words[1].to_owned(), words[3].to_owned(), words[2].parse().unwrap()))),
            other => panic!("unknown promise {other}"),
        }
    }
}

fn promise(line: &str) {
    // One write, so that a line is there whole or not at all; past the test harness's capture.
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("@{line}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// Not a test of its own: the child of the one below, which runs until it is killed.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        promise("opening");
        let store = Store::open(&config(Path::new(&folder))).await.unwrap();
        let mut dice = Dice(SEED + round);
        for turn in 0.. {
            write_turn(&store, &format!("t{round}-{turn}"), &mut dice).await;
        }
    });
}

/// Everything a server does to a store, once, in a tenant of its own.
async fn write_turn(store: &Store, name: &str, dice: &mut Dice) {
    let tenant = store.create_tenant(&name.parse().unwrap(), false, 1).await.unwrap();
    promise(&format!("tenant {}", tenant.id));
    let (key, _) =
        store.create_key(tenant.id, NewKey { label: "k".to_owned(), ..NewKey::of(Role::Admin) }, 2).await.unwrap();
    promise(&format!("key {} {}", key.id, key.secret_sha256));
    let model = values::model(store, tenant.id, "m").await;
    for number in 1..=3_u32 {
        let mut files = Vec::new();
        for file in 0..2 {
            let bytes = if dice.below(4) == 0 { 1_500_000 } else { dice.below(60_000) };
            let data = vec![dice.below(256) as u8; bytes as usize];
            let mut upload = store.begin_upload(tenant.id, u64::MAX).await.unwrap();
            for chunk in data.chunks(70_000) {
                upload.write(Bytes::copy_from_slice(chunk)).await.unwrap();
            }
            let artefact = upload.finish().await.unwrap();
            // The first version is deleted below, and its files with it, so they are no promise.
            if number > 1 {
                promise(&format!("artefact {} {}", tenant.id, artefact.digest));
            }
            files.push(values::file(&format!("f{file}"), artefact));
        }
        let new = NewVersion { files, deploy: true, ..NewVersion::default() };
        let version = store.create_version(model.id, new, 3).await.unwrap();
        assert_eq!(version.number, number);
        promise(&format!("registering {} {number}", model.id));
        let form = values::optimised(store, tenant.id, "key", &[number as u8; 5_000]).await;
        store.finish_version(version.id, &values::registration("x"), Some(&form)).await.unwrap();
        promise(&format!("ready {} {number}", model.id));
        if number > 1 {
            store.set_alias(model.id, &format!("a{number}").parse().unwrap(), number).await.unwrap();
            promise(&format!("alias {} {number} a{number}", model.id));
        }
    }
    let first = store.version_by_number(model.id, 1).await.unwrap();
    promise(&format!("deleting {} 1", model.id));
    store.delete_version(first.id).await.unwrap();
    promise(&format!("deleted {} 1", model.id));
    if dice.below(3) == 0 {
        promise(&format!("leaving {}", tenant.id));
        store.delete_tenant(tenant.id).await.unwrap();
        promise(&format!("left {}", tenant.id));
    }
}

/// Starts the child, kills it after `promises` promises and `spins` turns, and adds what it promised.
fn run_child(folder: &Path, round: u64, promises: u64, spins: u64, all: &mut Promises) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut seen = 0;
    let mut take = |line: String| {
        // The harness prints its own lines, and the beginning of one before the first promise.
        let Some((_, line)) = line.split_once('@') else { return };
        seen += 1;
        if line != "opening" {
            all.take(line);
        }
        if seen == promises + 1 {
            (0..spins).for_each(|_| std::hint::spin_loop());
            child.kill().unwrap();
        }
    };
    // To the end: what it promised between our count and its death counts, too.
    for line in lines {
        take(line);
    }
    assert!(seen > promises, "the child ended by itself");
    let status = child.wait().unwrap();
    assert!(!status.success());
}

async fn check(folder: &Path, promises: &Promises) {
    let store = Store::open(&config(folder)).await.unwrap();
    assert!(!folder.join("staging").exists(), "unfinished uploads are cleared");
    let catalogue = store.catalogue().await.unwrap();

    let tenants: BTreeSet<TenantId> = catalogue.tenants.iter().map(|tenant| tenant.id).collect();
    let stays = |tenant: &TenantId| promises.tenants.contains(tenant) && !promises.leaving.contains(tenant);
    assert!(promises.tenants.iter().filter(|tenant| stays(tenant)).all(|tenant| tenants.contains(tenant)));
    for tenant in promises.leaving.difference(&promises.tenants) {
        assert!(!tenants.contains(tenant), "a deleted tenant is back");
    }
    let keys: BTreeMap<String, Digest> =
        catalogue.keys.iter().map(|key| (key.id.to_string(), key.secret_sha256)).collect();
    let owner_of_key: BTreeMap<String, TenantId> =
        catalogue.keys.iter().map(|key| (key.id.to_string(), key.tenant)).collect();
    for (id, secret) in &promises.keys {
        match keys.get(id) {
            Some(kept) => assert!(kept == secret && tenants.contains(&owner_of_key[id])),
            None => assert!(!promises.leaving.is_empty(), "a key is lost"),
        }
    }

    let owners: BTreeMap<_, _> = catalogue.models.iter().map(|model| (model.id, model.owner)).collect();
    assert!(owners.values().all(|owner| tenants.contains(owner)));
    assert_eq!(owners.len(), catalogue.deployments.len(), "every model has its deployment");
    let mut present = BTreeMap::new();
    for version in &catalogue.versions {
        assert_eq!(version.files.len(), 2, "a version is there with all its files");
        let owner = owners[&version.model];
        for file in &version.files {
            let opened = store.open_artefact(owner, file.digest).await.unwrap();
            assert_eq!(hash(opened), (file.digest, file.bytes));
        }
        assert_eq!(version.registration.is_some(), version.state == VersionState::Ready);
        if let Some(form) = &version.optimised {
            let opened = store.open_optimised(owner, form).await.unwrap();
            assert_eq!(hash(opened), (form.digest, form.bytes));
        }
        present.insert((version.model.to_string(), version.number), version.state.clone());
    }
    let models: BTreeSet<String> = owners.keys().map(ToString::to_string).collect();
    for (version, (state, presence)) in &promises.versions {
        match (present.get(version), presence) {
            (Some(_), Presence::Gone) => panic!("a deleted version is back: {version:?}"),
            (Some(kept), _) => assert!(kept == state || *state == VersionState::Registering, "{version:?}: {kept:?}"),
            (None, Presence::There) => assert!(!models.contains(&version.0), "a version is lost: {version:?}"),
            (None, _) => {}
        }
    }
    for deployment in &catalogue.deployments {
        // Each version is deployed in the transaction that makes it ready.
        let model = deployment.model.to_string();
        let ready = present.iter().filter(|((of, _), state)| *of == model && **state == VersionState::Ready);
        assert_eq!(deployment.version, ready.map(|((_, number), _)| *number).max());
    }
    let aliases: BTreeSet<_> =
        catalogue.aliases.iter().map(|a| (a.model.to_string(), a.name.to_string(), a.version)).collect();
    for alias in &promises.aliases {
        assert!(aliases.contains(alias) || !models.contains(&alias.0), "an alias is lost: {alias:?}");
    }
    check_files(folder, &tenants, promises);
}

/// Whatever is at an address has the bytes the address says, and only tenants have files.
fn check_files(folder: &Path, tenants: &BTreeSet<TenantId>, promises: &Promises) {
    let Ok(owners) = std::fs::read_dir(folder.join("artefacts")) else { return };
    for owner in owners.map(Result::unwrap) {
        let id: TenantId = owner.file_name().to_str().unwrap().parse().unwrap();
        assert!(tenants.contains(&id), "files of a deleted tenant");
        for file in std::fs::read_dir(owner.path()).unwrap().map(Result::unwrap) {
            let digest: Digest = file.file_name().to_str().unwrap().parse().unwrap();
            assert_eq!(hash(std::fs::File::open(file.path()).unwrap()).0, digest);
        }
    }
    for (owner, digest) in &promises.artefacts {
        let kept = folder.join(format!("artefacts/{owner}/{digest}")).exists();
        assert!(kept || !tenants.contains(owner), "an acknowledged upload is lost");
    }
}

fn hash(mut file: std::fs::File) -> (Digest, u64) {
    let mut data = Vec::new();
    file.read_to_end(&mut data).unwrap();
    (Digest::of(&data), data.len() as u64)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut dice = Dice(SEED);
    let lasting = tempfile::tempdir().unwrap();
    let mut all = Promises::default();
    for round in 0..ROUNDS {
        let spins = dice.below(400_000);
        // Every fourth child is killed while it creates its folder, its database and its tables.
        if round % 4 == 0 {
            let fresh = tempfile::tempdir().unwrap();
            let mut promises = Promises::default();
            for again in 0..3 {
                run_child(&fresh.path().join("data"), 1_000 + 3 * round + again, 0, spins, &mut promises);
            }
            runtime.block_on(check(&fresh.path().join("data"), &promises));
        } else {
            run_child(lasting.path(), round, 1 + dice.below(60), spins, &mut all);
            runtime.block_on(check(lasting.path(), &all));
        }
    }
    assert!(all.versions.len() as u64 > ROUNDS, "the children got somewhere: {} versions", all.versions.len());
}
