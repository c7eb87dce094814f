//! How much memory there is for this process and its workers together.

/// The machine's memory, or less where this process's control group bounds it, bytes; `None` if the kernel does not say.
pub fn available_memory_bytes() -> Option<u64> {
    let information = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = information.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let machine = line.split_whitespace().next()?.parse::<u64>().ok()?.saturating_mul(1024);
    Some(crate::cgroup::own_memory_limit().map_or(machine, |limit| limit.min(machine)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn some_memory_is_there_and_not_more_than_a_machine_has() {
        let bytes = super::available_memory_bytes().unwrap();
        assert!((1 << 20..1 << 50).contains(&bytes), "{bytes}");
    }
}
