//! The escape matrix: each attempt, behind each barrier alone and behind all of them; as this user, and as `nobody` where
//! this one is root. `make test-isolation` prints it.
//!
//! An attempt that fails without barriers would prove nothing, so that it succeeds there is part of the test. So is that
//! each barrier alone stops what it is there to stop: a barrier that has become air would not be noticed otherwise.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test program")]

mod attempts;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};

use attempts::{ATTEMPTS, Attempt, MAX_PROCESSES, Outside};
use rustix::event::{PollFd, PollFlags};
use tenantry_jail::{
    ExitKind, Exits, GroupLimits, Layer, Layers, Level, Spawner, WorkerSpec, WorkerStart, Zygote, lock_down,
};

/// What an attempt that succeeded exits with; one that was refused exits with the error's number.
const SUCCEEDED: u8 = 0;
/// The column of forked workers.
const FORKED: &str = "all, forked";
/// A barrier could not be put up.
const NOT_LOCKED: u8 = 200;
const NOBODY: u32 = 65_534;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("spawner") => tenantry_jail::zygote_main(Zygote {
            prepare: |_| Ok(()),
            work: |word, layers| work(word.to_str().unwrap(), layers.bits()),
        }),
        // work --runtime ATTEMPT --layers BITS
        Some("work") => ExitCode::from(work(&arguments[3], arguments[5].parse().unwrap())),
        Some("as-this-user") => matrix(&arguments[2]),
        // What the test runner asks for: the names of the tests.
        Some("--list") => {
            println!("escape_matrix: test");
            ExitCode::SUCCESS
        }
        _ => run(),
    }
}

/// The matrix for this user, and for one without any rights.
fn run() -> ExitCode {
    let is_root = rustix::process::geteuid().is_root();
    // Where anybody may execute it, wherever it was built.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let this = folder.path().join("escape");
    std::fs::copy(std::env::current_exe().unwrap(), &this).unwrap();
    let mut users = vec![(if is_root { "root" } else { "this user" }, None)];
    if is_root {
        users.push(("nobody", Some(NOBODY)));
    }
    let mut failed = false;
    let (mut tried, mut escaped) = (0, 0);
    for (name, user) in users {
        let mut command = Command::new(&this);
        command.args(["as-this-user", name]);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        match said_by(command.stdout(Stdio::piped())) {
            Ok((success, more)) => {
                failed |= !success;
                tried += more.0;
                escaped += more.1;
            }
            Err(error) => {
                println!("as {name}: this program cannot be run: {error}");
                failed = true;
            }
        }
    }
    println!("figure escape_attempts {tried} count goal >= 36");
    println!("figure escapes_succeeded {escaped} count goal == 0");
    println!("test escape_matrix ... {}", if failed { "FAILED" } else { "ok" });
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs the matrix of one user and passes on what it prints; whether all was as expected, and the attempts and escapes it
/// counts at its end.
fn said_by(command: &mut Command) -> std::io::Result<(bool, (u64, u64))> {
    let mut child = command.spawn()?;
    let mut counted = (0, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line?;
        println!("{line}");
        let count = |word: &str| line.split(word).nth(1)?.trim_start().split(',').next()?.parse().ok();
        if let (Some(tried), Some(escaped)) = (count("escape_attempts"), count("escapes_succeeded")) {
            counted = (tried, escaped);
        }
    }
    Ok((child.wait()?.success(), counted))
}

/// The body of a hostile worker.
fn work(word: &str, bits: u32) -> u8 {
    let (name, outside) = Outside::read(word).unwrap();
    let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == name).unwrap();
    if let Err(error) = lock_down(Layers::from_bits(bits)) {
        eprintln!("{error}");
        return NOT_LOCKED;
    }
    match (attempt.run)(&outside) {
        Ok(()) => SUCCEEDED,
        // Errors of ours that the kernel never gave say that it was not there.
        Err(error) => error.raw_os_error().and_then(|number| u8::try_from(number).ok()).unwrap_or(199),
    }
}

/// A name, the barriers that are up, and how the hostile process is made.
type Column = (&'static str, Layers, WorkerStart);

/// The columns. The last one is all barriers around a fork of the spawner instead of a program executed anew.
fn columns(possible: Layers) -> Vec<Column> {
    use Layer::{Cgroup, Landlock, Limits, Namespaces, Privileges, Root, Seccomp};
    let all: Layers = Layer::ALL.into_iter().collect();
    let set = |layers: &[Layer]| layers.iter().copied().collect::<Layers>();
    let columns = [
        ("none", set(&[])),
        ("namespaces", set(&[Namespaces])),
        ("+ root", set(&[Namespaces, Root])),
        ("privileges", set(&[Privileges])),
        ("landlock", set(&[Landlock])),
        ("seccomp", set(&[Seccomp])),
        ("limits", set(&[Limits])),
        ("cgroup", set(&[Cgroup])),
        ("all", all.and(possible)),
    ];
    let executed = columns.into_iter().filter(|(_, layers)| layers.and(possible) == *layers);
    let executed = executed.map(|(name, layers)| (name, layers, WorkerStart::Exec));
    executed.chain([(FORKED, all.and(possible), WorkerStart::Zygote)]).collect()
}

struct Ground {
    outside: Outside,
    spawner: Spawner,
    exits: Exits,
    _folder: tempfile::TempDir,
    _listeners: (TcpListener, UdpSocket, UnixListener, UnixListener),
    sleeper: Child,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
        // SAFETY: takes integers and a null pointer; the segment is this test's.
        unsafe { libc::shmctl(self.outside.segment, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

impl Ground {
    fn new() -> Self {
        // First: the spawner must be started by the only thread.
        let (spawner, exits) = Spawner::start(&std::env::current_exe().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let named = UnixListener::bind(folder.path().join("socket")).unwrap();
        std::fs::set_permissions(folder.path().join("socket"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let name = format!("tenantry-escape-{}", std::process::id());
        let unnamed = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        let sleeper = Command::new("/bin/sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        // SAFETY: takes integers only.
        let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o666) };
        assert!(segment >= 0, "no shared memory");
        let outside = Outside {
            folder: folder.path().to_owned(),
            tcp: tcp.local_addr().unwrap().port(),
            udp: udp.local_addr().unwrap().port(),
            name,
            pid: i32::try_from(sleeper.id()).unwrap(),
            segment,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        Self { outside, spawner, exits, _folder: folder, _listeners: (tcp, udp, named, unnamed), sleeper }
    }

    /// Runs one attempt behind these barriers.
    fn attempt(&self, attempt: &Attempt, layers: Layers, start: WorkerStart) -> Cell {
        // Some attempts take it away.
        std::fs::write(self.outside.folder.join("victim"), "victim").unwrap();
        let _ = std::fs::set_permissions(self.outside.folder.join("victim"), std::fs::Permissions::from_mode(0o666));
        let word = self.outside.write(attempt.name);
        let group = GroupLimits { max_processes: Some(MAX_PROCESSES), ..GroupLimits::default() };
        let spec = WorkerSpec { runtime_library: word.into(), layers, start, group, ..WorkerSpec::default() };
        let (channel, _ours) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let stderr = std::io::stderr();
        let stderr = rustix::io::dup(&stderr).unwrap();
        self.spawner.spawn(&spec, channel, stderr).unwrap();
        loop {
            if let Some(exit) = self.exits.next().unwrap() {
                return Cell::of(exit.status);
            }
            let mut polled = [PollFd::new(&self.exits, PollFlags::IN)];
            let limit = rustix::time::Timespec { tv_sec: 60, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut polled, Some(&limit)).unwrap(), 1, "{} hangs", attempt.name);
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cell {
    Succeeded,
    Refused(String),
    /// A barrier could not be put up, or the attempt died of something else.
    Broken(String),
}

impl Cell {
    fn of(status: ExitKind) -> Self {
        match status {
            ExitKind::Code(0) => Self::Succeeded,
            ExitKind::Code(199) => Self::Refused("not there".to_owned()),
            ExitKind::Code(code) if code == i32::from(NOT_LOCKED) => Self::Broken("not locked".to_owned()),
            ExitKind::Code(code) => Self::Refused(error_name(code)),
            ExitKind::Signal(libc::SIGSYS) => Self::Refused("killed".to_owned()),
            ExitKind::Signal(signal) => Self::Broken(format!("signal {signal}")),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Succeeded => "yes",
            Self::Refused(how) | Self::Broken(how) => how,
        }
    }
}

fn error_name(code: i32) -> String {
    let name = match code {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EACCES => "EACCES",
        libc::ENOSYS => "ENOSYS",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ECONNREFUSED => "refused",
        libc::ENETUNREACH => "no network",
        libc::EROFS => "EROFS",
        libc::ENOTTY => "ENOTTY",
        libc::ENOMEM => "ENOMEM",
        libc::EAGAIN => "EAGAIN",
        libc::EADDRNOTAVAIL => "no address",
        other => return format!("error {other}"),
    };
    name.to_owned()
}

/// Prints the matrix and checks every cell.
fn matrix(user: &str) -> ExitCode {
    let ground = Ground::new();
    let possible = ground.spawner.barriers().in_force;
    let columns = columns(possible);
    println!("\nas {user}: this machine allows {}", ground.spawner.barriers().level());
    for (layer, why) in &ground.spawner.barriers().not_in_force {
        println!("  without {layer}: {why}");
    }
    let width = ATTEMPTS.iter().map(|attempt| attempt.name.len()).max().unwrap_or(0);
    print!("{:width$}", "attempt");
    for (name, ..) in &columns {
        print!("  {name:10}");
    }
    println!();
    let mut wrong: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut tried, mut escaped) = (0, 0);
    for attempt in ATTEMPTS {
        print!("{:width$}", attempt.name);
        for (name, layers, start) in &columns {
            let cell = ground.attempt(attempt, *layers, *start);
            print!("  {:10}", cell.text());
            std::io::stdout().flush().unwrap();
            let more = if user == "root" { attempt.as_root } else { attempt.as_another };
            let stops = attempt.stopped_by.iter().chain(more).any(|layer| layers.has(*layer));
            let as_expected = match cell {
                Cell::Succeeded => !stops,
                Cell::Refused(_) => stops,
                Cell::Broken(_) => false,
            };
            if !as_expected {
                let expected = if stops { "to be refused" } else { "to succeed" };
                wrong.entry(attempt.name).or_default().push(format!("{name}: {}, was {expected}", cell.text()));
            }
            if *name == "all" || *name == FORKED {
                tried += 1;
                escaped += i32::from(cell == Cell::Succeeded);
            }
        }
        println!();
    }
    println!("as {user}: escape_attempts {tried}, escapes_succeeded {escaped}");
    for (attempt, cells) in &wrong {
        println!("NOT AS EXPECTED as {user}: {attempt}: {}", cells.join("; "));
    }
    // Where every barrier can be put up nothing may succeed behind all of them; elsewhere the cells say what is expected.
    let complete = possible.level() >= Level::Isolated;
    if wrong.is_empty() && (escaped == 0 || !complete) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
