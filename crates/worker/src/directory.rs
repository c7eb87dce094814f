//! An empty working directory.
//!
//! A model file may name files beside it for its weights, and the runtime looks for those it was not given in the
//! working directory. From a directory that is empty, and cannot be filled, no relative name leads anywhere. For where the
//! worker cannot have a root of its own, which is better.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Where a directory can be made, the likeliest first.
const PLACES: [&str; 4] = ["/dev/shm", "/tmp", "/run", "/var/tmp"];

/// Makes a directory, enters it and removes it: what is left is empty for good, and gone with this process.
pub(crate) fn enter_empty() -> io::Result<()> {
    let mut last = io::ErrorKind::NotFound.into();
    for place in PLACES {
        match enter_in(Path::new(place)) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn enter_in(place: &Path) -> io::Result<()> {
    let path = place.join(format!("tenantry-worker-{}", std::process::id()));
    // Left over from a worker of this id that was killed in the two calls below.
    let _ = std::fs::remove_dir(&path);
    DirBuilder::new().mode(0o700).create(&path)?;
    let entered = std::env::set_current_dir(&path);
    std::fs::remove_dir(&path)?;
    entered
}
