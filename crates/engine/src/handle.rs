//! Owned objects of the C API, and its status as a `Result`.

use std::ffi::CStr;
use std::ptr::NonNull;

use ort::sys;
use tenantry_types::error::sanitise;
use tenantry_types::limits::MAX_ENGINE_MESSAGE_CHARS;

use crate::Fault;

/// The table of C functions. Only called by values that cannot exist before `Runtime::open` has loaded the library.
pub(crate) fn api() -> &'static sys::OrtApi {
    ort::api()
}

/// An error of the runtime. The text may carry a tenant's bytes; it is sanitised here, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: sys::OrtErrorCode,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(text: &str) -> Self {
        Self { code: sys::OrtErrorCode::ORT_FAIL, text: sanitise(text, MAX_ENGINE_MESSAGE_CHARS) }
    }

    /// Whether an allocation failed. The C API has no code for it.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        ["Failed to allocate", "bad_alloc", "bad allocation", "Could not allocate"]
            .iter()
            .any(|text| self.text.contains(text))
    }

    /// Whose fault a failure during a run is.
    pub(crate) fn run_fault(&self) -> Fault {
        use sys::OrtErrorCode as Code;
        if self.is_out_of_memory() {
            return Fault::Resource;
        }
        match self.code {
            Code::ORT_NOT_IMPLEMENTED
            | Code::ORT_EP_FAIL
            | Code::ORT_ENGINE_ERROR
            | Code::ORT_NO_SUCHFILE
            | Code::ORT_INVALID_GRAPH
            | Code::ORT_INVALID_PROTOBUF => Fault::Model,
            // What a kernel refuses, it refuses because of the values it got: a registered model has been run before.
            _ => Fault::Input,
        }
    }
}

/// Takes over a status.
pub(crate) fn check(status: sys::OrtStatusPtr) -> Result<(), Failure> {
    let Some(status) = NonNull::new(status.0) else { return Ok(()) };
    // SAFETY: a non-null status was just returned by the C API and is ours until it is released, which happens after
    // its text has been copied.
    unsafe {
        let code = (api().GetErrorCode)(status.as_ptr());
        let text = CStr::from_ptr((api().GetErrorMessage)(status.as_ptr())).to_string_lossy().into_owned();
        (api().ReleaseStatus)(status.as_ptr());
        Err(Failure { code, text: sanitise(without_source(&text), MAX_ENGINE_MESSAGE_CHARS) })
    }
}

/// The text without the place in the runtime's own source it may begin with
/// (`/build/onnxruntime/core/x.cc:12 Signature(...) condition was false. What it means`), which tells a client nothing.
fn without_source(text: &str) -> &str {
    let Some((_, after)) = text.split_once(".cc:").or_else(|| text.split_once(".h:")) else { return text };
    // The signature that follows has parentheses; what is meant comes after its last one or after the condition.
    let meant = after.rsplit_once(" was false. ").or_else(|| after.rsplit_once(") ")).map_or("", |(_, meant)| meant);
    if meant.trim().is_empty() { "the runtime refused it" } else { meant.trim() }
}

/// An object of the C API, released on drop.
pub(crate) struct Owned<T> {
    object: NonNull<T>,
    release: unsafe extern "system" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes over what `create` stores, when it succeeds.
    ///
    /// # Safety
    /// On success `create` stores a valid object that belongs to the caller and that `release` frees.
    pub(crate) unsafe fn create(
        release: unsafe extern "system" fn(*mut T),
        create: impl FnOnce(*mut *mut T) -> sys::OrtStatusPtr,
    ) -> Result<Self, Failure> {
        let mut object = std::ptr::null_mut();
        check(create(&raw mut object))?;
        // SAFETY: by contract of this function.
        unsafe { Self::take(object, release) }
    }

    /// Takes over `object`.
    ///
    /// # Safety
    /// `object` is null or a valid object that belongs to the caller and that `release` frees.
    pub(crate) unsafe fn take(object: *mut T, release: unsafe extern "system" fn(*mut T)) -> Result<Self, Failure> {
        let object = NonNull::new(object).ok_or_else(|| Failure::new("the runtime returned nothing"))?;
        Ok(Self { object, release })
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the object is ours by construction and is not used after this.
        unsafe { (self.release)(self.object.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::without_source;

    #[test]
    fn places_in_the_runtimes_source_are_left_out() {
        let text = "/onnxruntime_src/onnxruntime/core/framework/op_kernel.cc:87 virtual OrtValue* onnxruntime::F::Output(int, const Shape&) status.IsOK() was false. tensor size overflow";
        assert_eq!(without_source(text), "tensor size overflow");
        let bare = "/src/a.cc:87 void f(int)";
        assert_eq!(without_source(bare), "the runtime refused it");
        assert_eq!(without_source("Load model failed: no graph"), "Load model failed: no graph");
    }
}
