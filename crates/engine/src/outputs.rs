//! What a run returned, still in the runtime's memory.

use std::sync::Arc;

use ort::sys;
use smallvec::SmallVec;
use tenantry_types::tensor::{MAX_RANK, element_count};
use tenantry_types::{DataType, Shape};

use crate::handle::{Failure, Owned, api, check};
use crate::model::{RunError, Session};
use crate::signature::datatype_of;
use crate::strings;

/// One output.
pub struct Output {
    /// Position in the signature's outputs.
    pub index: u16,
    /// The element type.
    pub datatype: DataType,
    /// The extents, outermost first.
    pub shape: Shape,
    /// How long the data is, `BYTES` in the protocol's form.
    pub bytes: u64,
    elements: usize,
    value: Owned<sys::OrtValue>,
}

/// All outputs of a run, in the order asked for. They keep their session alive.
pub struct Outputs {
    // Dropped before the session they were made by.
    outputs: SmallVec<[Output; 2]>,
    _session: Arc<Session>,
}

// SAFETY: the values are owned by this alone, are only read, and the C API ties no value to a thread.
unsafe impl Send for Outputs {}

impl Outputs {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { outputs: SmallVec::new(), _session: session }
    }

    /// Takes over the value of output `index`.
    pub(crate) fn push(&mut self, index: u16, value: Owned<sys::OrtValue>) -> Result<(), RunError> {
        let mut element = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let mut extents: *const i64 = std::ptr::null();
        let mut rank = 0;
        // SAFETY: a valid tensor (the signature has only those); what is stored belongs to it.
        check(unsafe {
            (api().GetTensorElementTypeAndShapeDataReference)(
                value.as_ptr(),
                &raw mut element,
                &raw mut extents,
                &raw mut rank,
            )
        })?;
        let unserved = || RunError::Model(format!("output {index} is not of a kind that can be served"));
        let datatype = datatype_of(element).ok_or_else(unserved)?;
        if rank > MAX_RANK {
            return Err(unserved());
        }
        let mut shape = Shape::new();
        if rank > 0 && !extents.is_null() {
            // SAFETY: the array has `rank` entries and lives as long as the value.
            let extents = unsafe { std::slice::from_raw_parts(extents, rank) };
            for extent in extents {
                shape.push(u64::try_from(*extent).map_err(|_| unserved())?);
            }
        }
        let count = element_count(&shape).ok_or_else(unserved)?;
        let elements = usize::try_from(count).map_err(|_| unserved())?;
        let bytes = match datatype.element_bytes() {
            Some(size) => count.checked_mul(size as u64).ok_or_else(unserved)?,
            None => strings::encoded_bytes(value.as_ptr(), elements)?,
        };
        self.outputs.push(Output { index, datatype, shape, bytes, elements, value });
        Ok(())
    }

    /// The outputs, in the order asked for.
    pub fn iter(&self) -> std::slice::Iter<'_, Output> {
        self.outputs.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }
}

impl<'a> IntoIterator for &'a Outputs {
    type Item = &'a Output;
    type IntoIter = std::slice::Iter<'a, Output>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Output {
    /// Copies the data to `room`, which must be exactly [`Output::bytes`] long.
    ///
    /// # Errors
    /// When the lengths differ or the runtime refuses.
    pub fn copy_to(&self, room: &mut [u8]) -> Result<(), RunError> {
        let wrong_length = || RunError::Model("an output changed its length".to_owned());
        if room.len() as u64 != self.bytes {
            return Err(wrong_length());
        }
        if self.datatype == DataType::Bytes {
            return if strings::encode(self.value.as_ptr(), self.elements, room)? {
                Ok(())
            } else {
                Err(wrong_length())
            };
        }
        room.copy_from_slice(self.data()?);
        Ok(())
    }

    /// A copy of the data.
    ///
    /// # Errors
    /// As [`Output::copy_to`].
    pub fn to_vec(&self) -> Result<Vec<u8>, RunError> {
        let mut copy = vec![0; usize::try_from(self.bytes).map_err(|_| RunError::OutOfMemory("an output".to_owned()))?];
        self.copy_to(&mut copy)?;
        Ok(copy)
    }

    fn data(&self) -> Result<&[u8], Failure> {
        if self.bytes == 0 {
            return Ok(&[]);
        }
        let mut data = std::ptr::null_mut();
        // SAFETY: a valid tensor of a type with fixed element size; what is stored belongs to it.
        check(unsafe { (api().GetTensorMutableData)(self.value.as_ptr(), &raw mut data) })?;
        if data.is_null() {
            return Err(Failure::new("an output has no data"));
        }
        let bytes = usize::try_from(self.bytes).map_err(|_| Failure::new("an output is too large"))?;
        // SAFETY: the runtime's buffer of a dense tensor holds the product of its extents times the element size, which
        // is `bytes`; it lives as long as the value, and nobody writes to it.
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) })
    }
}
