//! The socket: `SOCK_SEQPACKET`, one frame a packet, so that a frame is received whole or not at all.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
/// The most descriptors with one frame: the kernel's `SCM_MAX_FD`.
pub const MAX_FDS: usize = 253;
/// Frames up to this size are written on the stack.
const SMALL_FRAME_BYTES: usize = 1 << 10;

/// Why a frame was not sent. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The socket's buffer is full (nonblocking only).
    #[error("the other end does not read")]
    WouldBlock,
    /// The other end is gone.
    #[error("the other end is gone")]
    Closed,
    /// Larger than [`MAX_FRAME_BYTES`], or more than [`MAX_FDS`] descriptors.
    #[error("the frame is too large")]
    TooLarge,
    /// Anything else the kernel says.
    #[error("cannot send")]
    Io(#[source] io::Error),
}

/// Why no frame was received.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// There is none yet (nonblocking only).
    #[error("nothing to receive yet")]
    WouldBlock,
    /// The other end is gone (or sent an empty packet, which no frame is).
    #[error("the other end is gone")]
    Closed,
    /// The packet is not a frame; the text says why.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
    /// Anything else the kernel says.
    #[error("cannot receive")]
    Io(#[source] io::Error),
}

/// One end of a worker's socket.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
}

impl Channel {
    /// Both ends, closed on exec.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
    }

    /// Takes over one end.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// The socket a worker was born with, at descriptor `number`. Once a process: it takes the descriptor over.
    ///
    /// # Errors
    /// When there is no such socket there, or it has been taken already.
    pub fn inherited(number: RawFd) -> io::Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if number < 3 || TAKEN.swap(true, Ordering::Relaxed) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: borrowed for one look only; a number that is no open descriptor is refused by the call.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::net::sockopt::socket_type(borrowed)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: open, as just seen; whoever started this process put it there for it to own, and this function hands
        // it out once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { fd })
    }

    /// Whether `send` and `recv` return `WouldBlock` instead of waiting.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.fd, on)?)
    }

    /// Sends a frame, with descriptors if there are any. Small frames without descriptors allocate nothing.
    ///
    /// # Errors
    /// See [`SendError`]; a frame is sent whole or not at all.
    pub fn send<T: Serialize>(&self, frame: &T, fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        let mut small = [0_u8; SMALL_FRAME_BYTES];
        match postcard::to_slice(frame, &mut small) {
            Ok(packet) => self.send_packet(packet, fds),
            Err(postcard::Error::SerializeBufferFull) => {
                let packet = postcard::to_allocvec(frame).map_err(unserialisable)?;
                self.send_packet(&packet, fds)
            }
            Err(error) => Err(unserialisable(error)),
        }
    }

    fn send_packet(&self, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        if packet.len() > MAX_FRAME_BYTES || fds.len() > MAX_FDS {
            return Err(SendError::TooLarge);
        }
        let sent = rustix::io::retry_on_intr(|| {
            if fds.is_empty() {
                return rustix::net::send(&self.fd, packet, SendFlags::NOSIGNAL);
            }
            let message = SendAncillaryMessage::ScmRights(fds);
            let mut space = vec![MaybeUninit::uninit(); message.size()];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(message);
            rustix::net::sendmsg(&self.fd, &[io::IoSlice::new(packet)], &mut ancillary, SendFlags::NOSIGNAL)
        });
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::AGAIN) => Err(SendError::WouldBlock),
            Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => Err(SendError::Closed),
            Err(Errno::MSGSIZE) => Err(SendError::TooLarge),
            Err(error) => Err(SendError::Io(error.into())),
        }
    }

    /// Receives a frame and no descriptor: the kernel drops those that come along.
    ///
    /// # Errors
    /// See [`RecvError`].
    pub fn recv<T: DeserializeOwned>(&self) -> Result<T, RecvError> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); MAX_FRAME_BYTES];
        let received = rustix::io::retry_on_intr(|| {
            // TRUNC: the result is the packet's full length, so that a cut packet is noticed.
            rustix::net::recv(&self.fd, &mut buffer, RecvFlags::TRUNC).map(|((packet, _), length)| {
                let packet: &[u8] = packet;
                decode(packet, length)
            })
        });
        received.map_err(failed)?
    }

    /// Receives a frame and its descriptors, all closed on exec. For the worker's end only.
    ///
    /// # Errors
    /// See [`RecvError`]; more than `max_fds` descriptors are `Malformed`.
    pub fn recv_with_fds<T: DeserializeOwned>(&self, max_fds: usize) -> Result<(T, Vec<OwnedFd>), RecvError> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); MAX_FRAME_BYTES];
        // Words, because control messages are aligned like one.
        let mut control = [MaybeUninit::<usize>::uninit(); CONTROL_WORDS];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: `msghdr` is a C struct of integers and pointers, for which all zeroes are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control) as _;
        let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
        let length = loop {
            // SAFETY: every pointer in `message` was set above to a local buffer of the stated length that outlives
            // the call.
            let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, flags) };
            match usize::try_from(length) {
                Ok(length) => break length,
                Err(_) => match Errno::from_io_error(&io::Error::last_os_error()) {
                    Some(Errno::INTR) => {}
                    Some(error) => return Err(failed(error)),
                    None => return Err(RecvError::Closed),
                },
            }
        };
        // Taken first, so that they are closed whatever is wrong with the frame.
        let fds = take_fds(&message);
        if message.msg_flags & libc::MSG_CTRUNC != 0 || fds.len() > max_fds {
            return Err(RecvError::Malformed("too many descriptors"));
        }
        // SAFETY: the kernel wrote `min(length, buffer.len())` bytes from the buffer's start.
        let packet = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), length.min(MAX_FRAME_BYTES)) };
        Ok((decode(packet, length)?, fds))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Room for one control message with `MAX_FDS` descriptors, in words.
const CONTROL_WORDS: usize =
    (size_of::<libc::cmsghdr>() + MAX_FDS * size_of::<RawFd>()).div_ceil(size_of::<usize>()) + 1;

fn take_fds(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: `recvmsg` filled `msg_control` and `msg_controllen`; the CMSG functions walk exactly that memory. A
    // header's length covers its data, so the descriptors read lie inside it; they were installed for this process just
    // now and belong to nobody else.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(current) = header.as_ref() {
            if current.cmsg_level == libc::SOL_SOCKET && current.cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(current).cast::<RawFd>();
                let count = current.cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                fds.extend((0..count).map(|index| OwnedFd::from_raw_fd(data.add(index).read_unaligned())));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    fds
}

fn decode<T: DeserializeOwned>(packet: &[u8], length: usize) -> Result<T, RecvError> {
    if length == 0 {
        return Err(RecvError::Closed);
    }
    if length > packet.len() {
        return Err(RecvError::Malformed("longer than the largest frame"));
    }
    match postcard::take_from_bytes(packet) {
        Ok((frame, [])) => Ok(frame),
        Ok(_) => Err(RecvError::Malformed("bytes left over")),
        Err(_) => Err(RecvError::Malformed("not decodable")),
    }
}

fn failed(error: Errno) -> RecvError {
    match error {
        Errno::AGAIN => RecvError::WouldBlock,
        Errno::CONNRESET | Errno::NOTCONN => RecvError::Closed,
        error => RecvError::Io(error.into()),
    }
}

fn unserialisable(error: postcard::Error) -> SendError {
    SendError::Io(io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests;
