//! Tensors inside a pipeline: borrowed from the request or the engine, or made by a step.

use bytemuck::{cast_slice, cast_slice_mut, try_cast_slice};
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Shape};

/// A tensor, row-major and little-endian; `BYTES` in the protocol's form (each element after its length as a u32).
#[derive(Debug, Clone, PartialEq)]
pub struct Array<'a> {
    /// The element type.
    pub datatype: DataType,
    /// The extents, outermost first.
    pub shape: Shape,
    data: Data<'a>,
}

/// Each kind is as aligned as its elements need it, so that an engine reads it in place.
#[derive(Debug, Clone, PartialEq)]
enum Data<'a> {
    Borrowed(&'a [u8]),
    F32(Vec<f32>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    Bytes(Vec<u8>),
    /// Any element type, in words of eight bytes of which the last may be used in part.
    Words(Vec<u64>, usize),
}

impl<'a> Array<'a> {
    /// A tensor over memory of somebody else's, aligned for its element type.
    pub fn borrowed(datatype: DataType, shape: Shape, data: &'a [u8]) -> Self {
        Self { datatype, shape, data: Data::Borrowed(data) }
    }

    /// `FP32` values.
    pub fn floats(shape: impl IntoIterator<Item = u64>, values: Vec<f32>) -> Self {
        Self { datatype: DataType::Fp32, shape: shape.into_iter().collect(), data: Data::F32(values) }
    }

    /// `INT32` values.
    pub fn ints(shape: impl IntoIterator<Item = u64>, values: Vec<i32>) -> Self {
        Self { datatype: DataType::Int32, shape: shape.into_iter().collect(), data: Data::I32(values) }
    }

    /// `INT64` values.
    pub fn longs(shape: impl IntoIterator<Item = u64>, values: Vec<i64>) -> Self {
        Self { datatype: DataType::Int64, shape: shape.into_iter().collect(), data: Data::I64(values) }
    }

    /// `BYTES` elements, one a row.
    pub fn texts<T: AsRef<[u8]>>(elements: &[T]) -> Self {
        let mut data = Vec::with_capacity(elements.iter().map(|element| element.as_ref().len() + 4).sum());
        for element in elements {
            let element = element.as_ref();
            data.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
            data.extend_from_slice(element);
        }
        Self {
            datatype: DataType::Bytes,
            shape: [elements.len() as u64].into_iter().collect(),
            data: Data::Bytes(data),
        }
    }

    /// Any element type: `fill` writes all of the `bytes` bytes.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn filled<E>(
        datatype: DataType,
        shape: Shape,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut words = vec![0_u64; bytes.div_ceil(size_of::<u64>())];
        fill(cast_slice_mut::<u64, u8>(&mut words).get_mut(..bytes).unwrap_or_default())?;
        Ok(Self { datatype, shape, data: Data::Words(words, bytes) })
    }

    /// The data as it lies in memory.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Borrowed(data) => data,
            Data::F32(values) => cast_slice(values),
            Data::I32(values) => cast_slice(values),
            Data::I64(values) => cast_slice(values),
            Data::Bytes(data) => data,
            Data::Words(words, bytes) => cast_slice::<u64, u8>(words).get(..*bytes).unwrap_or_default(),
        }
    }

    /// The same tensor, borrowed.
    pub fn view(&self) -> Array<'_> {
        Array::borrowed(self.datatype, self.shape.clone(), self.bytes())
    }

    /// The same tensor with memory of its own; copied only where it is not its own yet.
    pub fn into_owned(self) -> Array<'static> {
        let Self { datatype, shape, data } = self;
        let data = match data {
            Data::Borrowed(data) => {
                let mut words = vec![0_u64; data.len().div_ceil(size_of::<u64>())];
                for (to, from) in cast_slice_mut::<u64, u8>(&mut words).iter_mut().zip(data) {
                    *to = *from;
                }
                Data::Words(words, data.len())
            }
            Data::F32(values) => Data::F32(values),
            Data::I32(values) => Data::I32(values),
            Data::I64(values) => Data::I64(values),
            Data::Bytes(data) => Data::Bytes(data),
            Data::Words(words, bytes) => Data::Words(words, bytes),
        };
        Array { datatype, shape, data }
    }

    /// The first extent; 1 for a scalar.
    pub fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Step `index` of the second dimension, of one row's tensor; `None` beyond its end or for several rows.
    pub fn step(&self, index: u64) -> Option<Array<'_>> {
        let (rows, rest) = self.shape.split_first()?;
        let (steps, rest) = rest.split_first()?;
        if *rows != 1 || index >= *steps {
            return None;
        }
        let elements = usize::try_from(element_count(rest)?).ok()?;
        let bytes = elements.checked_mul(self.datatype.element_bytes()?)?;
        let start = bytes.checked_mul(usize::try_from(index).ok()?)?;
        let data = self.bytes().get(start..start.checked_add(bytes)?)?;
        let shape = std::iter::once(1).chain(rest.iter().copied()).collect();
        Some(Array::borrowed(self.datatype, shape, data))
    }

    /// The values of an `FP32` tensor.
    pub fn as_floats(&self) -> Option<&[f32]> {
        (self.datatype == DataType::Fp32).then(|| try_cast_slice(self.bytes()).ok()).flatten()
    }

    /// The values of an `INT64` tensor.
    pub fn as_longs(&self) -> Option<&[i64]> {
        (self.datatype == DataType::Int64).then(|| try_cast_slice(self.bytes()).ok()).flatten()
    }

    /// The elements of a `BYTES` tensor; `None` for another type or where the lengths do not fit the data.
    pub fn as_texts(&self) -> Option<Vec<&[u8]>> {
        if self.datatype != DataType::Bytes {
            return None;
        }
        let mut rest = self.bytes();
        let mut elements = Vec::new();
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (element, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
            elements.push(element);
            rest = tail;
        }
        (element_count(&self.shape) == Some(elements.len() as u64)).then_some(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_framed_as_the_protocol_wants_it() {
        let array = Array::texts(&["ab", ""]);
        assert_eq!(array.bytes(), b"\x02\0\0\0ab\0\0\0\0");
        assert_eq!(array.as_texts().unwrap(), [&b"ab"[..], b""]);
        let broken = Array::borrowed(DataType::Bytes, [1].into_iter().collect(), b"\x03\0\0\0ab");
        assert_eq!(broken.as_texts(), None);
        let miscounted = Array::borrowed(DataType::Bytes, [2].into_iter().collect(), b"\0\0\0\0");
        assert_eq!(miscounted.as_texts(), None);
    }

    #[test]
    fn a_step_is_a_part_of_one_row() {
        let array = Array::floats([1, 3, 2], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let step = array.step(1).unwrap();
        assert_eq!((step.shape.as_slice(), step.as_floats().unwrap()), (&[1, 2][..], &[2.0, 3.0][..]));
        assert_eq!(array.step(3), None);
        assert_eq!(Array::floats([2, 3, 1], vec![0.0; 6]).step(0), None);
    }

    #[test]
    fn filled_arrays_are_as_long_as_asked() {
        let fill = |room: &mut [u8]| -> Result<(), ()> {
            room.copy_from_slice(&[1, 2, 3]);
            Ok(())
        };
        let array = Array::filled(DataType::Uint8, [3].into_iter().collect(), 3, fill).unwrap();
        assert_eq!(array.bytes(), [1, 2, 3]);
    }
}
