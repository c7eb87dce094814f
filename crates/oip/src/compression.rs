//! Compressed bodies (RFC 9110, section 8.4.1): `gzip` and `deflate` (the zlib format), bounded by what comes out.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use tenantry_types::Payload;

/// The size of the buffers an inflated body is made of, bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// A way to compress a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate.
    Deflate,
}

/// Why a compressed body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// A `Content-Encoding` this server does not read.
    #[error("the Content-Encoding is not one of identity, gzip, deflate")]
    UnknownCoding,
    /// More comes out than is accepted.
    #[error("the body has more than {limit_bytes} bytes when inflated")]
    TooLarge {
        /// How many bytes are accepted.
        limit_bytes: usize,
    },
    /// Not the format it claims to be, or cut off.
    #[error("the body is not valid {0} data")]
    Corrupt(&'static str),
}

impl Coding {
    /// The name in `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Reads a `Content-Encoding`: `None` where the body is as it is.
    ///
    /// # Errors
    /// [`InflateError::UnknownCoding`], also for several codings at once.
    pub fn of_content(value: &str) -> Result<Option<Self>, InflateError> {
        let value = value.trim();
        if value.is_empty() || value.eq_ignore_ascii_case("identity") {
            Ok(None)
        } else if value.eq_ignore_ascii_case("gzip") || value.eq_ignore_ascii_case("x-gzip") {
            Ok(Some(Self::Gzip))
        } else if value.eq_ignore_ascii_case("deflate") {
            Ok(Some(Self::Deflate))
        } else {
            Err(InflateError::UnknownCoding)
        }
    }

    /// The coding an `Accept-Encoding` asks for: the first of ours with a weight above zero (RFC 9110, section 12.5.3).
    pub fn accepted(value: &str) -> Option<Self> {
        value.split(',').find_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0_f32), |text| text.trim().parse().ok());
            if weight.is_none_or(|weight| weight <= 0.0) {
                return None;
            }
            Self::of_content(name).ok().flatten()
        })
    }
}

/// Inflates a body of which at most `limit_bytes` may come out.
///
/// # Errors
/// More than that comes out, or the data is not what it claims to be.
pub fn inflate(coding: Coding, body: &Payload, limit_bytes: usize) -> Result<Payload, InflateError> {
    let chain = Chain { parts: body.parts(), at: 0 };
    match coding {
        // One member, as every HTTP client sends: millions of empty ones would cost seconds and never reach the limit.
        Coding::Gzip => read_all(GzDecoder::new(chain), coding, limit_bytes, GzDecoder::into_inner),
        Coding::Deflate => read_all(ZlibDecoder::new(chain), coding, limit_bytes, ZlibDecoder::into_inner),
    }
}

fn read_all<'a, R: Read>(
    mut reader: R,
    coding: Coding,
    limit_bytes: usize,
    rest: impl FnOnce(R) -> Chain<'a>,
) -> Result<Payload, InflateError> {
    let mut body = Payload::new();
    loop {
        // One byte more than allowed tells a body of exactly the limit from one that is too large.
        let room = (limit_bytes - body.len()).saturating_add(1).min(CHUNK_BYTES);
        let mut chunk = Vec::new();
        let read = reader.by_ref().take(room as u64).read_to_end(&mut chunk);
        let read = read.map_err(|_| InflateError::Corrupt(coding.as_str()))?;
        if read == 0 {
            return if rest(reader).is_empty() { Ok(body) } else { Err(InflateError::Corrupt(coding.as_str())) };
        }
        if body.len() + read > limit_bytes {
            return Err(InflateError::TooLarge { limit_bytes });
        }
        body.push(Bytes::from(chunk));
    }
}

/// Compresses a body; `None` in the case, impossible for memory, that writing fails.
pub fn deflate(coding: Coding, body: &Payload) -> Option<Bytes> {
    let out = Vec::with_capacity(body.len() / 4);
    let level = Compression::fast();
    let written = match coding {
        Coding::Gzip => write_all(GzEncoder::new(out, level), body).and_then(GzEncoder::finish),
        Coding::Deflate => write_all(ZlibEncoder::new(out, level), body).and_then(ZlibEncoder::finish),
    };
    written.ok().map(Bytes::from)
}

fn write_all<W: Write>(mut writer: W, body: &Payload) -> io::Result<W> {
    for part in body.parts() {
        writer.write_all(part)?;
    }
    Ok(writer)
}

/// A chain of buffers as a reader.
struct Chain<'a> {
    parts: &'a [Bytes],
    at: usize,
}

impl Chain<'_> {
    /// Whether every byte was read.
    fn is_empty(&self) -> bool {
        let first = self.parts.first().map_or(0, |part| part.len().saturating_sub(self.at));
        first == 0 && self.parts.iter().skip(1).all(|part| part.is_empty())
    }
}

impl Read for Chain<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Chain<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let Some((first, rest)) = self.parts.split_first() {
            if self.at < first.len() {
                break;
            }
            (self.parts, self.at) = (rest, 0);
        }
        Ok(self.parts.first().and_then(|part| part.get(self.at..)).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(data: &[u8], part_bytes: usize) -> Payload {
        let mut payload = Payload::new();
        data.chunks(part_bytes).for_each(|part| payload.push(Bytes::copy_from_slice(part)));
        payload
    }

    #[test]
    fn one_gzip_member_and_nothing_behind_it() {
        let member = deflate(Coding::Gzip, &Payload::from(b"hello".to_vec())).unwrap();
        let mut body = Payload::from(member.slice(..3));
        body.push(member.slice(3..));
        assert_eq!(inflate(Coding::Gzip, &body, 5).unwrap().to_contiguous(), &b"hello"[..]);
        // A million empty members would inflate to nothing and cost seconds.
        let empty = deflate(Coding::Gzip, &Payload::new()).unwrap();
        for behind in [empty, Bytes::from_static(b"x")] {
            let mut body = Payload::from(member.clone());
            body.push(behind);
            assert!(matches!(inflate(Coding::Gzip, &body, 100), Err(InflateError::Corrupt(_))));
        }
    }

    #[test]
    fn what_is_deflated_inflates_to_the_same_up_to_the_limit() {
        let text: Vec<u8> = (0..600_000_u32).map(|i| (i / 7) as u8).collect();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = deflate(coding, &cut(&text, 1000)).unwrap();
            assert!(packed.len() < text.len() / 10);
            let packed = cut(&packed, 77);
            assert_eq!(inflate(coding, &packed, text.len()).unwrap().to_contiguous(), text);
            let limit_bytes = text.len() - 1;
            assert_eq!(inflate(coding, &packed, limit_bytes), Err(InflateError::TooLarge { limit_bytes }));
            assert_eq!(inflate(coding, &packed, 0), Err(InflateError::TooLarge { limit_bytes: 0 }));
        }
    }

    #[test]
    fn data_that_is_cut_off_or_of_another_format_is_corrupt() {
        let packed = deflate(Coding::Gzip, &cut(b"hello hello hello", 5)).unwrap();
        let short = Payload::from(packed.slice(..packed.len() - 3));
        assert_eq!(inflate(Coding::Gzip, &short, 100), Err(InflateError::Corrupt("gzip")));
        assert_eq!(inflate(Coding::Deflate, &Payload::from(packed), 100), Err(InflateError::Corrupt("deflate")));
        assert_eq!(
            inflate(Coding::Gzip, &Payload::from(Bytes::from_static(b"{}")), 100),
            Err(InflateError::Corrupt("gzip"))
        );
    }

    #[test]
    fn headers_are_read_as_the_standard_says() {
        assert_eq!(Coding::of_content("GZIP"), Ok(Some(Coding::Gzip)));
        assert_eq!(Coding::of_content(" deflate "), Ok(Some(Coding::Deflate)));
        assert_eq!(Coding::of_content("identity"), Ok(None));
        assert_eq!(Coding::of_content("br"), Err(InflateError::UnknownCoding));
        assert_eq!(Coding::of_content("gzip, gzip"), Err(InflateError::UnknownCoding));
        assert_eq!(Coding::accepted("br, gzip;q=0.8, deflate"), Some(Coding::Gzip));
        assert_eq!(Coding::accepted("gzip;q=0, deflate"), Some(Coding::Deflate));
        assert_eq!(Coding::accepted("identity"), None);
        assert_eq!(Coding::accepted("gzip;q=none"), None);
    }
}
