//! A predict request's body, decoded against the signature of the version it is for.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use tenantry_types::error::sanitise;
use tenantry_types::limits::MAX_TENSORS;
use tenantry_types::{Signature, Tensor, TensorSpec};

use super::nested::{Gatherer, is_base64, quoted};
use super::{PredictError, PredictFormat, shown};
use crate::limits::MAX_JSON_MESSAGE_CHARS;
use crate::parameters::Name;

/// The one signature a model has.
const DEFAULT_SIGNATURE: &str = "serving_default";

/// A decoded request.
#[derive(Debug, Clone, PartialEq)]
pub struct Predict {
    /// The inputs, each with its name.
    pub inputs: Vec<Tensor>,
    /// How the answer is to be written.
    pub format: PredictFormat,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with `instances` or `inputs`")]
struct Body<'a> {
    #[serde(borrow)]
    signature_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
}

/// Decodes the body of a `:predict` call to a version with this signature.
///
/// # Errors
/// The first thing wrong with the body.
pub fn decode_predict(signature: &Signature, body: &[u8]) -> Result<Predict, PredictError> {
    let json = quoted(body);
    let body: Body<'_> = serde_json::from_slice(&json).map_err(|error| wrong_json(&error))?;
    match body.signature_name.as_deref() {
        None | Some("" | DEFAULT_SIGNATURE) => {}
        Some(other) => return Err(PredictError::Signature(shown(other))),
    }
    match (body.instances, body.inputs) {
        (Some(instances), None) => rows(signature, instances.get()),
        (None, Some(inputs)) => {
            Ok(Predict { inputs: whole(signature, inputs.get(), "`inputs`", 0)?, format: PredictFormat::Whole })
        }
        _ => Err(PredictError::OneForm),
    }
}

/// Decodes a body that is one instance: a value, or an object of values by name. Where the model has a dimension for rows,
/// it is one row, and so is its answer.
///
/// # Errors
/// The first thing wrong with the body.
pub fn decode_instance(signature: &Signature, body: &[u8]) -> Result<Predict, PredictError> {
    let json = quoted(body);
    let value: &RawValue = serde_json::from_slice(&json).map_err(|error| wrong_json(&error))?;
    let format = PredictFormat::instance_of(signature);
    let outer = if format == PredictFormat::OneRow { 1 } else { 0 };
    Ok(Predict { inputs: whole(signature, value.get(), "the body", outer)?, format })
}

/// Values by name, or the value of the only input, that lack the first `outer` dimensions, which are 1.
fn whole(signature: &Signature, json: &str, place: &str, outer: usize) -> Result<Vec<Tensor>, PredictError> {
    let mut gatherers = gatherers(signature, json.len())?;
    if is_named(json) {
        named(&mut gatherers, json, outer, || place.to_owned())?;
    } else {
        let gatherer = only(&mut gatherers)?;
        gatherer.take(json, outer).map_err(|problem| of_input(gatherer.spec, problem))?;
    }
    finish(gatherers, outer, 1)
}

/// One value, or object of values, a row.
fn rows(signature: &Signature, json: &str) -> Result<Predict, PredictError> {
    if let Some(scalar) = signature.inputs.iter().find(|spec| spec.dims.is_empty()) {
        return Err(PredictError::NoRows(scalar.name.clone()));
    }
    let mut gatherers = gatherers(signature, json.len())?;
    let mut count = 0_u64;
    for_each(json, |instance| {
        let place = || format!("instances[{count}]");
        if is_named(instance) {
            named(&mut gatherers, instance, 1, place)?;
        } else {
            let gatherer = only(&mut gatherers)?;
            gatherer.take(instance, 1).map_err(|problem| of_input(gatherer.spec, problem))?;
        }
        count += 1;
        Ok(())
    })?;
    if count == 0 {
        return Err(PredictError::NoInstances);
    }
    Ok(Predict { inputs: finish(gatherers, 1, count)?, format: PredictFormat::Rows(count) })
}

fn gatherers(signature: &Signature, text_bytes: usize) -> Result<Vec<Gatherer<'_>>, PredictError> {
    // Together they cannot take more than the text has; what one alone would is enough to begin with.
    let each = text_bytes / signature.inputs.len().max(1);
    let new = |spec| Gatherer::new(spec, each).map_err(|problem| of_input(spec, problem));
    signature.inputs.iter().map(new).collect()
}

fn only<'g, 's>(gatherers: &'g mut [Gatherer<'s>]) -> Result<&'g mut Gatherer<'s>, PredictError> {
    let count = gatherers.len();
    match gatherers {
        [only] => Ok(only),
        _ => Err(PredictError::NamesNeeded(count)),
    }
}

fn finish(mut gatherers: Vec<Gatherer<'_>>, outer: usize, count: u64) -> Result<Vec<Tensor>, PredictError> {
    for gatherer in gatherers.iter_mut().filter(|_| outer == 1) {
        gatherer.settle(0, count).map_err(|problem| of_input(gatherer.spec, problem))?;
    }
    Ok(gatherers.into_iter().map(Gatherer::finish).collect())
}

/// Whether a value is an object of values by name.
fn is_named(json: &str) -> bool {
    json.starts_with('{') && !is_base64(json)
}

/// Takes in an object of one value for each input.
fn named(
    gatherers: &mut [Gatherer<'_>],
    json: &str,
    outer: usize,
    place: impl Fn() -> String,
) -> Result<(), PredictError> {
    let Entries(entries) = serde_json::from_str(json).map_err(|error| wrong_json(&error))?;
    let mut seen = 0_u64;
    for (name, value) in entries {
        let position = gatherers.iter().position(|gatherer| gatherer.spec.name == name);
        let found = position.and_then(|position| Some((position, gatherers.get_mut(position)?)));
        let Some((position, gatherer)) = found else {
            let names: Vec<String> = gatherers.iter().map(|gatherer| format!("`{}`", gatherer.spec.name)).collect();
            return Err(PredictError::Unknown { place: place(), name: shown(&name), expected: names.join(", ") });
        };
        // A model has at most `MAX_TENSORS` inputs, and that many bits there are.
        let bit = 1_u64.checked_shl(u32::try_from(position).unwrap_or(u32::MAX)).unwrap_or_default();
        if seen & bit != 0 {
            return Err(PredictError::Duplicate { place: place(), name: gatherer.spec.name.clone() });
        }
        seen |= bit;
        gatherer.take(value.get(), outer).map_err(|problem| of_input(gatherer.spec, problem))?;
    }
    let missing = gatherers.iter().enumerate().find(|(position, _)| seen >> position & 1 == 0);
    match missing {
        Some((_, gatherer)) => Err(PredictError::Missing { place: place(), name: gatherer.spec.name.clone() }),
        None => Ok(()),
    }
}

fn of_input(spec: &TensorSpec, problem: super::NestedProblem) -> PredictError {
    PredictError::Input { name: spec.name.clone(), problem }
}

fn wrong_json(error: &serde_json::Error) -> PredictError {
    PredictError::Json(sanitise(&error.to_string(), MAX_JSON_MESSAGE_CHARS))
}

/// The members of an object, unread.
struct Entries<'a>(SmallVec<[(Cow<'a, str>, &'a RawValue); 4]>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of values by input")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = SmallVec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    if entries.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format_args!("more than {MAX_TENSORS} inputs")));
                    }
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Gives every entry of a list to `take`, one at a time, as text.
fn for_each<'a>(json: &'a str, take: impl FnMut(&'a str) -> Result<(), PredictError>) -> Result<(), PredictError> {
    struct Reader<'t, F> {
        take: F,
        /// What `take` said; the reader's own errors are texts only.
        refused: &'t mut Option<PredictError>,
    }
    impl<'de, F: FnMut(&'de str) -> Result<(), PredictError>> Visitor<'de> for Reader<'_, F> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of instances")
        }
        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            while let Some(value) = seq.next_element::<&'de RawValue>()? {
                if let Err(error) = (self.take)(value.get()) {
                    *self.refused = Some(error);
                    return Err(de::Error::custom("refused"));
                }
            }
            Ok(())
        }
    }
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = (&mut deserializer).deserialize_seq(Reader { take, refused: &mut refused });
    read.map_err(|error| refused.unwrap_or_else(|| wrong_json(&error)))
}
