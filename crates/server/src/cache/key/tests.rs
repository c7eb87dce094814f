use bytes::Bytes;
use proptest::prelude::*;
use tenantry_types::{DataType, Payload};

use super::*;

/// A request in a form that can be compared: what [`Parts`] borrows from.
#[derive(Debug, Clone, PartialEq)]
struct Request {
    tenant: TenantId,
    version: VersionId,
    generation: u64,
    inputs: Vec<Tensor>,
    parameters: Parameters,
    outputs: Vec<OutputRequest>,
}

impl Request {
    fn key(&self) -> Digest {
        let Self { tenant, version, generation, inputs, parameters, outputs } = self;
        let parts = Parts { tenant: *tenant, version: *version, generation: *generation, inputs, parameters, outputs };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(parts.key())
    }

    /// What of it an answer may depend on, in one form.
    fn meaning(&self) -> Self {
        let mut meaning = self.clone();
        meaning.inputs.sort_by(|one, other| one.name.cmp(&other.name));
        meaning.parameters.retain(|(name, _)| name != "priority" && name != "timeout");
        meaning.parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
        meaning
    }
}

fn tensor(name: &str, datatype: DataType, shape: &[u64], data: &[u8]) -> Tensor {
    Tensor { name: name.to_owned(), datatype, shape: shape.into(), data: data.to_vec().into() }
}

/// Few and short, so that texts that run into each other are common.
fn short() -> impl Strategy<Value = String> {
    "[ab]{0,3}"
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let datatype = prop::sample::select(vec![DataType::Uint8, DataType::Int8, DataType::Bytes]);
    let shape = prop::collection::vec(0_u64..3, 0..3);
    let data = prop::collection::vec(0_u8..3, 0..4);
    (short(), datatype, shape, data).prop_map(|(name, datatype, shape, data)| tensor(&name, datatype, &shape, &data))
}

fn any_parameter() -> impl Strategy<Value = (String, ParameterValue)> {
    let value = prop_oneof![
        any::<bool>().prop_map(ParameterValue::Bool),
        (0_i64..3).prop_map(ParameterValue::Int),
        (0_i8..3).prop_map(|number| ParameterValue::Double(number.into())),
        short().prop_map(ParameterValue::String),
    ];
    (prop_oneof![short(), Just("priority".to_owned()), Just("timeout".to_owned())], value)
}

fn any_request() -> impl Strategy<Value = Request> {
    let id = || 0_u8..2;
    let inputs = prop::collection::vec(any_tensor(), 0..3).prop_map(|mut inputs| {
        // Each name once, as checked requests have it.
        inputs.sort_by(|one, other| one.name.cmp(&other.name));
        inputs.dedup_by(|one, other| one.name == other.name);
        inputs
    });
    let parameters = prop::collection::vec(any_parameter(), 0..3);
    let outputs = prop::collection::vec(short().prop_map(|name| OutputRequest { name }), 0..3);
    (id(), id(), 0_u64..2, inputs, parameters, outputs).prop_map(
        |(tenant, version, generation, inputs, parameters, outputs)| Request {
            tenant: TenantId::from_parts(1, [tenant; 10]),
            version: VersionId::from_parts(1, [version; 10]),
            generation,
            inputs,
            parameters,
            outputs,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// A change of any part, and of nothing else, changes the key: two requests that share most of their parts.
    #[test]
    fn keys_are_equal_exactly_where_the_requests_mean_the_same(
        one in any_request(),
        other in any_request(),
        take in prop::array::uniform6(prop::bool::weighted(0.2)),
    ) {
        let mut mixed = one.clone();
        let [tenant, version, generation, inputs, parameters, outputs] = take;
        if tenant { mixed.tenant = other.tenant; }
        if version { mixed.version = other.version; }
        if generation { mixed.generation = other.generation; }
        if inputs { mixed.inputs = other.inputs; }
        if parameters { mixed.parameters = other.parameters; }
        if outputs { mixed.outputs = other.outputs; }
        prop_assert_eq!(one.key() == mixed.key(), one.meaning() == mixed.meaning());
    }
}

fn request() -> Request {
    Request {
        tenant: TenantId::from_parts(1, [1; 10]),
        version: VersionId::from_parts(1, [1; 10]),
        generation: 1,
        inputs: vec![tensor("a", DataType::Uint8, &[2], &[1, 2]), tensor("b", DataType::Uint8, &[1], &[3])],
        parameters: vec![("k".to_owned(), ParameterValue::Int(1)), ("l".to_owned(), ParameterValue::Bool(true))],
        outputs: vec![OutputRequest { name: "x".to_owned() }, OutputRequest { name: "y".to_owned() }],
    }
}

#[test]
fn the_order_of_inputs_and_parameters_and_the_clients_urgency_change_nothing() {
    let mut other = request();
    other.inputs.reverse();
    other.parameters.reverse();
    other.parameters.push(("priority".to_owned(), ParameterValue::Int(3)));
    assert_eq!(other.key(), request().key());
}

#[test]
fn lengths_and_places_are_not_confused() {
    let base = request();
    let with = |change: fn(&mut Request)| {
        let mut other = base.clone();
        change(&mut other);
        other.key()
    };
    let others = [
        // A byte on the other side of a border.
        with(|r| r.inputs[0].data = vec![1].into()),
        with(|r| {
            r.inputs[0].data = vec![1].into();
            r.inputs[1].data = vec![2, 3].into();
        }),
        with(|r| {
            r.inputs[0].name = "ab".to_owned();
            r.inputs[1].name = String::new();
        }),
        with(|r| r.inputs[0].shape = [1, 2].as_slice().into()),
        with(|r| r.inputs[0].shape = [2, 1].as_slice().into()),
        with(|r| r.inputs[0].datatype = DataType::Int8),
        // The order of outputs is the order of the answer.
        with(|r| r.outputs.reverse()),
        with(|r| r.outputs = vec![OutputRequest { name: "xy".to_owned() }]),
        with(|r| r.outputs.clear()),
        // One number in four types.
        with(|r| r.parameters[0].1 = ParameterValue::Double(1.0)),
        with(|r| r.parameters[0].1 = ParameterValue::Uint(1)),
        with(|r| r.parameters[0].1 = ParameterValue::Bool(true)),
        with(|r| r.parameters[0].1 = ParameterValue::String("1".to_owned())),
        with(|r| r.tenant = TenantId::from_parts(1, [2; 10])),
        with(|r| r.version = VersionId::from_parts(1, [2; 10])),
        with(|r| r.generation = 2),
        base.key(),
    ];
    let different: std::collections::BTreeSet<Digest> = others.into_iter().collect();
    assert_eq!(different.len(), others.len());
}

#[test]
fn how_long_data_came_in_pieces_does_not_count_and_its_last_byte_does() {
    let bytes: Vec<u8> = (0..3 * HASHED_AT_ONCE_BYTES + 1).map(|index| (index % 251) as u8).collect();
    let with_data = |data: Payload| {
        let mut long = request();
        long.inputs[0].data = data;
        long.key()
    };
    let whole = with_data(bytes.clone().into());
    for piece in [1000, HASHED_AT_ONCE_BYTES, HASHED_AT_ONCE_BYTES + 1] {
        let mut chain = Payload::new();
        bytes.chunks(piece).for_each(|part| chain.push(Bytes::copy_from_slice(part)));
        assert_eq!(with_data(chain), whole, "{piece}");
    }
    let mut changed = bytes;
    *changed.last_mut().unwrap() ^= 1;
    assert_ne!(with_data(changed.into()), whole);
}

#[test]
fn answers_within_a_sequence_are_not_kept() {
    let parameters = |name: &str| vec![(name.to_owned(), ParameterValue::Int(7))];
    let keeps = |parameters: &Parameters| {
        let Request { tenant, version, generation, .. } = request();
        Parts { tenant, version, generation, inputs: &[], parameters, outputs: &[] }.are_all()
    };
    assert!(keeps(&Vec::new()) && keeps(&parameters("temperature")));
    for name in ["sequence_id", "sequence_start", "sequence_end"] {
        assert!(!keeps(&parameters(name)), "{name}");
    }
}
