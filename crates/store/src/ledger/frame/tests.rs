use std::io::Write as _;

use proptest::prelude::*;
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{DeviceTime, Outcome, UsageKind};
use tenantry_types::{KeyId, TenantId, VersionId};

use super::*;

pub(crate) fn attempted(seed: u64) -> Attempted {
    Attempted {
        kind: UsageKind::Inference,
        tenant: TenantId::from_parts(seed, [1; 10]),
        key: seed.is_multiple_of(2).then(|| KeyId::from_parts(seed, [2; 10])),
        deployment: None,
        model: "acme/sums".into(),
        version: VersionId::from_parts(seed, [3; 10]),
        version_number: 7,
        tier: ShareTier::Guaranteed,
        request: None,
        admitted_ms: i64::try_from(seed).unwrap_or(0),
    }
}

fn closed(sequence: u64, ns: u64) -> Frame {
    let device = DeviceTime { compute_ns: ns, padding_ns: ns / 2, load_ns: 0, aborted_ns: ns / 3 };
    let used = Used { device, duration_ns: ns, bytes_in: ns, ..Used::nothing(Outcome::Ok) };
    Frame::Closed(Closed { sequence, attempted: attempted(sequence), used, ended_ms: 5 })
}

/// A record of the first form as it was written.
pub(crate) fn framed(record: &Old) -> Vec<u8> {
    let record = postcard::to_allocvec(record).unwrap();
    let length = u32::try_from(record.len()).unwrap();
    [&length.to_le_bytes()[..], &crc32fast::hash(&record).to_le_bytes(), &record].concat()
}

/// As it would be written.
fn encode(frame: &Frame) -> Vec<u8> {
    let Frame::Closed(Closed { sequence, attempted, used, ended_ms }) = frame else { panic!("closed ones only") };
    let written = Written::Closed { sequence: *sequence, attempted, used, ended_ms: *ended_ms };
    Room::new().encode(&written).unwrap().bytes().to_vec()
}

fn read_all(bytes: &[u8]) -> (Vec<Frame>, u64) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut frames = Frames::open(file.path(), 0, FORMAT).unwrap();
    let mut read = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        read.push(frame);
    }
    (read, frames.offset())
}

#[test]
fn a_record_is_short() {
    let bytes = encode(&closed(1 << 40, 1 << 40));
    assert!(bytes.len() < 160, "{} bytes", bytes.len());
}

#[test]
fn what_is_written_is_what_is_read() {
    let attempted = attempted(4);
    let (node, boot) = (NodeId::from_parts(1, [4; 10]), BootId::from_parts(2, [5; 10]));
    let time = SlotTime { wall_ns: 1, slots: 2, busy_ns: 3, system_ns: 4 };
    let pairs = [
        (
            Written::Begin { format: FORMAT, node, boot, started_ms: 9 },
            Frame::Begin { format: FORMAT, node, boot, started_ms: 9 },
        ),
        (
            Written::Opened { sequence: 300, attempted: &attempted },
            Frame::Opened { sequence: 300, attempted: attempted.clone() },
        ),
        (Written::Slots { at_ms: 5, time, last: true }, Frame::Slots { at_ms: 5, time, last: true }),
    ];
    let bytes: Vec<u8> =
        pairs.iter().flat_map(|(written, _)| Room::new().encode(written).unwrap().bytes().to_vec()).collect();
    let expected = pairs.map(|(_, frame)| frame).to_vec();
    assert_eq!(read_all(&bytes), (expected, bytes.len() as u64));
}

#[test]
fn the_longest_names_fit_and_more_is_an_error() {
    let longest = Attempted { model: format!("{}/{}", "a".repeat(63), "b".repeat(63)).into(), ..attempted(2) };
    let used = Used { duration_ns: u64::MAX, cpu_ns: u64::MAX, ..Used::nothing(Outcome::Ok) };
    let fits = |attempted: &Attempted| {
        Room::new().encode(&Written::Closed { sequence: u64::MAX, attempted, used: &used, ended_ms: i64::MAX }).is_ok()
    };
    assert!(fits(&longest));
    let strange = Attempted { model: "a".repeat(WRITTEN_BYTES).into(), ..longest };
    assert!(!fits(&strange));
}

#[test]
fn a_file_of_the_first_form_is_read_and_one_of_a_later_is_not() {
    let begin = |format| Old::Begin {
        format,
        node: NodeId::from_parts(1, [4; 10]),
        boot: BootId::from_parts(2, [5; 10]),
        started_ms: 9,
    };
    let used = first::Used {
        outcome: Outcome::Ok,
        duration_ns: 1 << 50,
        queue_ns: 2,
        device: DeviceTime::default(),
        cpu_ns: 3,
        bytes_in: 4,
        bytes_out: 5,
        tokens: 6,
    };
    let old = [
        begin(first::FORMAT),
        Old::Opened { sequence: 1, attempted: attempted(1) },
        Old::Closed { sequence: 1, attempted: attempted(1), used, ended_ms: 7 },
        Old::Slots { at_ms: 8, time: SlotTime::default(), last: true },
    ];
    let bytes: Vec<u8> = old.iter().flat_map(framed).collect();
    let (read, _) = read_all(&bytes);
    let [Frame::Begin { .. }, Frame::Opened { .. }, Frame::Closed(closed), Frame::Slots { .. }] = &read[..] else {
        panic!("{read:?}")
    };
    assert_eq!((closed.used.duration_ns, closed.used.tokens, closed.ended_ms), (1 << 50, 6, 7));
    let later = framed(&begin(FORMAT + 1));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&later).unwrap();
    Frames::open(file.path(), 0, FORMAT).unwrap().next().unwrap_err();
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_left(
        numbers in prop::collection::vec((0_u64..1 << 48, any::<u64>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let frames: Vec<Frame> = numbers.iter().map(|(sequence, ns)| closed(*sequence, *ns)).collect();
        let encoded: Vec<Vec<u8>> = frames.iter().map(encode).collect();
        let whole = encoded.concat();
        prop_assert_eq!(read_all(&whole), (frames.clone(), whole.len() as u64));
        // Cut anywhere: all frames before the cut are there, and reading stops at their end.
        let cut = cut.index(whole.len() + 1);
        let mut end = 0;
        let kept = encoded.iter().take_while(|bytes| { end += bytes.len(); end <= cut }).count();
        let kept_bytes: usize = encoded.iter().take(kept).map(Vec::len).sum();
        prop_assert_eq!(read_all(&whole[..cut]), (frames[..kept].to_vec(), kept_bytes as u64));
    }

    #[test]
    fn a_changed_byte_is_never_taken_for_a_record(at in any::<prop::sample::Index>(), by in 1_u8..) {
        let mut bytes = encode(&closed(3, 1_000));
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert_eq!(read_all(&bytes).0, vec![]);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }
}
