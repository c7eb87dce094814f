//! A loaded model and its runs.

use std::ffi::{CString, c_char};
use std::sync::Arc;

use ort::sys;
use smallvec::SmallVec;
use tenantry_types::error::sanitise;
use tenantry_types::model::FileMetadata;
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Signature, TensorSpec};

use crate::handle::{Failure, Owned, api, check};
use crate::outputs::Outputs;
use crate::runtime::{LoadError, Runtime, SharedBytes};
use crate::signature::{element_of, read, read_custom_value, read_metadata};
use crate::termination::Termination;
use crate::{Fault, options, strings};

/// Why a run gave no answer. The model goes on working.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The inputs are not what the model takes, or it refuses their values.
    #[error("the model refuses these inputs: {0}")]
    Input(String),
    /// The model cannot be run at all.
    #[error("the model failed: {0}")]
    Model(String),
    /// Memory ran out.
    #[error("there is not enough memory for this run: {0}")]
    OutOfMemory(String),
}

impl RunError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Input(_) => Fault::Input,
            Self::Model(_) => Fault::Model,
            Self::OutOfMemory(_) => Fault::Resource,
        }
    }
}

impl From<Failure> for RunError {
    fn from(failure: Failure) -> Self {
        match failure.run_fault() {
            Fault::Input => Self::Input(failure.text),
            Fault::Model => Self::Model(failure.text),
            Fault::Resource => Self::OutOfMemory(failure.text),
        }
    }
}

/// An input over memory of the caller's, which the runtime reads in place.
#[derive(Debug, Clone, Copy)]
pub struct InputTensor<'a> {
    /// Position in the signature's inputs.
    pub index: u16,
    /// The element type.
    pub datatype: DataType,
    /// The extents, outermost first.
    pub shape: &'a [u64],
    /// Row-major, little-endian, aligned for the element type; `BYTES` in the protocol's form.
    pub data: &'a [u8],
}

/// A session and the bytes it uses in place.
pub(crate) struct Session {
    // Dropped before the bytes it points into.
    session: Owned<sys::OrtSession>,
    _kept: Vec<SharedBytes>,
}

// SAFETY: the C API documents sessions as usable from any thread, and `Run` on the CPU from several at once.
unsafe impl Send for Session {}
// SAFETY: as above.
unsafe impl Sync for Session {}

impl Session {
    pub(crate) fn new(session: Owned<sys::OrtSession>, kept: Vec<SharedBytes>) -> Self {
        Self { session, _kept: kept }
    }
}

/// A loaded model.
pub struct Model {
    runtime: Runtime,
    session: Arc<Session>,
    signature: Signature,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
}

type Few<T> = SmallVec<[T; 8]>;

impl Model {
    pub(crate) fn new(runtime: Runtime, session: Session) -> Result<Self, LoadError> {
        let signature = read(runtime, session.session.as_ptr())?;
        let names = |specs: &[TensorSpec]| specs.iter().map(|spec| options::text(&spec.name)).collect::<Result<_, _>>();
        let (input_names, output_names) = (names(&signature.inputs)?, names(&signature.outputs)?);
        Ok(Self { runtime, session: Arc::new(session), signature, input_names, output_names })
    }

    /// Inputs and outputs as the file declares them.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Free text of the file.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub fn metadata(&self) -> Result<FileMetadata, LoadError> {
        Ok(read_metadata(self.runtime, self.session.session.as_ptr())?)
    }

    /// The value of a key of the file's own metadata, whole; `None` if it has no such key.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub fn custom_metadata(&self, key: &str) -> Result<Option<String>, LoadError> {
        Ok(read_custom_value(self.runtime, self.session.session.as_ptr(), key)?)
    }

    /// Computes the outputs at the positions `wanted` (none named: all) from `inputs`, each of the signature's once.
    ///
    /// # Errors
    /// See [`RunError`]. A hostile model can also make this never return, or end the process.
    pub fn run(&mut self, inputs: &[InputTensor<'_>], wanted: &[u16]) -> Result<Outputs, RunError> {
        self.run_with(inputs, wanted, None)
    }

    /// As [`Model::run`], and ended early by [`Termination::terminate`] from another thread.
    ///
    /// # Errors
    /// As [`Model::run`]; a terminated run fails at the end of the kernel that runs, with an error of any kind.
    pub fn run_until(
        &mut self,
        inputs: &[InputTensor<'_>],
        wanted: &[u16],
        termination: &Termination,
    ) -> Result<Outputs, RunError> {
        self.run_with(inputs, wanted, Some(termination))
    }

    fn run_with(
        &mut self,
        inputs: &[InputTensor<'_>],
        wanted: &[u16],
        termination: Option<&Termination>,
    ) -> Result<Outputs, RunError> {
        let mut values: Few<Owned<sys::OrtValue>> = SmallVec::new();
        let mut value_ptrs: Few<*const sys::OrtValue> = SmallVec::new();
        let mut input_names: Few<*const c_char> = SmallVec::new();
        if inputs.len() != self.signature.inputs.len() {
            let expected = self.signature.inputs.len();
            return Err(RunError::Input(format!("{} inputs came, {expected} are needed", inputs.len())));
        }
        for (position, input) in inputs.iter().enumerate() {
            let index = usize::from(input.index);
            let (Some(spec), Some(name)) = (self.signature.inputs.get(index), self.input_names.get(index)) else {
                return Err(RunError::Input(format!("there is no input {index}")));
            };
            if inputs.iter().take(position).any(|earlier| earlier.index == input.index) {
                return Err(RunError::Input(format!("input {index} came twice")));
            }
            let value = self.input_value(spec, input)?;
            value_ptrs.push(value.as_ptr());
            values.push(value);
            input_names.push(name.as_ptr());
        }
        let all: Few<u16>;
        let wanted = if wanted.is_empty() {
            all = (0..u16::try_from(self.output_names.len()).unwrap_or(u16::MAX)).collect();
            all.as_slice()
        } else {
            wanted
        };
        let mut output_names: Few<*const c_char> = SmallVec::new();
        for index in wanted {
            let name = self.output_names.get(usize::from(*index));
            output_names.push(name.ok_or_else(|| RunError::Input(format!("there is no output {index}")))?.as_ptr());
        }
        let mut results: Few<*mut sys::OrtValue> = SmallVec::from_elem(std::ptr::null_mut(), wanted.len());
        let options = termination.map_or(std::ptr::null(), |termination| termination.as_ptr().cast_const());
        // SAFETY: session, options (or none), names and input values are valid and outlive the call; names and values are
        // arrays of the lengths passed. Null results tell the runtime to allocate; on success each is a value that belongs to us.
        let status = unsafe {
            (api().Run)(
                self.session.session.as_ptr(),
                options,
                input_names.as_ptr(),
                value_ptrs.as_ptr(),
                value_ptrs.len(),
                output_names.as_ptr(),
                output_names.len(),
                results.as_mut_ptr(),
            )
        };
        let failed = check(status);
        // Taken over whatever happened, so that none is leaked.
        let results: Few<Result<Owned<sys::OrtValue>, Failure>> = results
            .into_iter()
            // SAFETY: null, or a value the runtime made for us just now.
            .map(|value| unsafe { Owned::take(value, api().ReleaseValue) })
            .collect();
        failed?;
        let mut outputs = Outputs::new(Arc::clone(&self.session));
        for (index, value) in wanted.iter().zip(results) {
            outputs.push(*index, value?)?;
        }
        Ok(outputs)
    }

    fn input_value(&self, spec: &TensorSpec, input: &InputTensor<'_>) -> Result<Owned<sys::OrtValue>, RunError> {
        let name = || sanitise(&spec.name, 100);
        let misfit = |what: &str| RunError::Input(format!("input `{}` {what}", name()));
        if input.datatype != spec.datatype {
            return Err(misfit(&format!("is {} and should be {}", input.datatype, spec.datatype)));
        }
        if input.shape.len() != spec.dims.len() {
            return Err(misfit(&format!("has {} dimensions and should have {}", input.shape.len(), spec.dims.len())));
        }
        let mut dims: SmallVec<[i64; 8]> = SmallVec::new();
        for extent in input.shape {
            dims.push(i64::try_from(*extent).map_err(|_| misfit("is too large"))?);
        }
        let count = element_count(input.shape).ok_or_else(|| misfit("is too large"))?;
        let Some(size) = input.datatype.element_bytes() else {
            return strings::to_value(self.runtime, &name(), &dims, count, input.data);
        };
        if count.checked_mul(size as u64) != Some(input.data.len() as u64) {
            return Err(misfit("has not as much data as its shape says"));
        }
        if !input.data.is_empty() && input.data.as_ptr().align_offset(size) != 0 {
            return Err(misfit("is not aligned"));
        }
        // To the runtime's kernels a bool that is neither 0 nor 1 is undefined behaviour.
        if input.datatype == DataType::Bool && input.data.iter().any(|byte| *byte > 1) {
            return Err(misfit("has a BOOL that is neither 0 nor 1"));
        }
        // SAFETY: the data is a slice of `data.len()` bytes that outlives the run (`inputs` borrows it), checked above to
        // fit shape and type and to be aligned; the runtime does not write to inputs. `dims` outlives the call.
        let value = unsafe {
            Owned::create(api().ReleaseValue, |out| {
                (api().CreateTensorWithDataAsOrtValue)(
                    self.runtime.cpu_memory(),
                    input.data.as_ptr().cast_mut().cast(),
                    input.data.len(),
                    dims.as_ptr(),
                    dims.len(),
                    element_of(input.datatype),
                    out,
                )
            })
        }?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
