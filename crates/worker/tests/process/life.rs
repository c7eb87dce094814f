//! How workers begin and end.

use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal};
use tenantry_jail::{ExitKind, ExitsError, SpawnError, Spawner, StartError, SuspendBy, WorkerSpec, WorkerStart};
use tenantry_types::DataType;
use tenantry_types::testing::onnx;
use tenantry_wire::{Channel, FromWorker, RecvError, ToWorker};

use crate::harness::{Peer, longs, memory_file, next_exit, spec, start_spawner, wait};

const SIGFPE: i32 = 8;
const SIGKILL: i32 = 9;

fn pidfd(pid: i32) -> OwnedFd {
    rustix::process::pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

fn kill(pid: i32) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_worker_ends_when_told_and_when_its_node_is_gone() {
    let (spawner, exits) = start_spawner();
    let told = Peer::ready(&spawner);
    told.send(&ToWorker::Exit, &[]);
    let exit = next_exit(&exits);
    assert_eq!((exit.pid, exit.serial), (told.process.pid, told.process.serial));
    assert_eq!(exit.status, ExitKind::Code(0));
    assert_eq!(told.last_words(), "");
    let Peer { process, channel, .. } = Peer::ready(&spawner);
    drop(channel);
    let exit = next_exit(&exits);
    assert_eq!((exit.serial, exit.status), (process.serial, ExitKind::Code(0)));
    // Signals to a worker that is gone reach nobody.
    process.kill().unwrap();
    process.suspend(SuspendBy::Auto).unwrap();
}

#[test]
fn a_killed_worker_is_noticed_and_the_others_are_not_disturbed() {
    let (spawner, exits) = start_spawner();
    let victim = Peer::ready(&spawner);
    let mut other = Peer::serving(&spawner, &onnx::counting_loop());
    assert_ne!(victim.process.serial, other.process.serial);
    victim.process.kill().unwrap();
    let exit = next_exit(&exits);
    assert_eq!((exit.serial, exit.status), (victim.process.serial, ExitKind::Signal(SIGKILL)));
    assert!(matches!(victim.channel.recv::<FromWorker>(), Err(RecvError::Closed)));
    assert_eq!(other.run(1, &[(DataType::Int64, &[], &longs(&[5]))])[0].1, longs(&[5]));
    kill(other.process.pid);
    assert_eq!(next_exit(&exits).serial, other.process.serial);
    assert!(exits.next().unwrap().is_none());
}

/// Lets the worker compute for a while, by its own clock, and sees that it has not answered.
fn assert_still_computing(peer: &Peer) {
    const A_WHILE_NS: u64 = 400_000_000;
    let used_ns = || -> u64 {
        let schedstat = std::fs::read_to_string(format!("/proc/{}/schedstat", peer.process.pid)).unwrap();
        schedstat.split(' ').next().unwrap().parse().unwrap()
    };
    let before = used_ns();
    while used_ns() < before + A_WHILE_NS {
        std::thread::yield_now();
    }
    peer.channel.set_nonblocking(true).unwrap();
    assert!(matches!(peer.channel.recv::<FromWorker>(), Err(RecvError::WouldBlock)));
}

#[test]
fn what_never_returns_is_killed() {
    let (spawner, exits) = start_spawner();
    let mut looping = Peer::serving(&spawner, &onnx::endless_loop());
    looping.send_run(1, &[(DataType::Int64, &[], &longs(&[0]))]);
    assert_still_computing(&looping);
    looping.process.kill().unwrap();
    assert_eq!(next_exit(&exits).status, ExitKind::Signal(SIGKILL));

    let bombed = Peer::ready(&spawner);
    let model = memory_file(&onnx::endless_loop());
    let register = ToWorker::Register {
        task: tenantry_types::TaskId(1),
        files: vec![tenantry_wire::FileEntry { name: "model.onnx".to_owned(), bytes: model.metadata().unwrap().len() }],
        settings: tenantry_types::model::VersionSettings::default(),
        limits: tenantry_types::model::ModelLimits::default(),
    };
    let optimised = tenantry_wire::scratch_file().unwrap();
    bombed.send(&register, &[model.as_fd(), optimised.as_fd()]);
    assert_still_computing(&bombed);
    bombed.process.kill().unwrap();
    assert_eq!(next_exit(&exits).status, ExitKind::Signal(SIGKILL));
}

#[test]
fn a_request_that_kills_the_process_kills_only_the_process() {
    let (spawner, exits) = start_spawner();
    let mut peer = Peer::serving(&spawner, &onnx::div_i64());
    let (a, b) = (longs(&[i64::MIN]), longs(&[-1]));
    peer.send_run(1, &[(DataType::Int64, &[1], &a), (DataType::Int64, &[1], &b)]);
    assert_eq!(next_exit(&exits).status, ExitKind::Signal(SIGFPE));
    assert!(matches!(peer.channel.recv::<FromWorker>(), Err(RecvError::Closed)));
    Peer::ready(&spawner);
}

#[test]
fn a_suspended_worker_stands_still_and_goes_on() {
    let (spawner, _exits) = start_spawner();
    let mut peer = Peer::serving(&spawner, &onnx::counting_loop());
    peer.process.suspend(SuspendBy::Stop).unwrap();
    peer.send_run(1, &[(DataType::Int64, &[], &longs(&[9]))]);
    peer.channel.set_nonblocking(true).unwrap();
    // Stopped: what was sent lies there unanswered however often one looks.
    let stat = format!("/proc/{}/stat", peer.process.pid);
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        std::thread::yield_now();
    }
    assert!(matches!(peer.channel.recv::<FromWorker>(), Err(RecvError::WouldBlock)));
    peer.process.resume(SuspendBy::Stop).unwrap();
    assert_eq!(peer.outputs(&peer.recv())[0].1, longs(&[9]));
}

#[test]
fn what_is_not_a_frame_ends_the_worker() {
    let (spawner, exits) = start_spawner();
    let frame = postcard_exit();
    for packet in [&[255_u8, 255][..], &[&frame[..], &[0]].concat(), &vec![0; 70_000]] {
        let peer = Peer::ready(&spawner);
        rustix::net::send(&peer.channel, packet, rustix::net::SendFlags::empty()).unwrap();
        assert_eq!(next_exit(&exits).status, ExitKind::Code(76));
        assert!(peer.last_words().contains("malformed frame"));
    }
    // So does an arena without its descriptors, or with others.
    let peer = Peer::ready(&spawner);
    peer.send(&ToWorker::Arena { generation: 1, input_bytes: 1, output_bytes: 1 }, &[]);
    assert_eq!(next_exit(&exits).status, ExitKind::Code(76));
    let peer = Peer::ready(&spawner);
    let file = memory_file(b"x");
    peer.send(&ToWorker::Arena { generation: 1, input_bytes: 1, output_bytes: 1 }, &[file.as_fd(), file.as_fd()]);
    assert_eq!(next_exit(&exits).status, ExitKind::Code(76));
}

/// The bytes of a good frame, seen on a socket of our own.
fn postcard_exit() -> Vec<u8> {
    let (one, other) = Channel::pair().unwrap();
    Channel::new(one).send(&ToWorker::Exit, &[]).unwrap();
    let mut bytes = [0; 16];
    let (_, length) = rustix::net::recv(&other, &mut bytes, rustix::net::RecvFlags::empty()).unwrap();
    bytes[..length].to_vec()
}

#[test]
fn a_wrong_runtime_library_is_said_in_one_line() {
    let (spawner, exits) = start_spawner();
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), [b'#'; 200]).unwrap();
    for (library, words) in
        [(Path::new("/nowhere/onnxruntime.so"), "make fetch"), (text.path(), "not a 64-bit shared library")]
    {
        let spec = WorkerSpec { runtime_library: library.to_owned(), ..spec() };
        if crate::START == WorkerStart::Zygote {
            // It is the zygote that loads it, so the zygote says so, and goes on.
            let (channel, _) = Channel::pair().unwrap();
            let (_, stderr) = rustix::pipe::pipe().unwrap();
            let refused = spawner.spawn(&spec, channel, stderr).unwrap_err().to_string();
            assert!(refused.contains(words) && refused.lines().count() == 1, "{refused}");
            continue;
        }
        let peer = Peer::spawn(&spawner, &spec);
        assert_eq!(next_exit(&exits).status, ExitKind::Code(78));
        let last_words = peer.last_words();
        assert!(last_words.contains(words) && last_words.lines().count() == 1, "{last_words}");
    }
}

#[test]
fn workers_die_with_the_spawner() {
    let (spawner, exits) = start_spawner();
    let peers = [Peer::ready(&spawner), Peer::ready(&spawner)];
    kill(spawner.pid().try_into().unwrap());
    for peer in &peers {
        wait(peer.process.as_fd());
    }
    wait(exits.as_fd());
    assert!(matches!(exits.next(), Err(ExitsError::Closed)));
    let (channel, _) = Channel::pair().unwrap();
    let (_, stderr) = rustix::pipe::pipe().unwrap();
    assert!(matches!(spawner.spawn(&spec(), channel, stderr), Err(SpawnError::Closed)));
}

#[test]
fn dropping_the_handle_ends_the_spawner_and_its_workers() {
    let (spawner, _exits) = start_spawner();
    let peer = Peer::ready(&spawner);
    let spawner_process = pidfd(spawner.pid().try_into().unwrap());
    drop(spawner);
    wait(spawner_process.as_fd());
    wait(peer.process.as_fd());
}

/// A server in a process of its own, to be killed.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child_that_serves() {
    let (spawner, _exits) = start_spawner();
    let peer = Peer::ready(&spawner);
    println!("pids {} {}", spawner.pid(), peer.process.pid);
    let _ = std::io::stdin().lines().next();
    panic!("the parent went away first");
}

#[test]
fn everything_dies_with_the_server() {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::child_that_serves", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("pids ")).unwrap();
    let pids = line.split("pids ").nth(1).unwrap().split(' ').map(|pid| pidfd(pid.trim().parse().unwrap()));
    let pids: Vec<OwnedFd> = pids.collect();
    assert_eq!(pids.len(), 2);
    server.kill().unwrap();
    for pid in &pids {
        wait(pid.as_fd());
    }
    server.wait().unwrap();
}

#[test]
fn a_wrong_worker_binary_is_told_from_a_missing_one() {
    assert!(matches!(Spawner::start(Path::new("/nowhere/tenantry-worker")), Err(StartError::Exec(_))));
    assert!(matches!(Spawner::start(Path::new("/bin/true")), Err(StartError::WrongBinary)));
}

#[test]
fn by_hand_the_binary_explains_itself() {
    for arguments in [&[][..], &["spawner"], &["spawner", "0", "1"], &["work"], &["nonsense"]] {
        let output = Command::new(crate::harness::binary()).args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8(output.stderr).unwrap().contains("nothing to do with it by hand"));
    }
}
