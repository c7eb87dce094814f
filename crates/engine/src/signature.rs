//! Reads signature and metadata from a loaded session.

use std::ffi::{CStr, c_char};

use ort::sys;
use ort::sys::ONNXTensorElementDataType as Element;
use tenantry_types::error::sanitise;
use tenantry_types::limits::{MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use tenantry_types::model::FileMetadata;
use tenantry_types::tensor::MAX_RANK;
use tenantry_types::{DataType, Dim, Signature, TensorSpec};

use crate::handle::{Failure, Owned, api, check};
use crate::runtime::{LoadError, Runtime};

/// The longest free text kept from a file, characters.
const MAX_METADATA_CHARS: usize = 1_000;
/// The most custom metadata pairs kept, and the longest key and value, characters.
const MAX_METADATA_PAIRS: usize = 32;
const MAX_KEY_CHARS: usize = 100;
const MAX_VALUE_CHARS: usize = 250;

type CountFn = unsafe extern "system" fn(*const sys::OrtSession, *mut usize) -> sys::OrtStatusPtr;
type NameFn = unsafe extern "system" fn(
    *const sys::OrtSession,
    usize,
    *mut sys::OrtAllocator,
    *mut *mut c_char,
) -> sys::OrtStatusPtr;
type TypeFn = unsafe extern "system" fn(*const sys::OrtSession, usize, *mut *mut sys::OrtTypeInfo) -> sys::OrtStatusPtr;

/// The inputs and outputs of a session.
pub(crate) fn read(runtime: Runtime, session: *const sys::OrtSession) -> Result<Signature, LoadError> {
    let api = api();
    Ok(Signature {
        inputs: read_side(
            runtime,
            session,
            "input",
            api.SessionGetInputCount,
            api.SessionGetInputName,
            api.SessionGetInputTypeInfo,
        )?,
        outputs: read_side(
            runtime,
            session,
            "output",
            api.SessionGetOutputCount,
            api.SessionGetOutputName,
            api.SessionGetOutputTypeInfo,
        )?,
    })
}

fn read_side(
    runtime: Runtime,
    session: *const sys::OrtSession,
    side: &str,
    count_of: CountFn,
    name_of: NameFn,
    type_of: TypeFn,
) -> Result<Vec<TensorSpec>, LoadError> {
    let mut count = 0;
    // SAFETY: the session is valid for as long as its owner, who calls this; the count is stored in a local.
    check(unsafe { count_of(session, &raw mut count) })?;
    if count > MAX_TENSORS {
        return Err(LoadError::Unsupported(format!("it has {count} {side}s; at most {MAX_TENSORS} are served")));
    }
    let mut specs = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: valid session, index below its count; the name belongs to the caller.
        let name = unsafe { allocated_text(runtime, |allocator, out| name_of(session, index, allocator, out)) }?;
        if name.len() > MAX_TENSOR_NAME_BYTES {
            return Err(LoadError::Unsupported(format!(
                "an {side}'s name is longer than {MAX_TENSOR_NAME_BYTES} bytes"
            )));
        }
        // SAFETY: valid session, index below its count; the type belongs to the caller.
        let info = unsafe { Owned::create(api().ReleaseTypeInfo, |out| type_of(session, index, out)) }?;
        let (datatype, dims) = read_type(&info, side, &name)?;
        specs.push(TensorSpec { name, datatype, dims });
    }
    Ok(specs)
}

fn read_type(info: &Owned<sys::OrtTypeInfo>, side: &str, name: &str) -> Result<(DataType, Vec<Dim>), LoadError> {
    let shown = sanitise(name, 100);
    let mut tensor: *const sys::OrtTensorTypeAndShapeInfo = std::ptr::null();
    // SAFETY: the type is valid; what is stored belongs to it and is null for anything but a tensor.
    check(unsafe { (api().CastTypeInfoToTensorInfo)(info.as_ptr(), &raw mut tensor) })?;
    if tensor.is_null() {
        return Err(LoadError::Unsupported(format!("{side} `{shown}` is not a tensor")));
    }
    let mut element = Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    let mut rank = 0;
    // SAFETY: `tensor` is valid for as long as `info`; results are stored in locals.
    let has_shape = unsafe {
        check((api().GetTensorElementType)(tensor, &raw mut element))?;
        check((api().GetDimensionsCount)(tensor, &raw mut rank))?;
        (api().TensorTypeAndShape_HasShape)(tensor)
    };
    let datatype = datatype_of(element)
        .ok_or_else(|| LoadError::Unsupported(format!("{side} `{shown}` has an element type that is not served")))?;
    // An output may leave its shape open altogether: it is then shown as a scalar, and the answer says what it is.
    if !has_shape && side == "input" {
        return Err(LoadError::Unsupported(format!("input `{shown}` declares no shape")));
    }
    if rank > MAX_RANK {
        return Err(LoadError::Unsupported(format!(
            "{side} `{shown}` has {rank} dimensions; at most {MAX_RANK} are served"
        )));
    }
    let mut extents = [0_i64; MAX_RANK];
    let mut names = [std::ptr::null::<c_char>(); MAX_RANK];
    // SAFETY: both arrays have room for `rank` entries; the names stored belong to `tensor`.
    unsafe {
        check((api().GetDimensions)(tensor, extents.as_mut_ptr(), rank))?;
        check((api().GetSymbolicDimensions)(tensor, names.as_mut_ptr(), rank))?;
    }
    let dims = extents.iter().zip(names).take(rank).map(|(extent, name)| {
        if let Ok(fixed) = u64::try_from(*extent) {
            return Dim::Fixed(fixed);
        }
        // SAFETY: null, or a C string that belongs to `tensor`, which is alive.
        let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_string_lossy());
        match name {
            Some(name) if !name.is_empty() => Dim::Named(sanitise(&name, MAX_TENSOR_NAME_BYTES)),
            _ => Dim::Any(()),
        }
    });
    Ok((datatype, dims.collect()))
}

/// Free text of the file, cut to what one frame can carry.
pub(crate) fn read_metadata(runtime: Runtime, session: *const sys::OrtSession) -> Result<FileMetadata, Failure> {
    // SAFETY: the session is valid; the metadata belongs to the caller.
    let metadata =
        unsafe { Owned::create(api().ReleaseModelMetadata, |out| (api().SessionGetModelMetadata)(session, out)) }?;
    let ptr = metadata.as_ptr();
    let clean = |text: String| sanitise(&text, MAX_METADATA_CHARS);
    // SAFETY: `ptr` is valid for as long as `metadata`; each text stored belongs to the caller.
    let (producer, graph_name, description, custom) = unsafe {
        (
            allocated_text(runtime, |allocator, out| (api().ModelMetadataGetProducerName)(ptr, allocator, out))?,
            allocated_text(runtime, |allocator, out| (api().ModelMetadataGetGraphName)(ptr, allocator, out))?,
            allocated_text(runtime, |allocator, out| (api().ModelMetadataGetDescription)(ptr, allocator, out))?,
            read_custom(runtime, &metadata)?,
        )
    };
    Ok(FileMetadata {
        producer: clean(producer),
        description: clean(description),
        graph_name: clean(graph_name),
        custom: custom
            .into_iter()
            .map(|(key, value)| (sanitise(&key, MAX_KEY_CHARS), sanitise(&value, MAX_VALUE_CHARS)))
            .collect(),
    })
}

/// One value of the file's custom metadata, uncut.
pub(crate) fn read_custom_value(
    runtime: Runtime,
    session: *const sys::OrtSession,
    key: &str,
) -> Result<Option<String>, Failure> {
    let Ok(c_key) = std::ffi::CString::new(key) else { return Ok(None) };
    // SAFETY: the session is valid; the metadata belongs to the caller.
    let metadata =
        unsafe { Owned::create(api().ReleaseModelMetadata, |out| (api().SessionGetModelMetadata)(session, out)) }?;
    let mut text = std::ptr::null_mut();
    // SAFETY: valid metadata and allocator, a C string that outlives the call; the value belongs to the caller.
    check(unsafe {
        (api().ModelMetadataLookupCustomMetadataMap)(
            metadata.as_ptr(),
            runtime.allocator(),
            c_key.as_ptr(),
            &raw mut text,
        )
    })?;
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: a C string made by the runtime's allocator that belongs to us.
    unsafe { taken_text(runtime, text) }.map(Some)
}

fn read_custom(runtime: Runtime, metadata: &Owned<sys::OrtModelMetadata>) -> Result<Vec<(String, String)>, Failure> {
    let mut keys: *mut *mut c_char = std::ptr::null_mut();
    let mut count = 0_i64;
    // SAFETY: valid metadata and allocator; on success the array and its texts belong to the caller.
    check(unsafe {
        (api().ModelMetadataGetCustomMetadataMapKeys)(
            metadata.as_ptr(),
            runtime.allocator(),
            &raw mut keys,
            &raw mut count,
        )
    })?;
    let mut pairs = Vec::new();
    if keys.is_null() {
        return Ok(pairs);
    }
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the array has `count` entries, each a C string of ours, freed once.
        let key = unsafe { taken_text(runtime, keys.add(index).read()) }?;
        if pairs.len() == MAX_METADATA_PAIRS {
            continue;
        }
        let Ok(c_key) = std::ffi::CString::new(key.as_bytes()) else { continue };
        // SAFETY: valid metadata, a C string that outlives the call; the value belongs to the caller.
        let value = unsafe {
            allocated_text(runtime, |allocator, out| {
                (api().ModelMetadataLookupCustomMetadataMap)(metadata.as_ptr(), allocator, c_key.as_ptr(), out)
            })
        }?;
        pairs.push((key, value));
    }
    // SAFETY: the array itself is ours and no longer used.
    check(unsafe { (api().AllocatorFree)(runtime.allocator(), keys.cast()) })?;
    // The runtime keeps them in a hash map; a registration should say the same each time.
    pairs.sort();
    Ok(pairs)
}

/// A text the C API allocates with our allocator.
///
/// # Safety
/// On success `get` stores a C string that belongs to the caller, or null.
unsafe fn allocated_text(
    runtime: Runtime,
    get: impl FnOnce(*mut sys::OrtAllocator, *mut *mut c_char) -> sys::OrtStatusPtr,
) -> Result<String, Failure> {
    let mut text = std::ptr::null_mut();
    check(get(runtime.allocator(), &raw mut text))?;
    // SAFETY: by contract of this function.
    unsafe { taken_text(runtime, text) }
}

/// Copies a C string and frees it.
///
/// # Safety
/// `text` is null or a C string made by the runtime's allocator that belongs to the caller.
unsafe fn taken_text(runtime: Runtime, text: *mut c_char) -> Result<String, Failure> {
    if text.is_null() {
        return Ok(String::new());
    }
    // SAFETY: by contract of this function; it is freed after the copy and not used again.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        check((api().AllocatorFree)(runtime.allocator(), text.cast()))?;
        Ok(copy)
    }
}

/// The runtime's name of an element type.
pub(crate) fn element_of(datatype: DataType) -> Element {
    match datatype {
        DataType::Bool => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// The inverse; `None` for types the protocol has no name for.
pub(crate) fn datatype_of(element: Element) -> Option<DataType> {
    DataType::ALL.into_iter().find(|datatype| element_of(*datatype) == element)
}
