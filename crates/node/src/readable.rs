//! Watching a descriptor for readability.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor that `inner` owns with the runtime's poller.
///
/// INVARIANT: `inner` owns its descriptor, always names the same one and closes it only when it is dropped, which the
/// `AsyncFd` does after it has deregistered it. That is what the successor of this constructor wants promised in an
/// `unsafe` block, and this crate has none.
#[expect(deprecated, reason = "the successor is unsafe; its precondition is the invariant above")]
pub(crate) fn watch<T: AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, Interest::READABLE)
}
