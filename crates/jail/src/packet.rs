//! Packets of a `SOCK_SEQPACKET` socket between two processes that trust each other.
//!
//! `wire` has its like for distrusted workers; this crate depends on none of ours, so that the isolation can be read
//! and tested alone.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest packet: a spec with the longest path and the most processors is smaller.
const MAX_BYTES: usize = 16 << 10;

#[derive(Debug)]
pub(crate) enum RecvError {
    WouldBlock,
    Closed,
    Io(io::Error),
}

/// Sends one packet whole or not at all.
pub(crate) fn send<T: Serialize>(socket: BorrowedFd<'_>, packet: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_allocvec(packet).map_err(invalid)?;
    if bytes.len() > MAX_BYTES {
        return Err(invalid("the packet is too large"));
    }
    let message = SendAncillaryMessage::ScmRights(fds);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    rustix::io::retry_on_intr(|| {
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        rustix::net::sendmsg(socket, &[io::IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one packet and its descriptors, which must be exactly `fds` many.
pub(crate) fn recv<T: DeserializeOwned>(socket: BorrowedFd<'_>, fds: usize) -> Result<(T, Vec<OwnedFd>), RecvError> {
    let (packet, received) = recv_any(socket)?;
    if received.len() != fds {
        return Err(RecvError::Io(invalid("the packet has not the expected descriptors")));
    }
    Ok((packet, received))
}

/// Receives one packet and up to three descriptors.
pub(crate) fn recv_any<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<(T, Vec<OwnedFd>), RecvError> {
    let mut bytes = vec![0_u8; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    });
    let length = match received {
        Ok(message) => message.bytes,
        Err(Errno::AGAIN) => return Err(RecvError::WouldBlock),
        Err(Errno::CONNRESET) => return Err(RecvError::Closed),
        Err(error) => return Err(RecvError::Io(error.into())),
    };
    let mut received = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            received.extend(fds);
        }
    }
    if length == 0 {
        return Err(RecvError::Closed);
    }
    let packet = bytes.get(..length).unwrap_or_default();
    postcard::from_bytes(packet).map(|packet| (packet, received)).map_err(|error| RecvError::Io(invalid(error)))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_packet_and_its_descriptors_arrive_together_or_not_at_all() {
        let (one, other) = pair();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(one.as_fd(), &"with", &[writer.as_fd(), writer.as_fd()]).unwrap();
        send(one.as_fd(), &"without", &[]).unwrap();
        send(one.as_fd(), &"too many", &[writer.as_fd(), writer.as_fd()]).unwrap();
        drop(writer);
        let (text, fds) = recv::<String>(other.as_fd(), 2).unwrap();
        assert_eq!((text.as_str(), fds.len()), ("with", 2));
        assert_eq!(recv::<String>(other.as_fd(), 0).unwrap().0, "without");
        assert!(matches!(recv::<String>(other.as_fd(), 1), Err(RecvError::Io(_))));
        drop((one, fds));
        assert!(matches!(recv::<String>(other.as_fd(), 0), Err(RecvError::Closed)));
        // No copy of the writing end is left.
        assert_eq!(rustix::io::read(&reader, &mut [0_u8; 1]).unwrap(), 0);
    }

    #[test]
    fn what_is_too_large_is_not_sent_and_a_gone_peer_is_noticed() {
        let (one, other) = pair();
        assert!(send(one.as_fd(), &vec![0_u8; MAX_BYTES], &[]).is_err());
        rustix::io::ioctl_fionbio(&other, true).unwrap();
        assert!(matches!(recv::<u8>(other.as_fd(), 0), Err(RecvError::WouldBlock)));
        drop(other);
        assert_eq!(send(one.as_fd(), &1, &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
