//! The control group of one worker: its files, and what they mean.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::detect::Version;

/// The weight of a group that was given none.
pub const DEFAULT_CPU_WEIGHT: u16 = 100;
/// The smallest and largest weight (`cpu.weight` in the kernel's documentation of cgroup v2).
const CPU_WEIGHTS: std::ops::RangeInclusive<u16> = 1..=10_000;
/// Weight 100 of version 2 in the unit of version 1 (`cpu.shares`), and the least that has.
const DEFAULT_SHARES: u64 = 1024;
const MIN_SHARES: u64 = 2;
/// The period of a processor ceiling, microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// The shortest quota of a period the kernel takes, microseconds.
const MIN_QUOTA_US: u64 = 1_000;

/// What the processes of a worker may use together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLimits {
    /// The most memory, bytes, and none beyond it on a swap device; `None`: as much as the server. Beyond it the kernel
    /// ends the worker.
    pub memory_bytes: Option<u64>,
    /// The most processes and threads; `None`: as many as the server.
    pub max_processes: Option<u32>,
    /// The share of processor time beside other groups, 1 to 10,000; `None`: [`DEFAULT_CPU_WEIGHT`].
    pub cpu_weight: Option<u16>,
    /// The most processor time, thousandths of one processor; `None`: no ceiling.
    pub max_cpu_milli: Option<u32>,
}

/// What a group has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) oom_kills: u64,
    pub(crate) memory_peak_bytes: Option<u64>,
}

/// The directories of one group: one, or one for each controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) version: Version,
    pub(crate) memory: PathBuf,
    pub(crate) pids: PathBuf,
    pub(crate) cpu: PathBuf,
    /// The directory with the freezer's files.
    pub(crate) freezer: Option<PathBuf>,
}

impl Group {
    /// Its directories, each once.
    pub(crate) fn directories(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = [&self.memory, &self.pids, &self.cpu].into_iter().map(PathBuf::as_path).collect();
        all.extend(self.freezer.as_deref());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The group of this name below this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self {
            version: self.version,
            memory: self.memory.join(name),
            pids: self.pids.join(name),
            cpu: self.cpu.join(name),
            freezer: self.freezer.as_ref().map(|path| path.join(name)),
        }
    }

    /// Makes the directories. What was made of them is taken back if one cannot be.
    pub(crate) fn create(&self) -> io::Result<()> {
        for directory in self.directories() {
            if let Err(error) = std::fs::create_dir(directory) {
                let _ = self.remove();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Sets every limit.
    pub(crate) fn limit(&self, limits: &GroupLimits) -> io::Result<()> {
        if let Some(bytes) = limits.memory_bytes {
            self.limit_memory(bytes)?;
        }
        if let Some(most) = limits.max_processes {
            write(&self.pids, "pids.max", most)?;
        }
        if let Some(weight) = limits.cpu_weight {
            self.set_cpu_weight(weight)?;
        }
        if let Some(milli) = limits.max_cpu_milli {
            let quota = (u64::from(milli) * PERIOD_US / 1000).max(MIN_QUOTA_US);
            match self.version {
                Version::V2 => write(&self.cpu, "cpu.max", format!("{quota} {PERIOD_US}"))?,
                Version::V1 => {
                    write(&self.cpu, "cpu.cfs_period_us", PERIOD_US)?;
                    write(&self.cpu, "cpu.cfs_quota_us", quota)?;
                }
            }
        }
        Ok(())
    }

    fn limit_memory(&self, bytes: u64) -> io::Result<()> {
        // The files about swap are not there where the kernel does not count it.
        match self.version {
            Version::V2 => {
                write(&self.memory, "memory.max", bytes)?;
                write_if_there(&self.memory, "memory.swap.max", 0)?;
                // A worker that lost one of its processes is no worker.
                write_if_there(&self.memory, "memory.oom.group", 1)
            }
            Version::V1 => {
                write(&self.memory, "memory.limit_in_bytes", bytes)?;
                // Counted together with memory, so that nothing is left for swap.
                write_if_there(&self.memory, "memory.memsw.limit_in_bytes", bytes)
            }
        }
    }

    /// Changes its share of processor time.
    pub(crate) fn set_cpu_weight(&self, weight: u16) -> io::Result<()> {
        let weight = weight.clamp(*CPU_WEIGHTS.start(), *CPU_WEIGHTS.end());
        match self.version {
            Version::V2 => write(&self.cpu, "cpu.weight", weight),
            Version::V1 => {
                let shares = u64::from(weight) * DEFAULT_SHARES / u64::from(DEFAULT_CPU_WEIGHT);
                write(&self.cpu, "cpu.shares", shares.max(MIN_SHARES))
            }
        }
    }

    /// Puts a process into it.
    pub(crate) fn adopt(&self, pid: i32) -> io::Result<()> {
        self.directories().into_iter().try_for_each(|directory| write(directory, "cgroup.procs", pid))
    }

    /// Whether the kernel says that this process is in it, in every hierarchy.
    pub(crate) fn holds(&self, pid: i32) -> io::Result<bool> {
        let pid = pid.to_string();
        for directory in self.directories() {
            let members = std::fs::read_to_string(directory.join("cgroup.procs"))?;
            if !members.lines().any(|member| member == pid) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether what it may use is what was asked for. The kernel rounds memory to pages.
    pub(crate) fn is_limited(&self, limits: &GroupLimits) -> bool {
        const PAGE: u64 = 64 << 10;
        limits.memory_bytes.is_none_or(|bytes| {
            memory_limit(self.version, &self.memory).is_some_and(|limit| limit <= bytes && bytes - limit < PAGE)
        }) && limits.max_processes.is_none_or(|most| number(&self.pids.join("pids.max")) == Some(u64::from(most)))
    }

    /// Stops every thread in it where it is. One that computes elsewhere is interrupted; one that does not compute right now
    /// stands before it does again. So there is nothing to wait for: on the caller's own processor the kernel's word that
    /// all stand comes only after each has had its turn once more, some milliseconds later.
    pub(crate) fn freeze(&self) -> io::Result<()> {
        let Some(directory) = &self.freezer else { return Err(io::ErrorKind::Unsupported.into()) };
        match self.version {
            Version::V2 => write(directory, "cgroup.freeze", "1"),
            Version::V1 => write(directory, "freezer.state", "FROZEN"),
        }
    }

    /// Whether the kernel says that every thread in it stands.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        let Some(directory) = &self.freezer else { return Ok(false) };
        let (file, word) = match self.version {
            Version::V2 => ("cgroup.events", "frozen 1"),
            Version::V1 => ("freezer.state", "FROZEN"),
        };
        Ok(std::fs::read_to_string(directory.join(file))?.lines().any(|line| line == word))
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        let Some(directory) = &self.freezer else { return Ok(()) };
        match self.version {
            Version::V2 => write(directory, "cgroup.freeze", "0"),
            Version::V1 => write(directory, "freezer.state", "THAWED"),
        }
    }

    /// What it has counted so far.
    pub(crate) fn counters(&self) -> Counters {
        let (events, peak) = match self.version {
            Version::V2 => ("memory.events", "memory.peak"),
            Version::V1 => ("memory.oom_control", "memory.max_usage_in_bytes"),
        };
        let events = std::fs::read_to_string(self.memory.join(events)).unwrap_or_default();
        let oom_kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        Counters { oom_kills: oom_kills.unwrap_or(0), memory_peak_bytes: number(&self.memory.join(peak)) }
    }

    /// Ends whatever is still in it.
    pub(crate) fn kill_all(&self) {
        for directory in self.directories() {
            kill_members(directory);
        }
        // The signal reaches a frozen process of version 1 only when it goes on.
        let _ = self.thaw();
    }

    /// Removes the directories; fails while a process is in one of them.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.directories().into_iter().map(remove_directory).fold(Ok(()), io::Result::and)
    }
}

/// The memory a group may use, bytes; `None` where it is not bounded.
pub(super) fn memory_limit(version: Version, directory: &Path) -> Option<u64> {
    let file = match version {
        Version::V2 => "memory.max",
        Version::V1 => "memory.limit_in_bytes",
    };
    number(&directory.join(file))
}

/// Removes a group's directory; one that is not there is no error.
pub(super) fn remove_directory(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Sends SIGKILL to every process of a group.
pub(super) fn kill_members(directory: &Path) {
    let members = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

pub(super) fn write(directory: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    std::fs::write(directory.join(file), value.to_string())
}

fn write_if_there(directory: &Path, file: &str, value: impl ToString) -> io::Result<()> {
    if directory.join(file).exists() { write(directory, file, value) } else { Ok(()) }
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}
