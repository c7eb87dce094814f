//! What a worker has and has not.

use tenantry_jail::{ExitKind, Layer, WorkerSpec, WorkerStart};
use tenantry_types::testing::onnx;
use tenantry_wire::{FromWorker, ModelForm};

use crate::harness::{Peer, memory_file, next_exit, spec, start_spawner};

fn proc_file(pid: i32, name: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{name}")).unwrap()).into_owned()
}

fn descriptors(pid: i32) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    let mut descriptors: Vec<(u32, String)> = entries
        .map(|entry| {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            (number, std::fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned())
        })
        .collect();
    descriptors.sort_unstable();
    descriptors
}

/// The fields of `/proc/PID/stat` after the name, from field 3 (`man 5 proc`).
fn stat(pid: i32) -> Vec<String> {
    let stat = proc_file(pid, "stat");
    stat.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_worker_has_one_socket_no_environment_and_an_empty_place() {
    // Something of the server's that a careless spawn would hand on.
    let _leaks: Vec<std::fs::File> = (0..20).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
    let (spawner, _exits) = start_spawner();
    let _first = Peer::ready(&spawner);
    let mut peer = Peer::ready(&spawner);
    peer.arena(1, 4096, 4096);
    // Loading leaves no descriptor behind, once the next frame is being answered.
    let loaded = peer.load(1, ModelForm::Source, &[("model.onnx", &memory_file(&onnx::matmul16()))]);
    assert!(matches!(loaded, FromWorker::Loaded { .. }), "{loaded:?}");
    peer.send_run(99, &[]);
    assert!(matches!(peer.recv(), FromWorker::Failed { .. }));
    let pid = peer.process.pid;
    let descriptors = descriptors(pid);
    assert_eq!(descriptors.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3], "{descriptors:?}");
    assert_eq!(descriptors[0].1, "/dev/null");
    assert_eq!(descriptors[1].1, "/dev/null");
    assert!(descriptors[2].1.starts_with("pipe:") && descriptors[3].1.starts_with("socket:"), "{descriptors:?}");
    // The kernel shows the environment a program was executed with: of a fork, the zygote's.
    let environment = if crate::START == WorkerStart::Exec { "ORT_DISABLE_TELEMETRY=1\0" } else { "" };
    assert_eq!(proc_file(pid, "environ"), environment);
    assert_eq!(stat(pid)[3], pid.to_string(), "its own session");
    // One thread: the runtime has started none, and so sends nothing anywhere.
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1);
    if spawner.barriers().in_force.has(Layer::Root) {
        let root = std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(root.collect::<Vec<_>>(), ["proc"]);
    } else {
        let place = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert!(place.to_string_lossy().ends_with("(deleted)"), "{place:?}");
    }
    let limits = proc_file(pid, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);
}

/// What this machine allows, for whoever reads the log of a failed run.
#[test]
fn the_barriers_of_this_machine() {
    let (spawner, _exits) = start_spawner();
    println!("{}: {:#?}", spawner.barriers().level(), spawner.barriers());
    assert!(spawner.barriers().in_force.has(Layer::Seccomp), "every Linux has filters");
}

#[test]
fn the_spawner_has_nothing_of_the_servers_either() {
    let _leaks: Vec<std::fs::File> = (0..20).map(|_| std::fs::File::open("/proc/self/stat").unwrap()).collect();
    let (spawner, exits) = start_spawner();
    let peer = Peer::ready(&spawner);
    let pid = spawner.pid().try_into().unwrap();
    // Its two sockets, the number reserved for workers' sockets, and one descriptor a worker. Its own control groups are
    // locked by descriptors, too.
    let is_group = |target: &str| target.ends_with(&format!("/tenantry-{pid}"));
    let count = |pid| descriptors(pid).iter().filter(|(number, target)| *number > 2 && !is_group(target)).count();
    assert_eq!(count(pid), 4, "{:?}", descriptors(pid));
    assert_eq!(proc_file(pid, "environ"), "");
    peer.process.kill().unwrap();
    assert_eq!(next_exit(&exits).status, ExitKind::Signal(9));
    assert_eq!(count(pid), 3, "{:?}", descriptors(pid));
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1);
}

#[test]
fn a_spec_sets_processors_niceness_and_limits() {
    let (spawner, _exits) = start_spawner();
    let spec =
        WorkerSpec { cpus: vec![0], nice: 5, address_space_bytes: Some(3 << 30), file_bytes: Some(1 << 30), ..spec() };
    let peer = Peer::spawn(&spawner, &spec);
    assert!(matches!(peer.recv(), FromWorker::Ready { .. }));
    let pid = peer.process.pid;
    assert!(proc_file(pid, "status").lines().any(|line| line == "Cpus_allowed_list:\t0"));
    assert_eq!(stat(pid)[16], "5");
    let limits = proc_file(pid, "limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(limit("Max address space"), (3_u64 << 30).to_string());
    assert_eq!(limit("Max file size"), (1_u64 << 30).to_string());
    let nowhere = WorkerSpec { cpus: vec![100_000], ..spec };
    let (channel, _) = tenantry_wire::Channel::pair().unwrap();
    let (_, stderr) = rustix::pipe::pipe().unwrap();
    let refused = spawner.spawn(&nowhere, channel, stderr).unwrap_err();
    assert!(refused.to_string().contains("no processor"), "{refused}");
    Peer::ready(&spawner);
}

#[test]
fn a_registration_larger_than_the_file_limit_fails_cleanly() {
    let (spawner, _exits) = start_spawner();
    let spec = WorkerSpec { file_bytes: Some(10_000), ..spec() };
    let peer = Peer::spawn(&spawner, &spec);
    assert!(matches!(peer.recv(), FromWorker::Ready { .. }));
    assert!(peer.register(&[("model.onnx", &memory_file(&onnx::matmul16()))]).is_ok());
    let large = memory_file(&onnx::scaled_matmul(100, 1.0));
    assert!(peer.register(&[("model.onnx", &large)]).is_err());
    assert!(peer.register(&[("model.onnx", &memory_file(&onnx::matmul16()))]).is_ok());
}
