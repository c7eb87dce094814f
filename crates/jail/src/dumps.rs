//! What a crash leaves behind.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// No core dump of this process is ever written, whatever the machine does with them, and no other process of the same user
/// reads its memory: it holds keys. Programs that it starts decide for themselves.
///
/// # Errors
/// When the kernel refuses.
pub fn forbid_core_dumps() -> io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // The limit does not hold for machines that pipe dumps into a program; this does.
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_dump_is_written() {
        super::forbid_core_dumps().unwrap();
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).current, Some(0));
        let behavior = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(behavior, rustix::process::DumpableBehavior::NotDumpable);
    }
}
