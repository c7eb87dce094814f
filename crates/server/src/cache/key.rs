//! The key of a kept answer: SHA-256 over everything the answer depends on.
//!
//! The encoding can be read back in one way only, so two different requests never give the same bytes to hash: the parts
//! come in a fixed order, whatever varies in length stands behind its length, every list behind its count. Inputs and
//! parameters are sets by name, so their order does not count.

use sha2::{Digest as _, Sha256};
use smallvec::SmallVec;
use tenantry_types::infer::{ParameterValue, Parameters};
use tenantry_types::{Digest, OutputRequest, TenantId, Tensor, VersionId};

/// Hashed in one go before other requests get their turn on the thread, bytes: a tenth of a millisecond or two.
const HASHED_AT_ONCE_BYTES: usize = 256 << 10;
/// What a client says of a sequence of requests: their answers depend on those before.
const SEQUENCE_PREFIX: &str = "sequence_";
/// Parameters that order or bound the waiting and change no answer.
const WITHOUT_EFFECT: [&str; 2] = ["priority", "timeout"];

/// Everything an answer depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// Who asks. Also for a shared model: nobody learns from the time of an answer what others asked.
    pub(crate) tenant: TenantId,
    /// What computes: immutable.
    pub(crate) version: VersionId,
    /// Of the deployment: an answer that was computed before a change is never found after it, however late it comes.
    pub(crate) generation: u64,
    /// Each once, as checked.
    pub(crate) inputs: &'a [Tensor],
    /// As they came.
    pub(crate) parameters: &'a Parameters,
    /// As they came; empty means all.
    pub(crate) outputs: &'a [OutputRequest],
}

impl Parts<'_> {
    /// Whether the answer depends on nothing else.
    pub(crate) fn are_all(&self) -> bool {
        !self.parameters.iter().any(|(name, _)| name.starts_with(SEQUENCE_PREFIX))
    }

    /// The key. Long inputs are hashed piece by piece, and other work comes in between.
    pub(crate) async fn key(&self) -> Digest {
        let Self { tenant, version, generation, inputs, parameters, outputs } = *self;
        let mut hash = Sha256::new();
        hash.update(tenant.as_bytes());
        hash.update(version.as_bytes());
        number(&mut hash, generation);

        number(&mut hash, outputs.len() as u64);
        outputs.iter().for_each(|OutputRequest { name }| text(&mut hash, name));

        let mut parameters: SmallVec<[&(String, ParameterValue); 4]> =
            parameters.iter().filter(|(name, _)| !WITHOUT_EFFECT.contains(&name.as_str())).collect();
        // Stable: of two with one name, which comes first may matter.
        parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
        number(&mut hash, parameters.len() as u64);
        for (name, value) in parameters {
            text(&mut hash, name);
            parameter(&mut hash, value);
        }

        let mut inputs: SmallVec<[&Tensor; 8]> = inputs.iter().collect();
        inputs.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        number(&mut hash, inputs.len() as u64);
        let mut hashed_bytes = 0;
        for Tensor { name, datatype, shape, data } in inputs {
            text(&mut hash, name);
            hash.update([*datatype as u8]);
            number(&mut hash, shape.len() as u64);
            shape.iter().for_each(|extent| number(&mut hash, *extent));
            number(&mut hash, data.len() as u64);
            for piece in data.parts().iter().flat_map(|part| part.chunks(HASHED_AT_ONCE_BYTES)) {
                hash.update(piece);
                hashed_bytes += piece.len();
                if hashed_bytes >= HASHED_AT_ONCE_BYTES {
                    hashed_bytes = 0;
                    tokio::task::yield_now().await;
                }
            }
        }
        Digest::from_bytes(hash.finalize().into())
    }
}

fn number(hash: &mut Sha256, number: u64) {
    hash.update(number.to_le_bytes());
}

fn text(hash: &mut Sha256, text: &str) {
    number(hash, text.len() as u64);
    hash.update(text);
}

fn parameter(hash: &mut Sha256, value: &ParameterValue) {
    match value {
        ParameterValue::Bool(value) => hash.update([0, u8::from(*value)]),
        ParameterValue::Int(value) => {
            hash.update([1]);
            hash.update(value.to_le_bytes());
        }
        ParameterValue::Double(value) => {
            hash.update([2]);
            number(hash, value.to_bits());
        }
        ParameterValue::Uint(value) => {
            hash.update([4]);
            number(hash, *value);
        }
        ParameterValue::String(value) => {
            hash.update([3]);
            text(hash, value);
        }
    }
}

#[cfg(test)]
mod tests;
