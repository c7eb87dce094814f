//! How many slots a machine has and on which processors each runs.
//!
//! A slot runs one batch at a time. Two slots on one core halve each other's speed and void what either was promised, so
//! each has cores of its own where there are enough. One core in eight is left to the server: it decodes, batches and
//! encodes beside the slots, and below eight cores it takes that time from them (workers run at a lower priority, so it
//! gets it at once). One core a slot, because joining requests uses more cores better than splitting one run does: what
//! more threads gain within a run is always less than their number. Who needs a shorter single run sets `slot_cores`.

use std::collections::BTreeSet;

use super::{SettingsError, SlotGroupTable};

/// Of how many processors one is the server's.
const PROCESSORS_PER_SERVER_SHARE: usize = 8;

/// What workers may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Processors {
    /// By number; empty where it is not known which they are.
    numbers: Vec<usize>,
    /// How many may run at once: a quota may be less than the processors it is spread over.
    count: usize,
}

/// The slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) slots: u16,
    /// The processors of each slot; empty: no slot is pinned.
    pub(super) cores: Vec<Vec<usize>>,
}

/// The processors named, or those of this process.
pub(super) fn processors(named: &[usize]) -> Processors {
    if !named.is_empty() {
        return Processors { numbers: named.to_vec(), count: named.len() };
    }
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).and_then(parse_list);
    // Where a quota allows fewer than there are, no slot has a core that is its own.
    Processors { numbers: allowed.filter(|numbers| numbers.len() == count).unwrap_or_default(), count }
}

/// `0-3,8` as the kernel writes it.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Divides the processors among the slots.
pub(super) fn layout(
    slots: Option<u16>,
    slot_cores: Option<u16>,
    processors: &Processors,
) -> Result<Layout, SettingsError> {
    let width = usize::from(slot_cores.unwrap_or(1).max(1));
    let for_slots = processors.count - processors.count / PROCESSORS_PER_SERVER_SHARE;
    let slots = slots.unwrap_or_else(|| u16::try_from(for_slots / width).unwrap_or(u16::MAX).max(1));
    let needed = usize::from(slots) * width;
    if slot_cores.is_some() && needed > processors.count {
        let problem = format!(
            "{slots} slots of {width} processors need {needed}, and there are {}; name fewer slots or more `workers.cpus`",
            processors.count
        );
        return Err(SettingsError { key: "workers.slot_cores", problem });
    }
    // From the end, because interrupts and whatever else the machine does favour its first processors.
    let cores: Vec<Vec<usize>> =
        processors.numbers.rchunks_exact(width).take(slots.into()).map(<[usize]>::to_vec).collect();
    let is_pinned = cores.len() == usize::from(slots);
    Ok(Layout { slots, cores: if is_pinned { cores } else { Vec::new() } })
}

/// Whether the groups have names of their own and leave a slot for everybody.
pub(super) fn check_groups(groups: &[SlotGroupTable], slots: u16) -> Result<(), SettingsError> {
    let fail = |problem: String| Err(SettingsError { key: "workers.group", problem });
    let mut names = BTreeSet::new();
    for group in groups {
        if group.name.is_empty() || !names.insert(&group.name) {
            return fail("needs a `name` for each group that no other group has".to_owned());
        }
        if group.slots == 0 {
            return fail(format!("`{}` needs at least 1 slot", group.name));
        }
    }
    let dedicated: u32 = groups.iter().map(|group| u32::from(group.slots)).sum();
    if dedicated >= u32::from(slots) && !groups.is_empty() {
        return fail(format!(
            "takes {dedicated} of {slots} slots; at least one must be left for the tenants without a group"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors(count: usize) -> Processors {
        Processors { numbers: (0..count).collect(), count }
    }

    #[test]
    fn the_default_leaves_the_server_its_share() {
        let table = [(1, 1), (2, 2), (4, 4), (7, 7), (8, 7), (16, 14), (64, 56)];
        for (count, slots) in table {
            let layout = layout(None, None, &processors(count)).unwrap();
            assert_eq!((usize::from(layout.slots), layout.cores.len()), (slots, slots), "{count}");
            let mut cores = layout.cores.concat();
            cores.sort_unstable();
            assert_eq!(cores, (count - slots..count).collect::<Vec<_>>(), "{count}");
        }
        assert_eq!(layout(None, Some(4), &processors(64)).unwrap().slots, 14);
        assert_eq!(layout(None, Some(2), &processors(2)).unwrap().cores, [[0, 1]]);
    }

    #[test]
    fn slots_without_cores_of_their_own_are_not_pinned() {
        let more = layout(Some(4), None, &processors(2)).unwrap();
        assert_eq!((more.slots, more.cores.len()), (4, 0));
        let quota = Processors { numbers: Vec::new(), count: 2 };
        assert_eq!(layout(None, None, &quota).unwrap(), Layout { slots: 2, cores: Vec::new() });
        let refused = layout(Some(4), Some(1), &processors(2)).unwrap_err();
        assert!(refused.to_string().contains("need 4, and there are 2"), "{refused}");
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse_list("\t0-2,5,8-9"), Some(vec![0, 1, 2, 5, 8, 9]));
        assert_eq!(parse_list("x"), None);
        assert!(super::processors(&[]).count >= 1);
        assert_eq!(super::processors(&[3, 4]), Processors { numbers: vec![3, 4], count: 2 });
    }

    #[test]
    fn groups_have_names_and_leave_a_slot() {
        let group = |name: &str, slots| SlotGroupTable { name: name.to_owned(), slots };
        assert!(check_groups(&[], 1).is_ok());
        assert!(check_groups(&[group("a", 1), group("b", 2)], 4).is_ok());
        for bad in [vec![group("", 1)], vec![group("a", 1), group("a", 1)], vec![group("a", 0)], vec![group("a", 4)]] {
            assert!(check_groups(&bad, 4).is_err(), "{bad:?}");
        }
    }
}
