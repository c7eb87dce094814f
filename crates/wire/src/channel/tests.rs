use std::io::{Read as _, Seek as _, Write as _};

use tenantry_types::{ReplicaId, TaskId};

use super::*;
use crate::frame::{FileEntry, FromWorker, ToWorker};

fn channels() -> (Channel, Channel) {
    let (one, other) = Channel::pair().unwrap();
    (Channel::new(one), Channel::new(other))
}

fn raw_send(channel: &Channel, bytes: &[u8]) {
    rustix::net::send(channel, bytes, SendFlags::empty()).unwrap();
}

#[test]
fn frames_arrive_one_by_one_and_then_the_end() {
    let (node, worker) = channels();
    node.send(&ToWorker::Unload { replica: ReplicaId(1) }, &[]).unwrap();
    node.send(&ToWorker::Exit, &[]).unwrap();
    drop(node);
    assert_eq!(worker.recv::<ToWorker>().unwrap(), ToWorker::Unload { replica: ReplicaId(1) });
    assert_eq!(worker.recv::<ToWorker>().unwrap(), ToWorker::Exit);
    assert!(matches!(worker.recv::<ToWorker>(), Err(RecvError::Closed)));
    assert!(matches!(worker.send(&FromWorker::NeedOutput { task: TaskId(1), bytes: 1 }, &[]), Err(SendError::Closed)));
}

#[test]
fn a_frame_larger_than_the_small_buffer_arrives_and_one_larger_than_the_limit_is_not_sent() {
    let (node, worker) = channels();
    let files = |count| ToWorker::Register {
        task: TaskId(1),
        files: (0..count).map(|number| FileEntry { name: format!("{number:0100}"), bytes: number }).collect(),
        settings: tenantry_types::model::VersionSettings::default(),
        limits: tenantry_types::model::ModelLimits::default(),
    };
    node.send(&files(500), &[]).unwrap();
    assert_eq!(worker.recv::<ToWorker>().unwrap(), files(500));
    assert!(matches!(node.send(&files(1_000), &[]), Err(SendError::TooLarge)));
    assert!(matches!(node.send(&ToWorker::Exit, &vec![node.as_fd(); MAX_FDS + 1]), Err(SendError::TooLarge)));
    node.send(&ToWorker::Exit, &[]).unwrap();
    assert_eq!(worker.recv::<ToWorker>().unwrap(), ToWorker::Exit);
}

#[test]
fn packets_that_are_not_frames_are_malformed_and_the_next_frame_is_still_understood() {
    let (node, worker) = channels();
    node.set_nonblocking(true).unwrap();
    assert!(matches!(node.recv::<FromWorker>(), Err(RecvError::WouldBlock)));
    let mut frame = postcard::to_allocvec(&FromWorker::NeedOutput { task: TaskId(1), bytes: 2 }).unwrap();
    frame.push(0);
    for packet in [&[255_u8][..], &[2, 255, 255], &frame, &vec![0; MAX_FRAME_BYTES + 1]] {
        raw_send(&worker, packet);
        assert!(matches!(node.recv::<FromWorker>(), Err(RecvError::Malformed(_))));
    }
    frame.pop();
    raw_send(&worker, &frame);
    assert_eq!(node.recv::<FromWorker>().unwrap(), FromWorker::NeedOutput { task: TaskId(1), bytes: 2 });
}

#[test]
fn a_full_socket_says_so() {
    let (node, _worker) = channels();
    node.set_nonblocking(true).unwrap();
    let refused = (0..100_000).find_map(|_| node.send(&ToWorker::Exit, &[]).err());
    assert!(matches!(refused, Some(SendError::WouldBlock)));
}

#[test]
fn descriptors_travel_to_the_worker_in_order_and_are_closed_on_exec() {
    let (node, worker) = channels();
    let files: Vec<_> = (0..MAX_FDS)
        .map(|number| {
            let mut file = std::fs::File::from(crate::scratch_file().unwrap());
            writeln!(file, "{number}").unwrap();
            file
        })
        .collect();
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    node.send(&ToWorker::Exit, &fds).unwrap();
    let (frame, received) = worker.recv_with_fds::<ToWorker>(MAX_FDS).unwrap();
    assert_eq!((frame, received.len()), (ToWorker::Exit, MAX_FDS));
    for (number, fd) in received.into_iter().enumerate() {
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let (mut file, mut text) = (std::fs::File::from(fd), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text.trim(), number.to_string());
    }
}

#[test]
fn more_descriptors_than_expected_are_malformed_and_closed() {
    let (node, worker) = channels();
    let (pipe_reader, pipe_writer) = rustix::pipe::pipe().unwrap();
    node.send(&ToWorker::Exit, &[pipe_writer.as_fd(), pipe_writer.as_fd()]).unwrap();
    drop(pipe_writer);
    assert!(matches!(worker.recv_with_fds::<ToWorker>(1), Err(RecvError::Malformed(_))));
    // End of file at once: no copy of the writing end is left open anywhere.
    assert_eq!(rustix::io::read(&pipe_reader, &mut [0_u8; 1]).unwrap(), 0);
}

#[test]
fn the_node_never_accepts_descriptors() {
    let (node, worker) = channels();
    let (pipe_reader, pipe_writer) = rustix::pipe::pipe().unwrap();
    let frame = FromWorker::NeedOutput { task: TaskId(1), bytes: 2 };
    worker.send(&frame, &[pipe_writer.as_fd(); 60]).unwrap();
    drop(pipe_writer);
    assert_eq!(node.recv::<FromWorker>().unwrap(), frame);
    assert_eq!(rustix::io::read(&pipe_reader, &mut [0_u8; 1]).unwrap(), 0);
}
