use std::io::Write as _;

use proptest::prelude::*;
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{DeviceTime, Outcome, UsageKind};
use tenantry_types::{KeyId, TenantId, VersionId};

use super::*;

fn attempted(seed: u64) -> Attempted {
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
    Frame::Closed { sequence, attempted: attempted(sequence), used, ended_ms: 5 }
}

fn read_all(bytes: &[u8]) -> (Vec<Frame>, u64) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let mut frames = Frames::open(file.path(), 0).unwrap();
    let mut read = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        read.push(frame);
    }
    (read, frames.offset())
}

#[test]
fn a_record_is_short() {
    let bytes = closed(1 << 40, 1 << 40).encode().unwrap();
    assert!(bytes.len() < 160, "{} bytes", bytes.len());
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_left(
        numbers in prop::collection::vec((0_u64..1 << 48, any::<u64>()), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let frames: Vec<Frame> = numbers.iter().map(|(sequence, ns)| closed(*sequence, *ns)).collect();
        let encoded: Vec<Vec<u8>> = frames.iter().map(|frame| frame.encode().unwrap()).collect();
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
        let mut bytes = closed(3, 1_000).encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        prop_assert_eq!(read_all(&bytes).0, vec![]);
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }
}
