//! A page of the books: closed records of one tenant, one behind the other.
//!
//! ```text
//! page    form (varint), then records to its end
//! record  sequence, attempted, used, ended_ms (postcard), as in the log
//! ```

use tenantry_types::usage::Attempted;

use super::first;
use super::frame::{Closed, FORMAT};

/// A page that is as long takes no more, bytes: some hundred records.
const FULL_BYTES: usize = 16 << 10;

/// Room that a page begins with, bytes.
const FIRST_BYTES: usize = 1 << 10;

/// A page in the making.
#[derive(Debug)]
pub(super) struct Page {
    /// Its place among the pages that were filled together.
    pub(super) order: usize,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) records: u64,
    pub(super) data: Vec<u8>,
}

impl Page {
    /// With one record.
    pub(super) fn new(order: usize, sequence: u64, record: &[u8]) -> Self {
        // The form is below 128: one byte of a varint.
        let mut data = Vec::with_capacity(FIRST_BYTES);
        data.push(FORMAT.to_le_bytes()[0]);
        data.extend_from_slice(record);
        Self { order, first: sequence, last: sequence, records: 1, data }
    }

    /// Takes one more record; false where it is full.
    pub(super) fn add(&mut self, sequence: u64, record: &[u8]) -> bool {
        if self.data.len() >= FULL_BYTES {
            return false;
        }
        self.data.extend_from_slice(record);
        self.first = self.first.min(sequence);
        self.last = self.last.max(sequence);
        self.records += 1;
        true
    }
}

/// The records of a page, in the order in which they ended; nothing where the bytes are no page. `sequence`: its first number.
pub(crate) fn read(data: &[u8], sequence: u64) -> Option<Vec<Closed>> {
    let (form, mut rest): (u16, _) = postcard::take_from_bytes(data).ok()?;
    match form {
        // Rows from before there were pages: one record, and its number in the row.
        first::FORMAT => {
            let (attempted, used, ended_ms): (Attempted, first::Used, i64) = postcard::from_bytes(rest).ok()?;
            Some(vec![Closed { sequence, attempted, used: used.into(), ended_ms }])
        }
        FORMAT => {
            let mut records = Vec::new();
            while !rest.is_empty() {
                let record;
                (record, rest) = postcard::take_from_bytes(rest).ok()?;
                records.push(record);
            }
            Some(records)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tenantry_types::TenantId;
    use tenantry_types::usage::{DeviceTime, Outcome, Used};

    use super::super::frame::tests::attempted;
    use super::super::frame::{Room, Written};
    use super::*;

    fn used(ns: u64) -> Used {
        Used { duration_ns: ns, resident_byte_seconds: 3, ..Used::nothing(Outcome::Ok) }
    }

    #[test]
    fn a_page_gives_back_what_it_took_until_it_is_full() {
        let mut page: Option<Page> = None;
        let mut expected = Vec::new();
        // The numbers need not be in order.
        for sequence in (1..10_000_u64).map(|number| number ^ 1) {
            let record = Closed { sequence, attempted: attempted(4), used: used(sequence), ended_ms: 9 };
            let Closed { attempted, used, ended_ms, .. } = &record;
            let mut room = Room::new();
            let bytes = room.encode(&Written::Closed { sequence, attempted, used, ended_ms: *ended_ms }).unwrap();
            let taken = match &mut page {
                Some(page) => page.add(sequence, bytes.closed()),
                none => none.insert(Page::new(0, sequence, bytes.closed())).records == 1,
            };
            if !taken {
                break;
            }
            expected.push(record);
        }
        let page = page.unwrap();
        assert!(page.records > 50 && page.data.len() < FULL_BYTES + 200, "{} records", page.records);
        assert_eq!((page.first, page.records), (0, expected.len() as u64));
        assert_eq!(read(&page.data, page.first).unwrap(), expected);
        // A page that is cut off, or of a form that comes later, is none.
        assert_eq!(read(&page.data[..page.data.len() - 1], 0), None);
        assert_eq!(read(&[9, 1, 2], 0), None);
        assert_eq!(read(&[], 0), None);
    }

    #[test]
    fn rows_from_before_there_were_pages_are_read() {
        let single = first::Used {
            outcome: Outcome::Ok,
            duration_ns: 5,
            queue_ns: 4,
            device: DeviceTime { compute_ns: 3, ..DeviceTime::default() },
            cpu_ns: 2,
            bytes_in: 1,
            bytes_out: 1 << 40,
            tokens: 6,
        };
        let row = postcard::to_allocvec(&(first::FORMAT, (attempted(7), single, 11_i64))).unwrap();
        let [record] = &read(&row, 77).unwrap()[..] else { panic!("one record") };
        assert_eq!((record.sequence, record.ended_ms, record.used.bytes_out), (77, 11, 1 << 40));
        assert_eq!(record.attempted.tenant, TenantId::from_parts(7, [1; 10]));
    }
}
