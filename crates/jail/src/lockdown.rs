//! What a worker does to itself after it has loaded its library and before it reads a tenant's first byte.
//!
//! Every step is a one-way door, and the order matters: mounting needs the capabilities that are dropped next, Landlock
//! needs `no_new_privs`, and the filter forbids nearly all of the calls the other steps make. Capabilities, Landlock and
//! the filter belong to threads, so there must be one only.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use crate::layers::{Layer, Layers};
use crate::{cgroup, seccomp};

/// The newest Landlock rules that are asked for; an older kernel enforces what it knows.
const LANDLOCK: ABI = ABI::V6;
/// The user inside the namespace that is no user of the host's, where the server is root: see `clone`.
pub(crate) const NOBODY: u32 = 1;
/// The host's user that owns nothing, for a server that is root and has no namespaces to give.
const HOST_NOBODY: u32 = 65_534;
/// The most descriptors a worker may hold: its files, its arenas, and then some.
const MAX_DESCRIPTORS: u64 = 1024;
/// The most threads of one user: a worker has a few for each processor it may use.
const MAX_THREADS: u64 = 1024;

/// Why a worker could not be locked down; it must not go on.
#[derive(Debug, thiserror::Error)]
pub enum LockdownError {
    /// Capabilities, Landlock and the filter would not hold for the other threads.
    #[error("the worker has {0} threads before it is locked down, and must have one")]
    Threads(usize),
    /// The kernel refused a step.
    #[error("the barrier `{layer}` cannot be put up: {error}")]
    Refused {
        /// The step.
        layer: Layer,
        /// The kernel's answer.
        error: io::Error,
    },
    /// It was put up, and a look says that it is not there.
    #[error("the barrier `{0}` was put up and does not hold")]
    NotInForce(Layer),
}

/// Puts up one barrier; told which others there are or will be.
type Step = fn(Layers) -> io::Result<()>;

/// Puts up the barriers that are wanted around this process, for good, and checks that they are there.
///
/// The namespaces and the control group are there already or never: they were made with the process.
///
/// # Errors
/// [`LockdownError`]: the process is to end, having read nothing.
pub fn lock_down(wanted: Layers) -> Result<(), LockdownError> {
    if wanted == Layers::NONE {
        return Ok(());
    }
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads != 1 {
        return Err(LockdownError::Threads(threads));
    }
    let steps: [(Layer, Step); 5] = [
        (Layer::Root, |_| enter_own_root()),
        (Layer::Limits, set_limits),
        (Layer::Privileges, drop_privileges),
        (Layer::Landlock, forbid_files),
        (Layer::Seccomp, |_| seccomp::install()),
    ];
    for (layer, step) in steps {
        if wanted.has(layer) {
            step(wanted).map_err(|error| LockdownError::Refused { layer, error })?;
        }
    }
    let seen = seen();
    match wanted.iter().find(|layer| !seen.has(*layer)) {
        Some(missing) => Err(LockdownError::NotInForce(missing)),
        None => Ok(()),
    }
}

/// Enters a root directory with nothing in it but what the kernel says about this process, on a host without a name.
pub(crate) fn enter_own_root() -> io::Result<()> {
    rustix::system::sethostname(b"worker")?;
    // Nothing that is mounted here may be seen outside.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let hardened =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    // The runtime writes an optimised model to a descriptor, which it can only name by a path below /proc.
    let processes = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(processes.as_fd(), "subset", "pid")?;
    rustix::mount::fsconfig_set_string(processes.as_fd(), "hidepid", "invisible")?;
    rustix::mount::fsconfig_create(processes.as_fd())?;
    let processes = rustix::mount::fsmount(processes.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, hardened)?;
    let root = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("size", "64k"), ("nr_inodes", "16"), ("mode", "0555")] {
        rustix::mount::fsconfig_set_string(root.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_create(root.as_fd())?;
    let root = rustix::mount::fsmount(root.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, hardened)?;
    // Any directory will do to mount it on, as everything that is there is left behind; this one always exists.
    rustix::mount::move_mount(root.as_fd(), "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(root.as_fd())?;
    rustix::fs::mkdir("proc", Mode::from_raw_mode(0o555))?;
    rustix::mount::move_mount(processes.as_fd(), "", CWD, "proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::BIND;
    rustix::mount::mount_remount("/", flags, c"")?;
    Ok(())
}

/// Sets the limits of what a process can hoard.
pub(crate) fn set_limits(in_force: Layers) -> io::Result<()> {
    let mut limits = vec![
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nice, 0),
        (Resource::Rtprio, 0),
        (Resource::Sigpending, 256),
        (Resource::Nofile, MAX_DESCRIPTORS),
    ];
    // Counted for each user of each namespace: without one of its own it would count the server's other processes.
    if in_force.has(Layer::Namespaces) {
        limits.push((Resource::Nproc, MAX_THREADS));
    }
    for (resource, most) in limits {
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = Some(hard.map_or(most, |hard| hard.min(most)));
        rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
    }
    Ok(())
}

/// Gives up every capability, for itself and for whatever it might execute; and becomes a user that owns nothing, where
/// the server could arrange for one.
pub(crate) fn drop_privileges(in_force: Layers) -> io::Result<()> {
    let user = match in_force.has(Layer::Namespaces) {
        true => has_user_of_its_own().then_some(NOBODY),
        false => rustix::process::geteuid().is_root().then_some(HOST_NOBODY),
    };
    let mut sets = rustix::thread::capabilities(None)?;
    let may_drop = sets.effective.contains(CapabilitySet::SETPCAP);
    if may_drop {
        let kept = CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
        rustix::thread::set_capabilities_secure_bits(kept)?;
        // Also those this code has no name for: the kernel says where they end.
        for number in 0..=63 {
            // SAFETY: takes integers only.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } < 0 {
                break;
            }
        }
    }
    if let Some(user) = user {
        // SAFETY: integers and a null list of length zero; there is one thread.
        let done = unsafe {
            libc::setgroups(0, std::ptr::null()) == 0
                && libc::setresgid(user, user, user) == 0
                && libc::setresuid(user, user, user) == 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
    }
    // A kernel without ambient capabilities has none to clear.
    let _ = rustix::thread::clear_ambient_capability_set();
    sets = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Becoming another user has cleared it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Whether a second user is mapped into this namespace, which only a server that is root can arrange.
fn has_user_of_its_own() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u32>);
        numbers.next() == Some(Ok(NOBODY))
            && numbers.next().is_some_and(|host| host.is_ok())
            && numbers.next() == Some(Ok(1))
    })
}

/// Forbids every file, every TCP port, and signals and sockets that lead outside, as far as this kernel knows how.
pub(crate) fn forbid_files(in_force: Layers) -> io::Result<()> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    // What it may read about itself. Descriptors it was given are not looked up, so they need no rule.
    let own = if in_force.has(Layer::Root) { "/proc" } else { "/proc/self" };
    let status = (|| {
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?;
        let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
        match PathFd::new(own) {
            Ok(own) => rules.add_rule(PathBeneath::new(own, read))?.restrict_self(),
            Err(_) => rules.restrict_self(),
        }
    })()
    .map_err(|error: landlock::RulesetError| failed(&error))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no Landlock, or it is off"))
        }
        _ => Ok(()),
    }
}

/// What can be seen to hold for this process.
fn seen() -> Layers {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let no_capabilities = ["CapEff", "CapPrm", "CapInh", "CapAmb"]
        .iter()
        .all(|set| field(set).is_none_or(|bits| bits.bytes().all(|digit| digit == b'0')));
    let limit = |resource| rustix::process::getrlimit(resource).maximum;
    let holds = |layer: Layer| match layer {
        // Process 1 of its own.
        Layer::Namespaces => rustix::process::getpid().is_init(),
        Layer::Root => !exists(c"/etc") && !exists(c"/dev") && !exists(c"/proc/version"),
        Layer::Privileges => no_capabilities && field("NoNewPrivs") == Some("1"),
        // The kernel does not say, so it is tried: nobody else forbids to open the root directory.
        Layer::Landlock => {
            let opened = rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            opened.err() == Some(Errno::ACCESS)
        }
        Layer::Seccomp => field("Seccomp") == Some("2"),
        Layer::Limits => limit(Resource::Core) == Some(0) && limit(Resource::Memlock) == Some(0),
        // The spawner has put it there; in a namespace of its own its group is the root of all it sees.
        Layer::Cgroup => {
            let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            cgroup::is_worker_group(&groups)
        }
    };
    Layer::ALL.into_iter().filter(|layer| holds(*layer)).collect()
}

fn exists(path: &CStr) -> bool {
    rustix::fs::stat(path).is_ok()
}
