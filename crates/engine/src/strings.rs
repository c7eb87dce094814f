//! `BYTES` tensors: between the protocol's form (each element after its length, a little-endian u32) and the runtime's.

use ort::sys;

use crate::handle::{Failure, Owned, api, check};
use crate::model::RunError;
use crate::runtime::Runtime;

/// Bytes of an element's length.
const LENGTH_BYTES: usize = 4;

/// Makes a string tensor of `count` elements from the protocol's form.
pub(crate) fn to_value(
    runtime: Runtime,
    name: &str,
    dims: &[i64],
    count: u64,
    data: &[u8],
) -> Result<Owned<sys::OrtValue>, RunError> {
    let malformed = || RunError::Input(format!("input `{name}` does not hold {count} length-prefixed elements"));
    // Before anything is allocated: each element takes at least its length.
    if count.checked_mul(LENGTH_BYTES as u64).is_none_or(|least| least > data.len() as u64) {
        return Err(malformed());
    }
    // SAFETY: valid allocator; `dims` outlives the call; the value stored belongs to the caller.
    let value = unsafe {
        Owned::create(api().ReleaseValue, |out| {
            (api().CreateTensorAsOrtValue)(
                runtime.allocator(),
                dims.as_ptr(),
                dims.len(),
                sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
                out,
            )
        })
    }?;
    let mut rest = data;
    for index in 0..usize::try_from(count).map_err(|_| malformed())? {
        let (length, after) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or_else(malformed)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (element, after) = after.split_at_checked(length).ok_or_else(malformed)?;
        rest = after;
        let mut buffer = std::ptr::null_mut();
        // SAFETY: a valid string tensor, an index below its count; what is stored is room for `length` bytes that stays
        // valid until the element is changed again, which is after the copy.
        unsafe {
            check((api().GetResizedStringTensorElementBuffer)(value.as_ptr(), index, length, &raw mut buffer))?;
            if length > 0 && !buffer.is_null() {
                std::ptr::copy_nonoverlapping(element.as_ptr(), buffer.cast(), length);
            }
        }
    }
    if rest.is_empty() { Ok(value) } else { Err(malformed()) }
}

/// How long a string tensor of `count` elements is in the protocol's form, bytes.
pub(crate) fn encoded_bytes(value: *const sys::OrtValue, count: usize) -> Result<u64, Failure> {
    let mut content = 0;
    if count > 0 {
        // SAFETY: a valid string tensor; the length is stored in a local.
        check(unsafe { (api().GetStringTensorDataLength)(value, &raw mut content) })?;
    }
    Ok(content as u64 + (count * LENGTH_BYTES) as u64)
}

/// Writes a string tensor of `count` elements in the protocol's form; `false` if `room` is not exactly as long as that.
pub(crate) fn encode(value: *const sys::OrtValue, count: usize, room: &mut [u8]) -> Result<bool, Failure> {
    if encoded_bytes(value, count)? != room.len() as u64 {
        return Ok(false);
    }
    if count == 0 {
        return Ok(true);
    }
    let mut content = vec![0_u8; room.len() - count * LENGTH_BYTES];
    let mut starts = vec![0_usize; count];
    // SAFETY: a valid string tensor; both buffers have the lengths that are passed, which are the tensor's.
    check(unsafe {
        (api().GetStringTensorContent)(
            value,
            content.as_mut_ptr().cast(),
            content.len(),
            starts.as_mut_ptr(),
            starts.len(),
        )
    })?;
    let ends = starts.iter().skip(1).copied().chain([content.len()]);
    let mut rest = room;
    for (start, end) in starts.iter().zip(ends) {
        let Some(element) = content.get(*start..end) else { return Ok(false) };
        let Ok(length) = u32::try_from(element.len()) else { return Ok(false) };
        let Some((prefix, after)) = rest.split_at_mut_checked(LENGTH_BYTES) else { return Ok(false) };
        let Some((destination, after)) = after.split_at_mut_checked(element.len()) else { return Ok(false) };
        prefix.copy_from_slice(&length.to_le_bytes());
        destination.copy_from_slice(element);
        rest = after;
    }
    Ok(rest.is_empty())
}
