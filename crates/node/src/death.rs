//! A worker's death in words that its model's owner can act on.

use tenantry_jail::{Exit, ExitKind};

use crate::config::READY_LIMIT;
use crate::incident::IncidentKind;
use crate::interrupt::overran;
use crate::worker::Kill;

/// The signal of a system call that the filter does not allow.
const SIGSYS: i32 = 31;

/// How a worker ended that was not stopped on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Death {
    pub(crate) kind: IncidentKind,
    /// For the owner: in the error of the requests that ran, on the model's status, in the incident.
    pub(crate) reason: String,
}

impl Death {
    pub(crate) fn new(kind: IncidentKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// What a worker died of; `None` for one that was stopped on purpose.
pub(crate) fn death_reason(kill: Option<&Kill>, exit: &Exit, memory_limit: Option<u64>) -> Option<Death> {
    let death = match kill {
        Some(Kill::Stopped | Kill::Preempted) => return None,
        Some(Kill::Overran(limit)) => Death::new(IncidentKind::Deadline, overran(*limit)),
        Some(Kill::Overdue) => {
            Death::new(IncidentKind::Deadline, "it ran on long after every deadline of its requests and was ended")
        }
        Some(Kill::Violation(how)) => {
            Death::new(IncidentKind::Violation, format!("it broke the worker protocol: {how}"))
        }
        Some(Kill::NeverReady) => {
            Death::new(IncidentKind::Died, format!("its process did not become ready within {READY_LIMIT:?}"))
        }
        Some(Kill::Memory(limit)) => used_too_much_memory(Some(*limit)),
        Some(Kill::Silent) | None if exit.oom_kills > 0 => used_too_much_memory(memory_limit),
        // A socket closes when a process dies: the status says more.
        Some(Kill::Silent) | None => ended(exit.status),
    };
    Some(death)
}

fn used_too_much_memory(limit: Option<u64>) -> Death {
    let reason = match limit {
        Some(bytes) => format!("it used more memory than its limit of {} MiB and was ended", bytes >> 20),
        None => "it used more memory than there is and was ended".to_owned(),
    };
    Death::new(IncidentKind::OutOfMemory, reason)
}

fn ended(status: ExitKind) -> Death {
    match status {
        ExitKind::Code(0) => Death::new(IncidentKind::Died, "its process ended by itself"),
        ExitKind::Code(code) => Death::new(IncidentKind::Died, format!("its process ended with exit code {code}")),
        ExitKind::Signal(SIGSYS) => Death::new(
            IncidentKind::ForbiddenCall,
            "its process was ended by a system call that is not allowed (SIGSYS); a model that only computes makes \
             none: check where its file comes from, or ask the server's operator",
        ),
        ExitKind::Signal(signal) => Death::new(
            IncidentKind::Died,
            format!("its process was ended by signal {signal} ({})", signal_meaning(signal)),
        ),
    }
}

fn signal_meaning(signal: i32) -> &'static str {
    match signal {
        4 => "illegal instruction",
        6 => "abort: an allocation or a check inside the engine failed",
        7 => "bus error",
        8 => "arithmetic error, such as a division of whole numbers by zero",
        9 => "killed, perhaps for its use of memory",
        11 => "invalid memory access",
        15 => "terminated",
        24 => "CPU time limit",
        _ => "unexpected signal",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn death(kill: Option<&Kill>, status: ExitKind) -> Option<(IncidentKind, String)> {
        let exit = Exit { pid: 1, serial: 1, status, oom_kills: 0, memory_peak_bytes: None };
        death_reason(kill, &exit, None).map(|death| (death.kind, death.reason))
    }

    #[test]
    fn who_was_stopped_died_of_nothing() {
        for kill in [Kill::Stopped, Kill::Preempted] {
            assert_eq!(death(Some(&kill), ExitKind::Signal(9)), None);
        }
    }

    #[test]
    fn the_nodes_own_reason_goes_before_the_signal_it_sent() {
        let overran = death(Some(&Kill::Overran(Duration::from_secs(2))), ExitKind::Signal(9)).unwrap();
        assert_eq!(overran, (IncidentKind::Deadline, "it ran longer than its limit of 2s and was ended".to_owned()));
        let violation = death(Some(&Kill::Violation("it lied".to_owned())), ExitKind::Signal(9)).unwrap();
        assert_eq!(violation, (IncidentKind::Violation, "it broke the worker protocol: it lied".to_owned()));
    }

    #[test]
    fn memory_is_named_with_its_limit_whoever_ended_it() {
        let killed = Exit { pid: 1, serial: 1, status: ExitKind::Signal(9), oom_kills: 1, memory_peak_bytes: None };
        let by_kernel = death_reason(None, &killed, Some(64 << 20)).unwrap();
        let by_node = death_reason(Some(&Kill::Memory(64 << 20)), &Exit { oom_kills: 0, ..killed }, None).unwrap();
        assert_eq!(by_kernel, by_node);
        assert_eq!(by_kernel.kind, IncidentKind::OutOfMemory);
        assert_eq!(by_kernel.reason, "it used more memory than its limit of 64 MiB and was ended");
    }

    #[test]
    fn a_closed_socket_says_less_than_the_status() {
        for kill in [None, Some(&Kill::Silent)] {
            let (kind, reason) = death(kill, ExitKind::Signal(31)).unwrap();
            assert_eq!(kind, IncidentKind::ForbiddenCall);
            assert!(reason.contains("SIGSYS"), "{reason}");
            assert_eq!(death(kill, ExitKind::Signal(8)).unwrap().0, IncidentKind::Died);
            assert_eq!(death(kill, ExitKind::Code(3)).unwrap().1, "its process ended with exit code 3");
        }
    }
}
