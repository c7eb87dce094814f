//! What a worker writes to its standard error: read so that it never blocks, shown sanitised and only so much of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tenantry_types::WorkerId;
use tenantry_types::error::sanitise;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use crate::data_plane::Node;

/// Lines shown of one worker; the rest is read and dropped.
const MAX_LINES: u32 = 100;
/// Characters shown of one line.
const MAX_LINE_CHARS: usize = 400;

/// Relays a worker's standard error into the log until the worker closes it.
pub(crate) fn relay(node: Arc<Node>, worker: WorkerId, reader: OwnedFd) {
    let receiver = match Receiver::from_owned_fd(reader) {
        Ok(receiver) => receiver,
        Err(error) => {
            tracing::warn!(%worker, %error, "a worker's standard error cannot be read");
            return;
        }
    };
    tokio::spawn(read(node, worker, receiver));
}

async fn read(node: Arc<Node>, worker: WorkerId, mut receiver: Receiver) {
    let mut buffer = [0_u8; 4096];
    let mut lines = 0;
    while let Ok(length @ 1..) = receiver.read(&mut buffer).await {
        let Some(chunk) = buffer.get(..length).filter(|_| lines < MAX_LINES) else { continue };
        // A line cut by the buffer's end shows as two: good enough for a diagnostic.
        for line in String::from_utf8_lossy(chunk).lines().filter(|line| !line.trim().is_empty()) {
            lines += 1;
            let text = sanitise(line, MAX_LINE_CHARS);
            // Before it is ready it has read no tenant's byte: what it says then is why it does not start.
            if node.fleet.lock().is_coming(worker) {
                tracing::warn!(%worker, text, "worker stderr");
            } else {
                tracing::debug!(%worker, text, "worker stderr");
            }
            if lines == MAX_LINES {
                tracing::debug!(%worker, "further lines of this worker are dropped");
                break;
            }
        }
    }
}
