//! Control groups: the kernel counts and bounds what a worker uses.
//!
//! The spawner makes a group of its own beside the server, and below it one for each worker:
//!
//! ```text
//! version 2                                       version 1, in each hierarchy
//! GROUP                    the server's            GROUP                the server's, with the server in it
//! ├─ tenantry-server       the server, moved       └─ tenantry-PID      of one spawner, locked while that lives
//! └─ tenantry-PID          of one spawner             └─ worker-N
//!    └─ worker-N
//! ```
//!
//! In version 2 a group that hands controllers down may hold no process, hence the move. A spawner that was killed leaves
//! its groups behind; the next one finds them unlocked and removes them.

mod detect;
mod group;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

pub(crate) use detect::Version;
pub(crate) use group::Group;
pub use group::{DEFAULT_CPU_WEIGHT, GroupLimits};
use group::{kill_members, remove_directory, write};

/// Where a server of a delegated group of version 2 puts itself.
const SERVER: &str = "tenantry-server";
/// What the groups of spawners begin with; their process id follows.
const PREFIX: &str = "tenantry-";
/// What the groups of workers begin with; their serial number follows.
const WORKER: &str = "worker-";
/// The weight of all workers together beside the server, whose weight is 100: what a nice value of 5 would give them. The
/// server goes first, because every answer of every worker passes through it.
const WORKERS_WEIGHT: u16 = 33;
/// How often processes are moved out of the server's group, in case new ones appear in it meanwhile.
const MOVES: usize = 8;

/// The groups of this spawner's workers.
#[derive(Debug)]
pub(crate) struct Groups {
    parent: Group,
    /// Held for as long as this process lives, so that others can see that it does.
    _locks: Vec<OwnedFd>,
    /// Of workers that have ended; not removed yet because the kernel was still busy with them.
    leaving: Vec<Group>,
}

impl Groups {
    /// Makes the group of this spawner, and removes those of dead ones.
    ///
    /// # Errors
    /// What is missing, in words.
    pub(crate) fn open() -> Result<Self, String> {
        let read = |file: &str| std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
        let found = detect::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        let mut own = Group {
            version: found.version,
            memory: found.memory,
            pids: found.pids,
            cpu: found.cpu,
            freezer: found.freezer,
        };
        if own.version == Version::V2 {
            own = unified(&own.memory);
        }
        let failed = |error: io::Error| format!("no group can be made: {error}");
        let parent = own.child(&format!("{PREFIX}{}", std::process::id()));
        if own.version == Version::V2 && !is_delegated(&own.memory) {
            return Err("the server's control group is managed by systemd and not delegated to it".to_owned());
        }
        // Of a process that had this number before, if it is there.
        parent.directories().into_iter().for_each(remove_tree);
        parent.create().map_err(failed)?;
        let locks = parent.directories().into_iter().map(lock).collect::<io::Result<Vec<_>>>();
        // From here on dropping it removes what was made.
        let groups = Self { parent, _locks: locks.map_err(failed)?, leaving: Vec::new() };
        if own.version == Version::V2 {
            hand_down(&own.memory, &groups.parent.memory).map_err(failed)?;
        }
        groups.parent.set_cpu_weight(WORKERS_WEIGHT).map_err(failed)?;
        for directory in own.directories() {
            remove_stale(directory);
        }
        Ok(groups)
    }

    /// Makes the group of one worker.
    pub(crate) fn make(&self, serial: u64, limits: &GroupLimits) -> io::Result<Group> {
        let group = self.parent.child(&format!("{WORKER}{serial}"));
        group.create()?;
        if let Err(error) = group.limit(limits) {
            let _ = group.remove();
            return Err(error);
        }
        Ok(group)
    }

    /// Whether workers can be frozen.
    pub(crate) fn has_freezer(&self) -> bool {
        self.parent.freezer.is_some()
    }

    /// Takes a group whose worker has ended.
    pub(crate) fn leave(&mut self, group: Group) {
        self.leaving.push(group);
        self.sweep();
    }

    /// Removes what can be removed of the groups of ended workers; whether any is left to be tried again.
    pub(crate) fn sweep(&mut self) -> bool {
        self.leaving.retain(|group| {
            let gone = group.remove().is_ok();
            if !gone {
                // Only where workers have no process namespace, with which all of them end.
                group.kill_all();
            }
            !gone
        });
        !self.leaving.is_empty()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.sweep();
        // What is left is the next spawner's to remove.
        let _ = self.parent.remove();
    }
}

/// What the control group of this process may use of memory, bytes; `None` without a group, or without a limit.
pub(crate) fn own_memory_limit() -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    let found = detect::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?).ok()?;
    // Where the server has put itself aside, the limit is on the group around it.
    match found.version {
        Version::V2 => group::memory_limit(Version::V2, &unified(&found.memory).memory),
        Version::V1 => group::memory_limit(Version::V1, &found.memory),
    }
}

/// Whether a process with this `/proc/self/cgroup` is in a worker's group: that is the root of what it sees, or its name
/// is a worker's.
pub(crate) fn is_worker_group(groups: &str) -> bool {
    let bounding = |line: &&str| {
        let controllers = line.split(':').nth(1).unwrap_or_default();
        controllers.is_empty() || controllers.split(',').any(|name| detect::NEEDED.contains(&name))
    };
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let mut paths = groups.lines().filter(bounding).filter_map(path).peekable();
    paths.peek().is_some() && paths.all(|path| path == "/" || path.contains(&format!("/{WORKER}")))
}

/// The server's group of version 2: where it was started, not where it put itself.
fn unified(path: &Path) -> Group {
    let path = if path.file_name().is_some_and(|name| name == SERVER) { path.parent().unwrap_or(path) } else { path };
    let same = || path.to_owned();
    Group { version: Version::V2, memory: same(), pids: same(), cpu: same(), freezer: Some(same()) }
}

/// Whether the group is the server's to divide: systemd says so on those it manages, and where none runs nobody else
/// divides them.
fn is_delegated(group: &Path) -> bool {
    let marked = ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| rustix::fs::getxattr(group, name, &mut [0_u8; 8]).is_ok());
    marked || !Path::new("/run/systemd/system").exists()
}

/// Hands the controllers down from the server's group through the spawner's to those of the workers.
fn hand_down(own: &Path, parent: &Path) -> io::Result<()> {
    // The root of all groups has no type, and may hold processes.
    if own.join("cgroup.type").exists() {
        let server = own.join(SERVER);
        match std::fs::create_dir(&server) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        for _ in 0..MOVES {
            let members = std::fs::read_to_string(own.join("cgroup.procs"))?;
            if members.is_empty() {
                break;
            }
            for pid in members.lines() {
                match write(&server, "cgroup.procs", pid) {
                    // It ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    moved => moved?,
                }
            }
        }
    }
    [own, parent].into_iter().try_for_each(|group| write(group, "cgroup.subtree_control", "+memory +pids +cpu"))
}

/// Locks a group's directory for as long as the descriptor is open.
fn lock(directory: &Path) -> io::Result<OwnedFd> {
    let opened = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive)?;
    Ok(opened)
}

/// Removes the groups of spawners that are dead.
fn remove_stale(own: &Path) {
    for group in children(own) {
        let number = group.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse::<u32>().ok());
        // Whoever lives holds the lock.
        if number.is_some() && lock(&group).is_ok() {
            remove_tree(&group);
        }
    }
}

/// Removes a spawner's group with those of its workers, and ends what is still in them: its spawner is dead, so it should
/// be, too.
fn remove_tree(directory: &Path) {
    for child in children(directory) {
        if remove_directory(&child).is_err() {
            kill_members(&child);
            // Whichever of them it has.
            let _ = write(&child, "freezer.state", "THAWED");
            let _ = write(&child, "cgroup.freeze", 0);
            let _ = remove_directory(&child);
        }
    }
    let _ = remove_directory(directory);
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let entries = entries.filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
