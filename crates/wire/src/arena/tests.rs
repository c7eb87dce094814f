use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::FileMap;

const BYTES: u64 = 10_000;

fn worker_view(input: &InputArena, output: &OutputArena) -> WorkerArena {
    WorkerArena::map(input.as_fd(), BYTES, output.as_fd(), BYTES).unwrap()
}

#[test]
fn inputs_reach_the_worker_and_outputs_the_node() {
    let (mut input, output) = (InputArena::create(BYTES).unwrap(), OutputArena::create(BYTES).unwrap());
    let mut worker = worker_view(&input, &output);
    input.write(64, b"question").unwrap();
    assert_eq!(worker.input(64, 8).unwrap(), b"question");
    worker.output_mut(BYTES - 6, 6).unwrap().copy_from_slice(b"answer");
    assert_eq!(output.copy_out(BYTES - 6, 6).unwrap(), b"answer");
    // The arena is kept: a second batch goes through the same mapping.
    input.write(0, b"again").unwrap();
    assert_eq!(worker.input(0, 5).unwrap(), b"again");
}

#[test]
fn the_worker_cannot_write_inputs_nor_change_any_size() {
    let (mut input, output) = (InputArena::create(BYTES).unwrap(), OutputArena::create(BYTES).unwrap());
    let writable = ProtFlags::READ | ProtFlags::WRITE;
    assert!(Mapping::new(input.as_fd(), BYTES, writable).is_err());
    assert_eq!(rustix::io::pwrite(&input, b"x", 0), Err(Errno::PERM));
    let punch = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    assert_eq!(rustix::fs::fallocate(&input, punch, 0, 4096), Err(Errno::PERM));
    for fd in [input.as_fd(), output.as_fd()] {
        for size in [0, BYTES * 2] {
            assert_eq!(rustix::fs::ftruncate(fd, size), Err(Errno::PERM));
        }
        assert_eq!(rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE), Err(Errno::PERM));
    }
    // The node's own mapping still works, and so does the worker's of outputs.
    input.write(0, b"x").unwrap();
    assert!(Mapping::new(output.as_fd(), BYTES, writable).is_ok());
}

#[test]
fn descriptors_that_could_change_under_the_worker_are_refused() {
    let (input, output) = (InputArena::create(BYTES).unwrap(), OutputArena::create(BYTES).unwrap());
    let unsealed = memfd("unsealed", BYTES).unwrap();
    let map = |one: BorrowedFd<'_>, bytes| WorkerArena::map(one, bytes, output.as_fd(), BYTES);
    assert!(matches!(map(unsealed.as_fd(), BYTES), Err(ArenaError::NotSealed)));
    assert!(matches!(map(input.as_fd(), BYTES + 1), Err(ArenaError::Size)));
    let (socket, _other) = crate::Channel::pair().unwrap();
    assert!(map(socket.as_fd(), BYTES).is_err());
}

#[test]
fn an_empty_arena_is_an_arena() {
    let (mut input, output) = (InputArena::create(0).unwrap(), OutputArena::create(0).unwrap());
    input.write(0, b"").unwrap();
    assert!(input.write(0, b"x").is_err());
    assert_eq!(output.copy_out(0, 0).unwrap(), b"");
    assert!(output.copy_out(0, 1).is_err());
}

#[test]
fn a_file_is_mapped_whole_or_not_at_all() {
    let fd = memfd("file", 0).unwrap();
    rustix::io::write(&fd, b"weights").unwrap();
    let map = FileMap::map(fd.as_fd(), 7).unwrap();
    drop(fd);
    assert_eq!(map.as_ref(), b"weights");
    let short = memfd("file", 3).unwrap();
    assert!(FileMap::map(short.as_fd(), 4).is_err());
}

proptest! {
    #[test]
    fn every_range_is_checked(offset in prop_oneof![0..2 * BYTES, any::<u64>()], len in prop_oneof![0..2 * BYTES, any::<u64>()]) {
        let (input, output) = (InputArena::create(BYTES).unwrap(), OutputArena::create(BYTES).unwrap());
        let mut worker = worker_view(&input, &output);
        let inside = offset.checked_add(len).is_some_and(|end| end <= BYTES);
        prop_assert_eq!(worker.input(offset, len).is_some(), inside);
        prop_assert_eq!(worker.output_mut(offset, len).is_some(), inside);
        prop_assert_eq!(output.copy_out(offset, len).is_ok(), inside);
    }

    #[test]
    fn alignment_never_goes_back(offset: u64) {
        match align_up(offset) {
            Some(aligned) => prop_assert!(aligned >= offset && aligned - offset < ARENA_ALIGN && aligned % ARENA_ALIGN == 0),
            None => prop_assert!(offset > u64::MAX - ARENA_ALIGN),
        }
    }
}
