//! A worker makes a system call that is forbidden: the kernel ends it, and its owner reads that in the audit trail, nobody
//! else does.
//!
//! The program is started three times over: as the test, as the spawner (`spawner`) and as a worker (`work`) that puts up the
//! real barriers, registers whatever it is given, and makes the call when it is to run. Service, store, node, spawner and
//! kernel are the real ones.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test with its own main"
)]

#[expect(dead_code, reason = "shared with a test that needs more of it")]
mod support;

use std::process::ExitCode;

use support::*;
use tenantry_jail::{Layer, Layers};
use tenantry_server::admin::{AuditActorInfo, AuditInfo, AuditQuery};
use tenantry_types::model::{BatchPoint, EngineOptions, FileMetadata, Profile, Registration};
use tenantry_types::{DataType, Dim, ErrorCode, Signature, TensorSpec};
use tenantry_wire::{Channel, FromWorker, PROTOCOL, ToWorker};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("spawner") => tenantry_jail::spawner_main(),
        // work --runtime LIBRARY --layers BITS
        Some("work") => work(Layers::from_bits(arguments[5].parse().unwrap())),
        _ => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(test());
            ExitCode::SUCCESS
        }
    }
}

// ---- the worker ----

fn work(layers: Layers) -> ExitCode {
    let channel = Channel::new(tenantry_jail::inherited_channel().unwrap());
    tenantry_jail::lock_down(layers).unwrap();
    let ready = FromWorker::Ready {
        protocol: PROTOCOL,
        runtime: "1".to_owned(),
        cpu: "none".to_owned(),
        layers: layers.bits(),
    };
    channel.send(&ready, &[]).unwrap();
    while let Ok((frame, _files)) = channel.recv_with_fds::<ToWorker>(8) {
        let answer = match frame {
            ToWorker::Register { task, .. } => {
                FromWorker::Registered { task, registration: Box::new(registration()), optimised_bytes: 0 }
            }
            ToWorker::Load { task, replica, .. } => FromWorker::Loaded { task, replica, load_ns: 1, resident_bytes: 1 },
            ToWorker::Run { .. } => {
                // What a model that took over its worker might try. It does not return.
                let _ = rustix::system::sethostname(b"mine");
                return ExitCode::SUCCESS;
            }
            _ => continue,
        };
        channel.send(&answer, &[]).unwrap();
    }
    ExitCode::SUCCESS
}

fn registration() -> Registration {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        dims: vec![Dim::Named("n".to_owned()), Dim::Fixed(16)],
    };
    Registration {
        pipeline: None,
        signature: Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
        metadata: FileMetadata::default(),
        can_batch: false,
        profile: Profile {
            runtime: "1".to_owned(),
            options: EngineOptions::default(),
            load_ns: 1,
            optimised_load_ns: 1,
            resident_bytes: 1,
            optimised_bytes: 0,
            best_batch: 1,
            points: vec![BatchPoint { rows: 1, run_ns: 1_000 }],
        },
    }
}

// ---- the test ----

async fn test() {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let world = World::start_changed(folder.path(), &program, |_| {}, |config| config).await;
    if !world.node.isolation().in_force.has(Layer::Seccomp) {
        println!("skipped: system calls cannot be forbidden here");
        return;
    }
    let (acme, globex) = (world.tenant("acme").await, world.tenant("globex").await);
    for owner in [&acme, &globex] {
        world.push(owner, "net", "net.onnx", b"whatever").await;
    }
    let failed = world.matmul(&acme, "net", 1.0).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::ModelFailed, "{failed}");

    let record = incident(&world, &acme).await;
    assert_eq!((record.tenant.as_deref(), record.object.as_str()), (Some("acme"), "acme/net:1"));
    assert_eq!((record.actor, record.outcome.as_str()), (AuditActorInfo::Server, "ended"));
    assert!(record.detail.contains("system call"), "{}", record.detail);
    let others = world.server.audit(&globex, &globex.tenant_name, AuditQuery::default()).await.unwrap();
    assert!(!others.is_empty() && others.iter().all(|record| !record.action.starts_with("incident.")), "{others:?}");
    let unknown = world.server.audit(&globex, &acme.tenant_name, AuditQuery::default()).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let all = world.server.audit_of_all(&world.platform(), AuditQuery::default()).await.unwrap();
    assert!(all.iter().any(|record| record.action == "incident.forbidden_call"));
    world.stop().await;
    println!("forbidden_call: 1 passed, 0 failed");
}

/// The record of the kill, once it is written: the audit is asked again after each change of the node, which tells of the
/// death first.
async fn incident(world: &World, who: &tenantry_server::Principal) -> AuditInfo {
    let read = async {
        loop {
            let records = world.server.audit(who, &who.tenant_name, AuditQuery::default()).await.unwrap();
            if let Some(record) = records.into_iter().find(|record| record.action == "incident.forbidden_call") {
                return record;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("no record of the kill")
}
