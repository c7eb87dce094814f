//! Ending a run from another thread.

use ort::sys;

use crate::Runtime;
use crate::handle::{Owned, api, check};
use crate::runtime::LoadError;

/// Ends the run it is given to. One serves all runs of a thread, one after the other: that costs a run nothing, where a
/// fresh one would cost an allocation.
pub struct Termination {
    options: Owned<sys::OrtRunOptions>,
}

// SAFETY: run options may be made on one thread and used on another; only the terminate flag ever changes.
unsafe impl Send for Termination {}
// SAFETY: the C API documents setting the terminate flag from another thread while a run reads it as its purpose.
unsafe impl Sync for Termination {}

impl Termination {
    /// With the flag not set. The runtime is asked for because without it there is nothing to call.
    ///
    /// # Errors
    /// When memory ran out.
    pub fn new(_runtime: Runtime) -> Result<Self, LoadError> {
        // SAFETY: on success the function stores fresh options that belong to the caller.
        let options = unsafe { Owned::create(api().ReleaseRunOptions, |out| (api().CreateRunOptions)(out)) }?;
        Ok(Self { options })
    }

    /// Ends the run at the end of its current kernel, and every later one at once, until [`Termination::clear`].
    pub fn terminate(&self) {
        // SAFETY: the options are valid; the call stores a flag. It has no way to fail.
        let _ = check(unsafe { (api().RunOptionsSetTerminate)(self.options.as_ptr()) });
    }

    /// Lets runs run again. Only while none does.
    pub fn clear(&self) {
        // SAFETY: as above.
        let _ = check(unsafe { (api().RunOptionsUnsetTerminate)(self.options.as_ptr()) });
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::OrtRunOptions {
        self.options.as_ptr()
    }
}
