//! What a model that has taken over its worker might try. Each attempt succeeds in a plain process of the same user, or
//! it would show nothing.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use tenantry_jail::Layer::{self, Cgroup, Landlock, Limits, Namespaces, Privileges, Root, Seccomp};

/// What there is to be reached outside.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    /// A folder anybody may write to, with the file `secret`, the socket `socket` and the file `victim`.
    pub(crate) folder: PathBuf,
    /// A TCP and a UDP port on the loopback interface.
    pub(crate) tcp: u16,
    pub(crate) udp: u16,
    /// The name of an abstract Unix socket.
    pub(crate) name: String,
    /// A process of the same user.
    pub(crate) pid: i32,
    /// A segment of System V shared memory.
    pub(crate) segment: i32,
    /// The host's name.
    pub(crate) host: String,
}

/// The most processes of a group.
pub(crate) const MAX_PROCESSES: u32 = 64;

impl Outside {
    /// As one word of a command line.
    pub(crate) fn write(&self, attempt: &str) -> String {
        let Self { folder, tcp, udp, name, pid, segment, host } = self;
        format!("{attempt}|{}|{tcp}|{udp}|{name}|{pid}|{segment}|{host}", folder.display())
    }

    /// The attempt and what it is to reach.
    pub(crate) fn read(word: &str) -> Option<(String, Self)> {
        let mut parts = word.split('|').map(str::to_owned);
        let attempt = parts.next()?;
        let outside = Self {
            folder: parts.next()?.into(),
            tcp: parts.next()?.parse().ok()?,
            udp: parts.next()?.parse().ok()?,
            name: parts.next()?,
            pid: parts.next()?.parse().ok()?,
            segment: parts.next()?.parse().ok()?,
            host: parts.next()?,
        };
        Some((attempt, outside))
    }
}

/// One attempt: its name, what to do, and the barriers each of which alone stops it.
pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Outside) -> io::Result<()>,
    pub(crate) stopped_by: &'static [Layer],
    /// Those that stop it, too, where the server is root, and where it is not.
    pub(crate) as_root: &'static [Layer],
    pub(crate) as_another: &'static [Layer],
}

impl Attempt {
    /// Behind root's missing privileges it is another user than the one whose processes it is after.
    const fn privileges_stop_root(mut self) -> Self {
        self.as_root = &[Privileges];
        self
    }

    /// Root's own privileges are not bound by limits.
    const fn limits_stop_others(mut self) -> Self {
        self.as_another = &[Limits];
        self
    }
}

const fn attempt(name: &'static str, run: fn(&Outside) -> io::Result<()>, stopped_by: &'static [Layer]) -> Attempt {
    Attempt { name, run, stopped_by, as_root: &[], as_another: &[] }
}

pub(crate) const ATTEMPTS: &[Attempt] = &[
    // Files.
    attempt("read /etc/passwd", |_| read("/etc/passwd"), &[Root, Landlock]),
    attempt("read a file of the server's", |outside| read(outside.folder.join("secret")), &[Root, Landlock]),
    attempt("list a folder", |_| fs::read_dir("/etc").map(drop), &[Root, Landlock]),
    attempt("write a file", |outside| fs::write(outside.folder.join(unique()), b"x"), &[Root, Landlock]),
    attempt("overwrite a file", |outside| fs::write(outside.folder.join("victim"), b"x"), &[Root, Landlock]),
    attempt("make a folder", |outside| fs::create_dir(outside.folder.join(unique())), &[Root, Landlock, Seccomp]),
    attempt("remove a file", remove_a_file, &[Root, Landlock, Seccomp]),
    attempt("make a symbolic link", symlink, &[Root, Landlock, Seccomp]),
    attempt("rename a file", rename, &[Root, Landlock, Seccomp]),
    attempt("truncate a file", truncate, &[Root, Landlock, Seccomp]),
    attempt("read the kernel's settings", |_| read("/proc/sys/kernel/ostype"), &[Root, Landlock]),
    attempt("read the machine's hardware", |_| read("/sys/devices/system/cpu/online"), &[Root, Landlock]),
    attempt("open a device", |_| read_some("/dev/urandom"), &[Root, Landlock]),
    attempt("watch a folder", |_| watch(), &[Root, Seccomp]),
    // The network.
    attempt(
        "connect over TCP",
        |outside| TcpStream::connect(("127.0.0.1", outside.tcp)).map(drop),
        &[Namespaces, Landlock, Seccomp],
    ),
    // In a network of its own it may, and nobody is there to connect.
    attempt("listen on TCP", |_| TcpListener::bind("127.0.0.1:0").map(drop), &[Landlock, Seccomp]),
    attempt("send a datagram", send_a_datagram, &[Namespaces, Seccomp]),
    attempt(
        "connect to a named socket",
        |outside| UnixStream::connect(outside.folder.join("socket")).map(drop),
        &[Root, Seccomp],
    ),
    attempt("connect to an abstract socket", connect_abstract, &[Namespaces, Landlock, Seccomp]),
    attempt("ask the kernel for routes", |_| number(libc::SYS_socket, [16, 3, 0, 0, 0, 0]), &[Seccomp]),
    // Other processes.
    attempt("find another process", |outside| fs::metadata(format!("/proc/{}/status", outside.pid)).map(drop), &[Root]),
    attempt(
        "signal another process",
        |outside| number(libc::SYS_kill, [outside.pid as i64, 0, 0, 0, 0, 0]),
        &[Namespaces, Landlock, Seccomp],
    )
    .privileges_stop_root(),
    attempt("trace another process", trace, &[Namespaces, Landlock, Seccomp]).privileges_stop_root(),
    attempt("read another process's memory", read_memory, &[Namespaces, Landlock, Seccomp]).privileges_stop_root(),
    attempt(
        "open another process's memory",
        |outside| File::open(format!("/proc/{}/mem", outside.pid)).map(drop),
        &[Namespaces, Root, Landlock],
    )
    .privileges_stop_root(),
    attempt(
        "read another process's environment",
        |outside| read(format!("/proc/{}/environ", outside.pid)),
        &[Namespaces, Root, Landlock],
    )
    .privileges_stop_root(),
    attempt("take a descriptor of another process", take_a_descriptor, &[Namespaces, Landlock, Seccomp])
        .privileges_stop_root(),
    attempt("move another process to a processor", |outside| set_affinity(outside.pid), &[Namespaces, Seccomp])
        .privileges_stop_root(),
    attempt(
        "make another process wait",
        |outside| number(libc::SYS_setpriority, [0, outside.pid as i64, 19, 0, 0, 0]),
        &[Namespaces, Seccomp],
    )
    .privileges_stop_root(),
    attempt(
        "attach shared memory",
        |outside| number(libc::SYS_shmat, [outside.segment as i64, 0, 0o10000, 0, 0, 0]),
        &[Namespaces, Seccomp],
    ),
    // The kernel.
    attempt("execute a program", |_| execute(), &[Root, Landlock, Seccomp]),
    attempt("fork", |_| fork(), &[Seccomp]),
    attempt("execute memory", |_| execute_memory(), &[Seccomp]),
    attempt("make memory executable", |_| make_executable(), &[Seccomp]),
    attempt(
        "make a user namespace",
        |_| number(libc::SYS_unshare, [libc::CLONE_NEWUSER as i64, 0, 0, 0, 0, 0]),
        &[Seccomp],
    ),
    attempt("mount in a namespace", |_| mount(), &[Landlock, Seccomp]),
    attempt("set up io_uring", |_| io_uring(), &[Seccomp]).limits_stop_others(),
    attempt("handle page faults", |_| number(libc::SYS_userfaultfd, [1, 0, 0, 0, 0, 0]), &[Seccomp]),
    attempt("add a key", |_| add_key(), &[Seccomp]),
    attempt(
        "outlive its parent",
        |_| number(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as i64, 0, 0, 0, 0, 0]),
        &[Seccomp],
    ),
    attempt("become dumpable", |_| number(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as i64, 1, 0, 0, 0, 0]), &[Seccomp]),
    attempt("change the personality", |_| number(libc::SYS_personality, [0x40000, 0, 0, 0, 0, 0]), &[Seccomp]),
    attempt("leave its processors", |_| set_affinity(0), &[Seccomp]),
    // What it may learn and hoard.
    attempt("learn the host's name", learn_the_hosts_name, &[Root, Seccomp]),
    attempt("learn the host's memory", |_| learn_memory(), &[Seccomp]),
    attempt("hoard descriptors", |_| hoard_descriptors(), &[Limits, Seccomp]),
    attempt("hoard processes", |_| hoard_processes(), &[Cgroup, Seccomp]),
    attempt("lock memory", |_| lock_memory(), &[Seccomp]).limits_stop_others(),
    attempt("gain privileges by executing", |_| privileges_to_gain(), &[Privileges, Landlock, Seccomp]),
];

/// A name that no other attempt uses: each is a process of its own, and may have the number of another.
fn unique() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("new-{}", since.as_nanos())
}

/// A system call by number; an error if it says so.
fn call(number: libc::c_long, arguments: [i64; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: this process exists to make one such call; every pointer among the arguments points to memory that lives
    // in the caller's frame.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn number(number: libc::c_long, arguments: [i64; 6]) -> io::Result<()> {
    call(number, arguments).map(drop)
}

fn read(path: impl Into<PathBuf>) -> io::Result<()> {
    let bytes = fs::read(path.into())?;
    if bytes.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

fn read_some(path: &str) -> io::Result<()> {
    File::open(path)?.read_exact(&mut [0; 8])
}

fn remove_a_file(outside: &Outside) -> io::Result<()> {
    // The controls of other columns have removed theirs.
    fs::remove_file(outside.folder.join("victim"))
}

fn symlink(outside: &Outside) -> io::Result<()> {
    std::os::unix::fs::symlink("/etc/passwd", outside.folder.join(unique()))
}

fn rename(outside: &Outside) -> io::Result<()> {
    fs::rename(outside.folder.join("victim"), outside.folder.join(unique()))
}

fn truncate(outside: &Outside) -> io::Result<()> {
    let path = CString::new(outside.folder.join("victim").into_os_string().into_encoded_bytes())?;
    number(libc::SYS_truncate, [path.as_ptr() as i64, 0, 0, 0, 0, 0])
}

fn watch() -> io::Result<()> {
    let watcher = call(libc::SYS_inotify_init1, [0; 6])?;
    number(libc::SYS_inotify_add_watch, [watcher, c"/etc".as_ptr() as i64, libc::IN_ACCESS.into(), 0, 0, 0])
}

fn send_a_datagram(outside: &Outside) -> io::Result<()> {
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", ("127.0.0.1", outside.udp)).map(drop)
}

fn connect_abstract(outside: &Outside) -> io::Result<()> {
    UnixStream::connect_addr(&SocketAddr::from_abstract_name(outside.name.as_bytes())?).map(drop)
}

fn trace(outside: &Outside) -> io::Result<()> {
    let pid = i64::from(outside.pid);
    // Seizing does not stop it; ending detaches.
    number(libc::SYS_ptrace, [libc::PTRACE_SEIZE.into(), pid, 0, 0, 0, 0])
}

fn read_memory(outside: &Outside) -> io::Result<()> {
    // Where something is mapped in every process of this very program and of `sleep`: the first line of its maps.
    let maps = fs::read_to_string(format!("/proc/{}/maps", outside.pid)).unwrap_or_default();
    let from = maps.split('-').next().and_then(|from| i64::from_str_radix(from, 16).ok()).unwrap_or(0x1000);
    let mut byte = [0_u8; 8];
    let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    let remote = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: byte.len() };
    let (local, remote) = ((&raw const local) as i64, (&raw const remote) as i64);
    number(libc::SYS_process_vm_readv, [outside.pid.into(), local, 1, remote, 1, 0])
}

fn take_a_descriptor(outside: &Outside) -> io::Result<()> {
    let process = call(libc::SYS_pidfd_open, [outside.pid.into(), 0, 0, 0, 0, 0])?;
    number(libc::SYS_pidfd_getfd, [process, 0, 0, 0, 0, 0])
}

fn set_affinity(pid: i32) -> io::Result<()> {
    let all = [u64::MAX; 16];
    number(libc::SYS_sched_setaffinity, [pid.into(), size_of_val(&all) as i64, all.as_ptr() as i64, 0, 0, 0])
}

fn execute() -> io::Result<()> {
    Command::new("/bin/true").status().map(drop)
}

/// Makes more processes than its group may hold; they end with it.
fn hoard_processes() -> io::Result<()> {
    let parent = rustix::process::getpid();
    for _ in 0..=MAX_PROCESSES {
        // SAFETY: takes nothing; this process has one thread, and the child makes two system calls.
        match unsafe { libc::fork() } {
            0 => {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                // The parent may have ended before the line above; then nobody would send the signal.
                while rustix::process::getppid() == Some(parent) {
                    std::thread::park();
                }
                std::process::exit(0);
            }
            pid if pid < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
    }
    Ok(())
}

fn fork() -> io::Result<()> {
    let pid = call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0])?;
    if pid == 0 {
        std::process::exit(0);
    }
    Ok(())
}

fn map(protection: i32) -> io::Result<i64> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    call(libc::SYS_mmap, [0, 4096, protection.into(), flags.into(), -1, 0])
}

fn execute_memory() -> io::Result<()> {
    map(libc::PROT_READ | libc::PROT_EXEC).map(drop)
}

fn make_executable() -> io::Result<()> {
    let memory = map(libc::PROT_READ | libc::PROT_WRITE)?;
    number(libc::SYS_mprotect, [memory, 4096, (libc::PROT_READ | libc::PROT_EXEC).into(), 0, 0, 0])
}

fn mount() -> io::Result<()> {
    number(libc::SYS_unshare, [(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).into(), 0, 0, 0, 0, 0])?;
    let kind = c"tmpfs".as_ptr() as i64;
    number(libc::SYS_mount, [kind, c"/proc".as_ptr() as i64, kind, 0, 0, 0])
}

fn io_uring() -> io::Result<()> {
    let parameters = [0_u64; 32];
    number(libc::SYS_io_uring_setup, [1, parameters.as_ptr() as i64, 0, 0, 0, 0])
}

fn add_key() -> io::Result<()> {
    let (kind, name, payload) = (c"user".as_ptr() as i64, c"escape".as_ptr() as i64, c"x".as_ptr() as i64);
    // -2: the process's own keyring.
    number(libc::SYS_add_key, [kind, name, payload, 1, -2, 0])
}

fn learn_the_hosts_name(outside: &Outside) -> io::Result<()> {
    let mut name = [0_u8; 6 * 65];
    number(libc::SYS_uname, [name.as_mut_ptr() as i64, 0, 0, 0, 0, 0])?;
    let host: Vec<u8> = name.iter().skip(65).take(65).copied().take_while(|byte| *byte != 0).collect();
    if host == outside.host.as_bytes() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn learn_memory() -> io::Result<()> {
    let info = [0_u64; 32];
    number(libc::SYS_sysinfo, [info.as_ptr() as i64, 0, 0, 0, 0, 0])
}

fn hoard_descriptors() -> io::Result<()> {
    let mut hoard = Vec::new();
    for _ in 0..2000 {
        let copy = call(libc::SYS_fcntl, [io::stderr().as_raw_fd().into(), libc::F_DUPFD.into(), 0, 0, 0, 0])?;
        // SAFETY: the call just made it, for nobody else.
        hoard.push(unsafe { OwnedFd::from_raw_fd(copy as i32) });
    }
    Ok(())
}

fn lock_memory() -> io::Result<()> {
    let memory = map(libc::PROT_READ | libc::PROT_WRITE)?;
    number(libc::SYS_mlock, [memory, 4096, 0, 0, 0, 0])
}

fn privileges_to_gain() -> io::Result<()> {
    // Without `no_new_privs` a program with set-user-id bits would be another user's.
    match call(libc::SYS_prctl, [libc::PR_GET_NO_NEW_PRIVS as i64, 0, 0, 0, 0, 0])? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}
