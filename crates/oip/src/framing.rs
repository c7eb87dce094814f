//! The form of `BYTES` data: each element after its length as four bytes, little-endian. Checked without joining buffers.

use bytes::Bytes;
use tenantry_types::Payload;

use crate::error::TensorProblem;

/// Takes the next four bytes, which may lie in several buffers.
fn take_length<'a>(part: &mut &'a [u8], parts: &mut std::slice::Iter<'a, Bytes>) -> Option<usize> {
    let mut length = [0_u8; 4];
    for byte in &mut length {
        while part.is_empty() {
            *part = parts.next()?;
        }
        let (first, rest) = part.split_first()?;
        *byte = *first;
        *part = rest;
    }
    Some(u32::from_le_bytes(length) as usize)
}

/// Checks that `data` is exactly `expected` elements.
pub(crate) fn check_framing(data: &Payload, expected: u64) -> Result<(), TensorProblem> {
    let mut parts = data.parts().iter();
    let mut part: &[u8] = &[];
    let mut left = data.len();
    for index in 0..expected {
        let truncated = TensorProblem::BytesTruncated { index, expected };
        // At least four bytes an element, so a lying shape ends this loop with the data.
        let Some(length) = take_length(&mut part, &mut parts) else { return Err(truncated) };
        left -= 4;
        if length > left {
            return Err(truncated);
        }
        left -= length;
        let mut skip = length;
        while skip > 0 {
            if part.is_empty() {
                part = parts.next().map_or(&[], |next| next);
            }
            let step = skip.min(part.len());
            part = part.get(step..).unwrap_or_default();
            skip -= step;
        }
    }
    if left == 0 { Ok(()) } else { Err(TensorProblem::BytesTrailing { count: left, expected }) }
}

/// The elements of `BYTES` data; ends early (with `None` inside) where the form is broken.
pub(crate) fn elements(mut data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let element = data.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = u32::from_le_bytes(*length) as usize;
            Some((rest.get(..length)?, rest.get(length..)?))
        });
        data = element.map_or(&[][..], |(_, rest)| rest);
        Some(element.map(|(element, _)| element))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(elements: &[Vec<u8>]) -> Vec<u8> {
        elements.iter().flat_map(|element| [&(element.len() as u32).to_le_bytes()[..], element].concat()).collect()
    }

    fn cut(data: &[u8], part_bytes: usize) -> Payload {
        let mut payload = Payload::new();
        data.chunks(part_bytes.max(1)).for_each(|part| payload.push(Bytes::copy_from_slice(part)));
        payload
    }

    proptest! {
        #[test]
        fn a_framed_list_is_accepted_however_it_is_cut(
            list in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..10),
            part_bytes in 1..9_usize,
            delta in -3..4_i64,
        ) {
            let data = framed(&list);
            let payload = cut(&data, part_bytes);
            let count = list.len() as u64;
            prop_assert_eq!(check_framing(&payload, count), Ok(()));
            let wrong = count.saturating_add_signed(delta);
            prop_assert_eq!(check_framing(&payload, wrong).is_ok(), wrong == count);
            let read: Option<Vec<&[u8]>> = elements(&data).collect();
            prop_assert_eq!(read.unwrap(), list.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn both_readers_agree_on_any_bytes(data in prop::collection::vec(0..6_u8, 0..60), part_bytes in 1..9_usize) {
            let read: Option<Vec<&[u8]>> = elements(&data).collect();
            let count = read.as_ref().map_or(0, |list| list.len() as u64);
            let accepted = check_framing(&cut(&data, part_bytes), count).is_ok();
            prop_assert_eq!(accepted, read.is_some());
        }
    }

    #[test]
    fn a_shape_of_billions_ends_with_the_data() {
        let problem = check_framing(&cut(&[0; 8], 3), u64::MAX).unwrap_err();
        assert_eq!(problem, TensorProblem::BytesTruncated { index: 2, expected: u64::MAX });
    }
}
