//! How much memory of its own this process uses.

/// Bytes of anonymous memory of this process: what it allocated, not what it maps from files, which replicas share.
/// `None` where the kernel does not say.
pub fn anonymous_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/smaps_rollup").ok()?)
}

/// Gives freed memory back to the kernel, so that a difference of two [`anonymous_bytes`] means something.
pub fn trim() {
    // SAFETY: takes an integer; the C library locks its heap itself.
    unsafe { libc::malloc_trim(0) };
}

fn parse(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocating_shows_and_mapping_a_file_does_not() {
        assert_eq!(parse("Rss:  12 kB\nAnonymous:   7 kB\n"), Some(7 * 1024));
        assert_eq!(parse("Rss:  12 kB\n"), None);
        assert!(anonymous_bytes().is_some_and(|bytes| bytes > 0));
    }
}
