//! Every system call in the jail's list is made by a worker, or has a reason here why it was not seen.
//!
//! A real spawner is traced (`ptrace(2)`), and with it every worker it makes, while a node's side has them load, register,
//! run, fail and end. What a worker asks for after it has put up its filter is compared with the list.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails where it stands")]

#[path = "../process/harness.rs"]
#[expect(dead_code, reason = "shared with the tests of the process, which use all of it")]
mod harness;
mod tracer;

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use tenantry_types::model::{EngineOptions, ModelLimits};
use tenantry_types::testing::onnx;
use tenantry_types::{DataType, ReplicaId};
use tenantry_wire::{FileEntry, FromWorker, ModelForm, Terminator, ToWorker};

use tenantry_jail::{ExitKind, WorkerStart};

use harness::{Peer, TASK, floats, longs, memory_file, next_exit, start_spawner};

/// How `harness` starts workers.
const START: WorkerStart = WorkerStart::Exec;

/// Calls that the worker below does not make on every machine, and why they stay in the list.
const NOT_SEEN: &[(&str, &str)] = &[
    ("SYS_access", "another C library, or an older or newer one, asks this way"),
    ("SYS_clock_getres", "another C library, or an older or newer one, asks this way"),
    ("SYS_clock_nanosleep", "another C library, or an older or newer one, asks this way"),
    ("SYS_faccessat", "another C library, or an older or newer one, asks this way"),
    ("SYS_faccessat2", "another C library, or an older or newer one, asks this way"),
    ("SYS_getrusage", "another C library, or an older or newer one, asks this way"),
    ("SYS_gettimeofday", "another C library, or an older or newer one, asks this way"),
    ("SYS_lstat", "another C library, or an older or newer one, asks this way"),
    ("SYS_nanosleep", "another C library, or an older or newer one, asks this way"),
    ("SYS_poll", "another C library, or an older or newer one, asks this way"),
    ("SYS_readlink", "another C library, or an older or newer one, asks this way"),
    ("SYS_readlinkat", "another C library, or an older or newer one, asks this way"),
    ("SYS_readv", "another C library, or an older or newer one, asks this way"),
    ("SYS_set_tid_address", "another C library, or an older or newer one, asks this way"),
    ("SYS_stat", "another C library, or an older or newer one, asks this way"),
    ("SYS_time", "another C library, or an older or newer one, asks this way"),
    ("SYS_times", "another C library, or an older or newer one, asks this way"),
    ("SYS_arch_prctl", "not by this release of the libraries behind the filter; before it they may"),
    ("SYS_getcwd", "not by this release of the libraries behind the filter; before it they may"),
    ("SYS_getuid", "not by this release of the libraries behind the filter; before it they may"),
    ("SYS_geteuid", "not by this release of the libraries behind the filter; before it they may"),
    ("SYS_getgid", "not by this release of the libraries behind the filter; before it they may"),
    ("SYS_getegid", "not by this release of the libraries behind the filter; before it they may"),
    ("SYS_membarrier", "depends on how many threads run on how many processors"),
    ("SYS_sched_yield", "depends on how many threads run on how many processors"),
    ("SYS_restart_syscall", "only when a suspended worker is resumed in the middle of a wait"),
    ("SYS_rt_sigreturn", "only when a process aborts or a signal has a handler"),
    ("SYS_tgkill", "only when a process aborts or a signal has a handler"),
    ("SYS_write", "only for last words on standard error"),
    ("SYS_ioctl", "only for last words on standard error"),
    ("SYS_lseek", "larger models than the tests': blocks of the heap that grow, files read and written at offsets"),
    ("SYS_mremap", "larger models than the tests': blocks of the heap that grow, files read and written at offsets"),
    ("SYS_pread64", "larger models than the tests': blocks of the heap that grow, files read and written at offsets"),
    ("SYS_pwrite64", "larger models than the tests': blocks of the heap that grow, files read and written at offsets"),
    ("SYS_dup", "the runtime's other ways with descriptors and frames; the next release may take them"),
    ("SYS_sendmsg", "the runtime's other ways with descriptors and frames; the next release may take them"),
    ("SYS_get_mempolicy", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_getdents64", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_mbind", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_mkdirat", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_mlock", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_sched_getparam", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_sched_getscheduler", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_sched_setaffinity", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_sched_setscheduler", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_setpriority", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_socket", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_sysinfo", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_uname", "refused with an error anyway, instead of a death: not by this release of the runtime"),
    ("SYS_unlinkat", "refused with an error anyway, instead of a death: not by this release of the runtime"),
];

#[test]
fn every_listed_call_is_made_or_has_its_reason() {
    let seen = tracer::calls_of_workers(live);
    let listed = tenantry_jail::system_calls();
    let unknown: Vec<_> = NOT_SEEN.iter().filter(|(name, _)| listed.iter().all(|call| call.name != *name)).collect();
    assert!(unknown.is_empty(), "not in the list of the jail: {unknown:?}");
    let excused: BTreeSet<&str> = NOT_SEEN.iter().map(|(name, _)| *name).collect();
    let unneeded: Vec<_> =
        listed.iter().filter(|call| !seen.contains(&call.number) && !excused.contains(call.name)).collect();
    assert!(unneeded.is_empty(), "listed, but made by no worker: {unneeded:#?}");
    // The tracer did see workers.
    for needed in ["SYS_mmap", "SYS_futex", "SYS_recvmsg", "SYS_clone"] {
        let call = listed.iter().find(|call| call.name == needed).unwrap();
        assert!(seen.contains(&call.number), "{needed}: {seen:?}");
    }
}

/// What workers do in their lives.
fn live() {
    let (spawner, exits) = start_spawner();
    tracer::trace(spawner.pid());
    let mut peer = Peer::ready(&spawner);
    let (terminator, terminations) = Terminator::pair().unwrap();
    peer.send(&ToWorker::Terminations, &[terminations.as_fd()]);
    peer.arena(1, 4096, 4096);

    // Files with weights beside them, written in the optimised form, loaded from it, run and forgotten.
    let (model, weights) = onnx::external_matmul16("parts/weights.bin");
    let (model, weights) = (memory_file(&model), memory_file(&weights));
    let (_, optimised) = peer.register(&[("model.onnx", &model), ("parts/weights.bin", &weights)]).unwrap();
    let loaded = peer.load(1, ModelForm::Optimised, &[("model.ort", &optimised)]);
    assert!(matches!(loaded, FromWorker::Loaded { .. }), "{loaded:?}");
    let data = floats(&[4.0; 16]);
    assert_eq!(peer.run(1, &[(DataType::Fp32, &[1, 16], &data)])[0].1, floats(&[8.0; 16]));
    peer.send(&ToWorker::Unload { replica: ReplicaId(1) }, &[]);

    // More threads than one, and files that are none.
    let wide = onnx::scaled_matmul(256, 2.0);
    let load = ToWorker::Load {
        task: TASK,
        replica: ReplicaId(2),
        form: ModelForm::Source,
        files: vec![FileEntry { name: "model.onnx".to_owned(), bytes: wide.len() as u64 }],
        options: EngineOptions { threads: 2, ..EngineOptions::default() },
        limits: ModelLimits::default(),
    };
    peer.send(&load, &[memory_file(&wide).as_fd()]);
    let loaded = peer.recv();
    assert!(matches!(loaded, FromWorker::Loaded { .. }), "{loaded:?}");
    peer.arena(2, 1 << 20, 1 << 20);
    let rows = floats(&vec![1.0; 256 * 256]);
    peer.run(2, &[(DataType::Fp32, &[256, 256], &rows)]);
    for bad in [onnx::unknown_operator(), b"no model".to_vec()] {
        assert!(peer.register(&[("model.onnx", &memory_file(&bad))]).is_err());
    }

    // Answers that do not fit, and a run that is ended.
    peer.load(3, ModelForm::Source, &[("model.onnx", &memory_file(&onnx::expand()))]);
    peer.send_run(3, &[(DataType::Int64, &[1], &longs(&[5_000_000]))]);
    assert!(matches!(peer.recv(), FromWorker::NeedOutput { .. }));
    peer.load(4, ModelForm::Source, &[("model.onnx", &memory_file(&onnx::endless_loop()))]);
    peer.send_run(4, &[(DataType::Int64, &[], &longs(&[0]))]);
    terminator.terminate(TASK).unwrap();
    assert!(matches!(peer.recv(), FromWorker::Failed { .. }));
    // Its threads end with the model they run, and it when it is told.
    peer.send(&ToWorker::Unload { replica: ReplicaId(2) }, &[]);
    peer.send(&ToWorker::Exit, &[]);
    assert_eq!(next_exit(&exits).status, ExitKind::Code(0));
}
