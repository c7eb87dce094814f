//! The usage ledger: one closed record for each attempt to use a device, on disk before its answer has left.
//!
//! Two halves. The *log* is a folder of append-only files that the data path writes to: an `opened` record when an attempt is
//! about to be given to a worker, a `closed` one before the last byte of its answer. Each is one `write(2)`, so a killed process
//! loses none; the files are synced together at an interval, so a power failure loses one interval. The *books* are the
//! tables in the database: every closed record is posted once, in a page of its tenant's, in the transaction that moves the mark up
//! to which a log is in the books, and counted into its day. What was opened by an earlier start and never closed is closed then as
//! `interrupted`.
//!
//! ```text
//! ledger/boo_…-00000001.log    frames: length, CRC-32 (both u32, little endian), then the record (postcard)
//! ledger/node                  the node's name, made once
//! ```
//!
//! A record's key is (node, boot, sequence). Files go when all that is in them is in the books.

mod books;
mod first;
mod frame;
mod log;
mod page;
mod post;
mod posting;
mod query;
mod reading;

pub use books::{Bookkeeper, Carried};
pub(crate) use frame::Closed;
pub use log::{Ledger, LedgerError, Opened};
pub(crate) use query::closed_of;
pub use query::{BootAccount, UsageGroup, UsageQuery, UsageRecord, UsageRow};
