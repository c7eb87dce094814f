//! A request's inputs against the version's signature: the checks the engine does not make, and raw bodies given names.

use smallvec::SmallVec;
use tenantry_types::tensor::{InputView, element_count};
use tenantry_types::{
    DataType, Dim, InferRequest, Inputs, Payload, ServiceError, Shape, Signature, Tensor, TensorSpec,
};

/// The positions of the outputs a request wants, in its order; empty means all.
pub(crate) type Wanted = SmallVec<[u16; 4]>;

/// Checks the inputs and gives every one its name.
///
/// # Errors
/// 400 with the input and what was expected.
pub(crate) fn checked(inputs: Inputs, signature: &Signature) -> Result<Vec<Tensor>, ServiceError> {
    let tensors = match inputs {
        Inputs::Named(tensors) => tensors,
        Inputs::Raw(payload) => vec![named(payload, signature)?],
    };
    let views: SmallVec<[InputView<'_>; 8]> = tensors
        .iter()
        .map(|tensor| InputView {
            name: &tensor.name,
            datatype: tensor.datatype,
            shape: &tensor.shape,
            data_bytes: tensor.data.len(),
        })
        .collect();
    signature.check(&views).map_err(|error| ServiceError::invalid(error.to_string()))?;
    drop(views);
    for tensor in &tensors {
        // The name is one of the signature's by now, so it may be shown.
        match tensor.datatype {
            DataType::Bytes => check_framing(tensor)?,
            DataType::Bool => check_bools(tensor)?,
            _ => {}
        }
    }
    Ok(tensors)
}

/// The positions of the wanted outputs.
///
/// # Errors
/// 400 for an output the model does not have, or one named twice.
pub(crate) fn wanted(request: &InferRequest, signature: &Signature) -> Result<Wanted, ServiceError> {
    let mut positions = Wanted::new();
    for output in &request.outputs {
        let position =
            signature.check_output(&output.name).map_err(|error| ServiceError::invalid(error.to_string()))?;
        let position = u16::try_from(position).map_err(|_| ServiceError::internal())?;
        if positions.contains(&position) {
            // Known to the model, so it may be shown.
            return Err(ServiceError::invalid(format!("output `{}` is requested more than once", output.name)));
        }
        positions.push(position);
    }
    Ok(positions)
}

/// The one input of a raw body: type and shape follow from the signature, one row where the first dimension is open.
///
/// As the protocol's binary extension says, at most one extent can follow from the number of bytes; a string is the whole
/// body, without the length that framed strings carry.
fn named(payload: Payload, signature: &Signature) -> Result<Tensor, ServiceError> {
    let [spec] = signature.inputs.as_slice() else {
        return Err(ServiceError::invalid(format!(
            "a raw body fits models with one input; this one has {}, so name them",
            signature.inputs.len()
        )));
    };
    let Some(element_bytes) = spec.datatype.element_bytes() else { return raw_string(payload, spec) };
    let open = spec.dims.iter().filter(|dim| !matches!(dim, Dim::Fixed(_))).count();
    let first_is_open = spec.dims.first().is_some_and(|dim| !matches!(dim, Dim::Fixed(_)));
    let batch_of_one = open == 2 && first_is_open;
    if open > 1 && !batch_of_one {
        return Err(ServiceError::invalid(format!(
            "a raw body gives one extent, and input `{}` leaves {open} open; name the input and its shape",
            spec.name
        )));
    }
    let fixed: Option<u64> = spec
        .dims
        .iter()
        .filter_map(|dim| match dim {
            Dim::Fixed(extent) => Some(*extent),
            Dim::Named(_) | Dim::Any(()) => None,
        })
        .try_fold(element_bytes as u64, u64::checked_mul);
    let body_bytes = payload.len() as u64;
    let whole = fixed.filter(|unit| *unit > 0).filter(|unit| body_bytes.is_multiple_of(*unit));
    let Some(unit) = whole else {
        return Err(ServiceError::invalid(format!(
            "the raw body has {body_bytes} bytes, which is no multiple of the {} bytes that input `{}` ({} {}) takes",
            fixed.unwrap_or(u64::MAX),
            spec.name,
            spec.datatype,
            dims_text(spec)
        )));
    };
    let mut follows = body_bytes / unit;
    if batch_of_one {
        // Both open extents together hold `follows` elements; the first of them is one row.
        follows = follows.max(1);
    }
    let mut extents: Shape = SmallVec::new();
    for (position, dim) in spec.dims.iter().enumerate() {
        extents.push(match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Named(_) | Dim::Any(()) if batch_of_one && position == 0 => 1,
            Dim::Named(_) | Dim::Any(()) => follows,
        });
    }
    Ok(Tensor { name: spec.name.clone(), datatype: spec.datatype, shape: extents, data: payload })
}

fn raw_string(payload: Payload, spec: &TensorSpec) -> Result<Tensor, ServiceError> {
    let one_element = spec.dims.iter().all(|dim| !matches!(dim, Dim::Fixed(extent) if *extent != 1));
    let length = u32::try_from(payload.len()).ok().filter(|_| one_element).ok_or_else(|| {
        ServiceError::invalid(format!(
            "a raw body is one string, and input `{}` ({} {}) takes more; name the input and its shape",
            spec.name,
            spec.datatype,
            dims_text(spec)
        ))
    })?;
    let mut framed = Payload::from(length.to_le_bytes().to_vec());
    for part in payload.parts() {
        framed.push(part.clone());
    }
    let shape = spec.dims.iter().map(|_| 1).collect();
    Ok(Tensor { name: spec.name.clone(), datatype: spec.datatype, shape, data: framed })
}

fn dims_text(spec: &TensorSpec) -> String {
    let dims: Vec<String> = spec.dims.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(","))
}

/// `BYTES` data is as many strings as the shape says, each after its length as a little-endian u32, and nothing after.
fn check_framing(tensor: &Tensor) -> Result<(), ServiceError> {
    let expected = element_count(&tensor.shape).unwrap_or(u64::MAX);
    let mut strings = 0_u64;
    let mut header = [0_u8; 4];
    let mut header_filled = 0_usize;
    // Bytes of the current string still to come. Lengths and strings may straddle the chain's parts.
    let mut string_left = 0_usize;
    for part in tensor.data.parts() {
        let mut rest: &[u8] = part;
        while !rest.is_empty() {
            if string_left > 0 {
                let skipped = string_left.min(rest.len());
                rest = rest.get(skipped..).unwrap_or_default();
                string_left -= skipped;
                continue;
            }
            let (first, after) = rest.split_first().map_or((0, rest), |(first, after)| (*first, after));
            rest = after;
            if let Some(place) = header.get_mut(header_filled) {
                *place = first;
            }
            header_filled += 1;
            if header_filled == header.len() {
                header_filled = 0;
                strings += 1;
                string_left = u32::from_le_bytes(header) as usize;
            }
        }
    }
    let name = &tensor.name;
    if header_filled != 0 || string_left != 0 {
        return Err(ServiceError::invalid(format!(
            "the data of input `{name}` ends inside a string; each needs its length as 4 bytes, little-endian, before it"
        )));
    }
    if strings != expected {
        return Err(ServiceError::invalid(format!(
            "input `{name}` holds {strings} strings; shape {:?} needs {expected}",
            tensor.shape.as_slice()
        )));
    }
    Ok(())
}

/// Booleans are 0 or 1: the engine takes each byte for a C++ `bool`, for which anything else is undefined.
fn check_bools(tensor: &Tensor) -> Result<(), ServiceError> {
    if tensor.data.parts().iter().all(|part| part.iter().all(|byte| *byte <= 1)) {
        return Ok(());
    }
    Err(ServiceError::invalid(format!("the data of input `{}` holds bytes other than 0 and 1", tensor.name)))
}

#[cfg(test)]
mod tests;
