//! Processors, processor time and memory of processes, as the kernel counts them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Where servers, workers and the raw engine run.
pub(crate) const SERVER_CPU: usize = 0;
/// Where the load comes from.
pub(crate) const LOAD_CPU: usize = 1;

/// Pins the calling thread, and whatever it starts from now on, to one processor.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on processor {cpu}"))
}

/// Runs `work` on another processor and comes back.
pub(crate) fn on_cpu<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = rustix::thread::sched_getaffinity(None)?;
    pin(cpu)?;
    let outcome = work();
    rustix::thread::sched_setaffinity(None, &before)?;
    outcome
}

/// A process and its living descendants.
pub(crate) fn tree(root: u32) -> Vec<u32> {
    let mut found = BTreeSet::from([root]);
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| Some((pid, stat_field(pid, 1)?.try_into().ok()?)))
        .collect();
    loop {
        let before = found.len();
        found.extend(
            parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid).collect::<Vec<_>>(),
        );
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

/// A number of `/proc/PID/stat`, counted from the field after the program's name.
fn stat_field(pid: u32, index: usize) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split_whitespace().nth(index)?.parse().ok()
}

/// Processor time of a process and its descendants so far, their ended threads and children included.
///
/// Counted in ticks of the kernel, usually 10 ms: small beside the seconds of a burst.
pub(crate) fn cpu_time(root: u32) -> Duration {
    let ticks = tree(root).into_iter().flat_map(|pid| (11..=14).map(move |field| stat_field(pid, field).unwrap_or(0)));
    Duration::from_secs_f64(ticks.sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Processor time of one process so far, its children not counted.
pub(crate) fn own_cpu_time(pid: u32) -> Result<Duration> {
    let field = |index| stat_field(pid, index).context("the process is gone");
    Ok(Duration::from_secs_f64((field(11)? + field(12)?) as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// What a process's memory would free if it ended, bytes: `Private_*` of `smaps_rollup`.
pub(crate) fn private_bytes(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the process is gone")?;
    let of = |line: &str| line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    Ok(text.lines().filter(|line| line.starts_with("Private_")).map(of).sum::<u64>() << 10)
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let before = cpu_time(std::process::id());
        let mut sum = 0_u64;
        while cpu_time(std::process::id()) <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(private_bytes(std::process::id()).unwrap() > 0);
        assert!(tree(std::process::id()).contains(&std::process::id()));
    }
}
