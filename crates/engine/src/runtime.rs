//! The runtime library: opened once, from a path, with clear errors.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::AsPointer;
use ort::logging::LogLevel;
use ort::sys;
use tenantry_types::model::EngineOptions;

use crate::elf::{ElfError, check_whole};
use crate::handle::{Failure, Owned, api, check};
use crate::model::{Model, Session};
use crate::options::{Purpose, session_options, text};
use crate::{Fault, cpu};

/// Why the runtime library cannot be used. One line each, saying what to do; the path is for the operator's eyes.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such file.
    #[error("there is no ONNX Runtime library at {0}; run `make fetch`, or set `engine.library`")]
    NotFound(PathBuf),
    /// Not a whole shared library.
    #[error("{path} is {reason}; fetch the ONNX Runtime library again with `make fetch`")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: ElfError,
    },
    /// The dynamic linker refuses it.
    #[error("{path} cannot be loaded: {reason}")]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// The linker's words.
        reason: String,
    },
    /// A library, but another one.
    #[error("{0} is not the ONNX Runtime library")]
    OtherLibrary(PathBuf),
    /// An older release.
    #[error("{path} is ONNX Runtime {found}, and at least 1.{minimum} is needed; run `make fetch`")]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest minor version that will do.
        minimum: u32,
    },
    /// The environment does not forbid the library to send usage data.
    #[error("ORT_DISABLE_TELEMETRY=1 must be in the environment before ONNX Runtime is loaded; it would phone home")]
    Telemetry,
    /// This process has opened another library already; there is one a process.
    #[error("this process has already loaded the ONNX Runtime library at {0}")]
    AlreadyOpen(PathBuf),
    /// The library loads, and then refuses.
    #[error("ONNX Runtime does not start: {0}")]
    Environment(String),
}

/// Why a model cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The runtime refuses the file; the text is its reason, sanitised.
    #[error("the engine refuses the model: {0}")]
    Refused(String),
    /// The file is good, and cannot be served.
    #[error("the model cannot be served: {0}")]
    Unsupported(String),
    /// Memory ran out.
    #[error("there is not enough memory to load the model: {0}")]
    OutOfMemory(String),
}

impl LoadError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Refused(_) | Self::Unsupported(_) => Fault::Model,
            Self::OutOfMemory(_) => Fault::Resource,
        }
    }
}

impl From<Failure> for LoadError {
    fn from(failure: Failure) -> Self {
        if failure.is_out_of_memory() { Self::OutOfMemory(failure.text) } else { Self::Refused(failure.text) }
    }
}

/// Bytes that several replicas may share; typically a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What form a model's bytes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// ONNX, as uploaded.
    Source,
    /// ORT format, as [`Runtime::optimise`] wrote it. Used in place, so never from a stranger.
    Optimised,
}

/// A model's files.
#[derive(Clone)]
pub struct Source {
    /// The form of `model`.
    pub form: Form,
    /// The model file.
    pub model: SharedBytes,
    /// External data the model file refers to, by the names it uses.
    pub external: Vec<(String, SharedBytes)>,
}

/// The library and its one environment. A copy is a reference.
#[derive(Clone, Copy)]
pub struct Runtime {
    inner: &'static Inner,
}

struct Inner {
    path: PathBuf,
    version: String,
    environment: ort::environment::Environment,
    /// Describes plain CPU memory, for tensors over memory of ours.
    cpu_memory: Owned<sys::OrtMemoryInfo>,
    /// The runtime's malloc. Its own, never released.
    allocator: NonNull<sys::OrtAllocator>,
}

// SAFETY: the three C objects are immutable after `open` and the C API documents their use as thread-safe.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// There is one environment a process, ever: a second cannot be made even after the first is gone.
static OPENED: OnceLock<Inner> = OnceLock::new();
static OPENING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Loads the library at `path` and makes its environment. Opening the same path again gives the same runtime.
    ///
    /// # Errors
    /// [`RuntimeError`] for a file that is missing, truncated, something else or too old. Never a panic.
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = path.canonicalize().map_err(|_| RuntimeError::NotFound(path.to_owned()))?;
        if let Some(inner) = OPENED.get() {
            return if inner.path == path {
                Ok(Self { inner })
            } else {
                Err(RuntimeError::AlreadyOpen(inner.path.clone()))
            };
        }
        // The library reads it when its environment is made; the switch in its API comes too late.
        if std::env::var_os("ORT_DISABLE_TELEMETRY").is_none_or(|value| value != "1") {
            return Err(RuntimeError::Telemetry);
        }
        let file = File::open(&path).map_err(|_| RuntimeError::NotFound(path.clone()))?;
        check_whole(&file).map_err(|reason| RuntimeError::Corrupt { path: path.clone(), reason })?;
        let builder = ort::init_from(&path).map_err(|error| explain(error, &path))?;
        let environment = builder
            .with_telemetry(false)
            .build()
            .map_err(|error| RuntimeError::Environment(error.message().to_owned()))?;
        // Its log repeats, with tenants' bytes in it, what its errors say.
        environment.set_log_level(LogLevel::Fatal);
        let inner = Inner::new(path, environment).map_err(|failure| RuntimeError::Environment(failure.text))?;
        Ok(Self { inner: OPENED.get_or_init(|| inner) })
    }

    /// The library's version, e.g. `1.31.1`.
    pub fn version(&self) -> &str {
        &self.inner.version
    }

    /// What this processor can do, as a key: an optimised form made under one key is not used under another.
    pub fn cpu(&self) -> String {
        cpu::key()
    }

    /// Loads a model. Bytes in the optimised form are used where they are and kept for the model's life.
    ///
    /// # Errors
    /// See [`LoadError`]. A hostile file can also make this never return.
    pub fn load(&self, source: &Source, options: &EngineOptions) -> Result<Model, LoadError> {
        let session = self.session(source, options, Purpose::Run(source.form))?;
        Model::new(*self, session)
    }

    /// Writes the optimised form of an ONNX model into `file`, an empty file opened for writing; returns its size.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn optimise(&self, source: &Source, options: &EngineOptions, file: BorrowedFd<'_>) -> Result<u64, LoadError> {
        let io = |error: std::io::Error| LoadError::OutOfMemory(format!("the optimised form: {}", error.kind()));
        let written = File::from(file.try_clone_to_owned().map_err(io)?);
        written.set_len(0).map_err(io)?;
        // The runtime only writes to paths; this one names the descriptor.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        drop(self.session(source, options, Purpose::Optimise(&path))?);
        Ok(written.metadata().map_err(io)?.len())
    }

    fn session(&self, source: &Source, options: &EngineOptions, purpose: Purpose<'_>) -> Result<Session, LoadError> {
        let built = session_options(options, purpose)?;
        add_external_data(&built, &source.external)?;
        let bytes = (*source.model).as_ref();
        // SAFETY: environment and options are valid; the model's bytes outlive the call and, where the session goes on
        // using them (the optimised form and external data), `Session` keeps them.
        let session = unsafe {
            Owned::create(api().ReleaseSession, |out| {
                (api().CreateSessionFromArray)(
                    self.inner.environment.ptr(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    built.as_ptr(),
                    out,
                )
            })
        }?;
        let mut kept: Vec<SharedBytes> = source.external.iter().map(|(_, bytes)| Arc::clone(bytes)).collect();
        if source.form == Form::Optimised {
            kept.push(Arc::clone(&source.model));
        }
        Ok(Session::new(session, kept))
    }

    pub(crate) fn cpu_memory(&self) -> *const sys::OrtMemoryInfo {
        self.inner.cpu_memory.as_ptr()
    }

    pub(crate) fn allocator(&self) -> *mut sys::OrtAllocator {
        self.inner.allocator.as_ptr()
    }
}

impl Inner {
    fn new(path: PathBuf, environment: ort::environment::Environment) -> Result<Self, Failure> {
        // SAFETY: on success the function stores a fresh description that belongs to the caller.
        let cpu_memory = unsafe {
            Owned::create(api().ReleaseMemoryInfo, |out| {
                (api().CreateCpuMemoryInfo)(
                    sys::OrtAllocatorType::OrtDeviceAllocator,
                    sys::OrtMemType::OrtMemTypeDefault,
                    out,
                )
            })
        }?;
        let mut allocator = std::ptr::null_mut();
        // SAFETY: stores a pointer to the library's own allocator, which lives as long as the library and is not ours.
        check(unsafe { (api().GetAllocatorWithDefaultOptions)(&raw mut allocator) })?;
        let allocator = NonNull::new(allocator).ok_or_else(|| Failure::new("the runtime has no allocator"))?;
        let version = version_of(&path)?;
        Ok(Self { path, version, environment, cpu_memory, allocator })
    }
}

/// The version text of the library that was loaded from `path`.
fn version_of(path: &Path) -> Result<String, Failure> {
    type GetBase = unsafe extern "C" fn() -> *const sys::OrtApiBase;
    let no_version = || Failure::new("the library does not tell its version");
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| no_version())?;
    // SAFETY: the library is loaded already (NOLOAD only finds it), so no foreign code runs in `dlopen`; the symbol has
    // the C header's signature, checked by `ort` when it loaded the library, and returns static data.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD);
        let symbol = NonNull::new(library)
            .and_then(|library| NonNull::new(libc::dlsym(library.as_ptr(), c"OrtGetApiBase".as_ptr())))
            .ok_or_else(no_version)?;
        let get_base = std::mem::transmute::<*mut libc::c_void, GetBase>(symbol.as_ptr());
        let base = get_base().as_ref().ok_or_else(no_version)?;
        Ok(CStr::from_ptr((base.GetVersionString)()).to_string_lossy().into_owned())
    }
}

fn explain(error: ort::LoadDynamicError, path: &Path) -> RuntimeError {
    match error {
        ort::LoadDynamicError::BadVersion { version_str, path } => {
            RuntimeError::TooOld { path, found: version_str, minimum: ort::MINOR_VERSION }
        }
        ort::LoadDynamicError::Dlopen { error, path } => {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            RuntimeError::Unloadable { path, reason }
        }
        _ => RuntimeError::OtherLibrary(path.to_owned()),
    }
}

fn add_external_data(
    options: &Owned<sys::OrtSessionOptions>,
    external: &[(String, SharedBytes)],
) -> Result<(), LoadError> {
    if external.is_empty() {
        return Ok(());
    }
    let mut names = Vec::with_capacity(external.len());
    for (name, _) in external {
        names.push(text(check_file_name(name)?)?);
    }
    let names: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let buffers: Vec<_> = external.iter().map(|(_, bytes)| (**bytes).as_ref()).collect();
    let lengths: Vec<usize> = buffers.iter().map(|bytes| bytes.len()).collect();
    // The C API takes them without `const` and only reads them.
    let buffers: Vec<_> = buffers.iter().map(|bytes| bytes.as_ptr().cast::<std::ffi::c_char>().cast_mut()).collect();
    // SAFETY: the three arrays have `external.len()` entries and outlive the call, which copies names, addresses and
    // lengths. The buffers are kept by the session's `kept`; they are only read.
    let status = unsafe {
        (api().AddExternalInitializersFromMemory)(
            options.as_ptr(),
            names.as_ptr(),
            buffers.as_ptr(),
            lengths.as_ptr(),
            external.len(),
        )
    };
    Ok(check(status)?)
}

/// A name of external data is relative and stays inside the model's own folder.
fn check_file_name(name: &str) -> Result<&str, LoadError> {
    let good = !name.is_empty()
        && !name.contains(['\0', '\\'])
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if good {
        Ok(name)
    } else {
        let name = tenantry_types::error::sanitise(name, 100);
        Err(LoadError::Unsupported(format!("`{name}` is not a name for external data; use a plain relative one")))
    }
}

#[cfg(test)]
mod tests;
