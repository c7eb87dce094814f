//! A manifest and a model as one thing that takes a request's inputs and gives its outputs.
//!
//! Everything is worked out when the version is registered: which value comes from where, of which kind, and what the
//! version looks like from outside. A run does only what the wanted outputs need.

use std::borrow::Cow;

use tenantry_types::error::sanitise;
use tenantry_types::model::{PipelineFacts, StateFact};
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, Dim, Shape, Signature, TensorSpec};

use crate::array::Array;
use crate::manifest::{FILE_NAME, InputConfig, InputType, Manifest};
use crate::step::{Files, Step};
use crate::value::{BATCH, PlanError, Spec, Specs, StepError, Value, Values};

/// The most steps of a scan: an hour of frames of 32 ms.
const MAX_SCAN_STEPS: u64 = 1 << 17;
/// The most bytes that all steps of a scan may give together.
const MAX_SCAN_BYTES: u64 = 256 << 20;

/// Outputs and states, one bit each.
type Wanted = u128;

/// Why a run gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunError<E> {
    /// The request's inputs are of no use; the text says why.
    Input(String),
    /// The model and its manifest do not fit each other; the text says how.
    Model(String),
    /// The model's own failure.
    Engine(E),
    /// Somebody asked for the end of the run between two steps.
    Stopped,
}

impl<E> From<StepError> for RunError<E> {
    fn from(error: StepError) -> Self {
        match error {
            StepError::Input(text) => Self::Input(text),
            StepError::Model(text) => Self::Model(text),
        }
    }
}

/// A step, and which outputs and states need it.
#[derive(Debug)]
struct Planned {
    step: Box<dyn Step>,
    serves: Wanted,
}

/// An output or a state's next value.
#[derive(Debug)]
struct Given {
    value: String,
}

/// An input of a request.
#[derive(Debug)]
struct Input {
    name: String,
    kind: InputType,
}

/// A version: its manifest's steps around its model.
#[derive(Debug)]
pub struct Program {
    signature: Signature,
    facts: PipelineFacts,
    inputs: Vec<Input>,
    before: Vec<Planned>,
    /// The model's inputs, in its order.
    engine_inputs: Vec<String>,
    /// The model's outputs, in its order, and which outputs and states need each.
    engine_outputs: Vec<(String, Wanted)>,
    after: Vec<Planned>,
    results: Vec<Given>,
    scan: Option<Scan>,
}

/// How the model is run step by step.
#[derive(Debug)]
struct Scan {
    /// Which of the model's inputs is cut into steps.
    over: usize,
    /// The model's inputs that get an output of the step before, and which.
    carried: Vec<(usize, usize)>,
}

/// Runs the model: its inputs in its order, and the positions of the outputs that are wanted.
pub type Engine<'e, E> = dyn FnMut(&[Array<'_>], &[u16]) -> Result<Vec<Array<'static>>, E> + 'e;

impl Program {
    /// Puts a manifest and a model's signature together.
    ///
    /// # Errors
    /// [`PlanError`] says which part does not fit which.
    pub fn open(manifest: &Manifest, files: &Files<'_>, engine: &Signature) -> Result<Self, PlanError> {
        let open = |configs: &[crate::step::StepConfig]| {
            configs.iter().map(|config| config.open(files)).collect::<Result<Vec<_>, _>>()
        };
        let (before, after) = (open(&manifest.before)?, open(&manifest.after)?);
        let mut specs = Specs::default();
        let mut inputs = Vec::new();
        for input in &manifest.inputs {
            specs.set(&input.name, input.spec())?;
            inputs.push(Input { name: input.name.clone(), kind: input.kind });
        }
        for state in &manifest.states {
            let dims = state.shape.iter().map(|extent| Dim::Fixed(*extent)).collect();
            specs.set(&state.name, Spec::Array(state.datatype, dims))?;
        }
        if inputs.is_empty() {
            // A manifest that says nothing of inputs leaves them as the model has them.
            let made: Vec<&str> = before.iter().flat_map(|step| step.makes()).collect();
            for spec in engine.inputs.iter().filter(|spec| !made.contains(&spec.name.as_str())) {
                if specs.get(&spec.name).is_none() {
                    specs.set(&spec.name, Spec::Array(spec.datatype, spec.dims.clone()))?;
                    inputs.push(Input { name: spec.name.clone(), kind: InputType::Tensor });
                }
            }
        }
        let signature_inputs =
            inputs.iter().map(|input| outward(&input.name, &specs)).collect::<Result<Vec<_>, _>>()?;
        before.iter().try_for_each(|step| step.plan(&mut specs))?;
        let scan = Scan::plan(manifest, engine, &specs)?;
        plan_engine(manifest, engine, scan.as_ref(), &mut specs)?;
        after.iter().try_for_each(|step| step.plan(&mut specs))?;

        let mut outputs: Vec<(String, String)> =
            manifest.outputs.iter().map(|output| (output.name.clone(), output.value().to_owned())).collect();
        if outputs.is_empty() {
            let is_state = |name: &str| manifest.states.iter().any(|state| state.next == name);
            outputs = engine
                .outputs
                .iter()
                .filter(|spec| !is_state(&spec.name))
                .map(|spec| (spec.name.clone(), spec.name.clone()))
                .collect();
        }
        if outputs.len() + manifest.states.len() > Wanted::BITS as usize {
            return Err(PlanError(format!("more than {} outputs and states", Wanted::BITS)));
        }
        let mut signature = Signature { inputs: signature_inputs, outputs: Vec::new() };
        for (name, value) in &outputs {
            let TensorSpec { datatype, dims, .. } = outward(value, &specs)?;
            signature.outputs.push(TensorSpec { name: name.clone(), datatype, dims });
        }
        for state in &manifest.states {
            let (held, next) = (outward(&state.name, &specs)?, outward(&state.next, &specs)?);
            let fits = held.datatype == next.datatype && held.dims.len() == next.dims.len();
            let dims = held.dims.iter().zip(&next.dims);
            if !fits || dims.clone().any(|(held, next)| matches!(next, Dim::Fixed(_)) && held != next) {
                return Err(PlanError(format!(
                    "the state `{}` and what follows it, `{}`, have different shapes",
                    state.name, state.next
                )));
            }
            signature.outputs.push(TensorSpec { name: state.next.clone(), ..held.clone() });
            signature.inputs.push(held);
            inputs.push(Input { name: state.name.clone(), kind: InputType::Tensor });
        }
        if let Some(twice) = first_double(&signature.inputs).or_else(|| first_double(&signature.outputs)) {
            return Err(PlanError(format!("the name `{twice}` is an output's and a state's; give one another name")));
        }
        let results: Vec<Given> = outputs
            .into_iter()
            .map(|(_, value)| Given { value })
            .chain(manifest.states.iter().map(|state| Given { value: state.next.clone() }))
            .collect();
        let mut files: Vec<String> = vec![FILE_NAME.to_owned()];
        files.extend(manifest.files().into_iter().map(str::to_owned));
        let state =
            |state: &crate::manifest::StateConfig| StateFact { datatype: state.datatype, shape: state.shape.clone() };
        let facts = PipelineFacts {
            task: manifest.task,
            files,
            states: manifest.states.iter().map(state).collect(),
            chain: None,
        };
        check_task(manifest, &signature)?;
        Ok(Self::ordered(signature, facts, inputs, before, engine, after, results, scan))
    }

    /// Works out, from the end, which step serves which outputs.
    #[expect(clippy::too_many_arguments, reason = "the parts of one value, put together once")]
    fn ordered(
        signature: Signature,
        facts: PipelineFacts,
        inputs: Vec<Input>,
        before: Vec<Box<dyn Step>>,
        engine: &Signature,
        after: Vec<Box<dyn Step>>,
        results: Vec<Given>,
        scan: Option<Scan>,
    ) -> Self {
        let mut serves: std::collections::HashMap<String, Wanted> = std::collections::HashMap::new();
        for (index, result) in results.iter().enumerate() {
            *serves.entry(result.value.clone()).or_default() |= 1 << index;
        }
        let planned = |steps: Vec<Box<dyn Step>>, serves: &mut std::collections::HashMap<String, Wanted>| {
            let mut planned: Vec<Planned> = Vec::with_capacity(steps.len());
            for step in steps.into_iter().rev() {
                let mask = step.makes().into_iter().filter_map(|name| serves.get(name)).fold(0, |all, mask| all | mask);
                for name in step.reads() {
                    *serves.entry(name.to_owned()).or_default() |= mask;
                }
                planned.push(Planned { step, serves: mask });
            }
            planned.reverse();
            planned
        };
        let after = planned(after, &mut serves);
        let of_output = |spec: &TensorSpec| (spec.name.clone(), serves.get(&spec.name).copied().unwrap_or(0));
        let mut engine_outputs: Vec<(String, Wanted)> = engine.outputs.iter().map(of_output).collect();
        let mut runs = engine_outputs.iter().fold(0, |all, (_, mask)| all | mask);
        if let Some(scan) = &scan {
            // What is carried is needed for whatever else is.
            for (_, output) in &scan.carried {
                if let Some((_, mask)) = engine_outputs.get_mut(*output) {
                    *mask |= runs;
                    runs |= *mask;
                }
            }
        }
        for spec in &engine.inputs {
            *serves.entry(spec.name.clone()).or_default() |= runs;
        }
        let before = planned(before, &mut serves);
        let engine_inputs = engine.inputs.iter().map(|spec| spec.name.clone()).collect();
        Self { signature, facts, inputs, before, engine_inputs, engine_outputs, after, results, scan }
    }

    /// What goes in and what comes out, the states last.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What others need to know of it.
    pub fn facts(&self) -> &PipelineFacts {
        &self.facts
    }

    /// Runs it. `inputs`: in the signature's order; `wanted`: positions of its outputs, none for all. `stopped` is asked
    /// between steps.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn run<'a, E>(
        &'a self,
        inputs: &[(DataType, &'a [u64], &'a [u8])],
        wanted: &[u16],
        engine: &mut Engine<'_, E>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<(u16, Array<'a>)>, RunError<E>> {
        let all: Vec<u16>;
        let wanted = if wanted.is_empty() {
            all = (0..u16::try_from(self.results.len()).unwrap_or(u16::MAX)).collect();
            all.as_slice()
        } else {
            wanted
        };
        let mut mask: Wanted = 0;
        for index in wanted {
            if usize::from(*index) >= self.results.len() {
                return Err(RunError::Input(format!("there is no output {index}")));
            }
            mask |= 1 << index;
        }
        if inputs.len() != self.inputs.len() {
            return Err(RunError::Input(format!("{} inputs came, {} are needed", inputs.len(), self.inputs.len())));
        }
        let mut values = Values::default();
        for (input, (datatype, shape, data)) in self.inputs.iter().zip(inputs) {
            values.set(&input.name, input.value(*datatype, shape, data)?);
        }
        run_steps(&self.before, mask, &mut values, stopped)?;
        self.run_engine(mask, &mut values, engine, stopped)?;
        run_steps(&self.after, mask, &mut values, stopped)?;
        let mut outputs = Vec::with_capacity(wanted.len());
        for (position, index) in wanted.iter().enumerate() {
            let Some(result) = self.results.get(usize::from(*index)) else { continue };
            let again = wanted.iter().skip(position + 1).filter_map(|later| self.results.get(usize::from(*later)));
            let value = if again.into_iter().any(|later| later.value == result.value) {
                values.any(&result.value)?.clone()
            } else {
                values.take(&result.value).ok_or_else(|| RunError::Model(format!("`{}` was not made", result.value)))?
            };
            outputs.push((*index, shown(value, &result.value)?));
        }
        Ok(outputs)
    }

    fn run_engine<'a, E>(
        &'a self,
        mask: Wanted,
        values: &mut Values<'a>,
        engine: &mut Engine<'_, E>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<(), RunError<E>> {
        let wanted: Vec<u16> = self
            .engine_outputs
            .iter()
            .enumerate()
            .filter(|(_, (_, serves))| serves & mask != 0)
            .filter_map(|(index, _)| u16::try_from(index).ok())
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut feeds: Vec<Array<'_>> = Vec::with_capacity(self.engine_inputs.len());
        for name in &self.engine_inputs {
            feeds.push(match values.any(name)? {
                Value::Array(array) => array.view(),
                Value::Texts(texts) => Array::texts(texts),
                _ => return Err(RunError::Model(format!("the model cannot read `{name}`"))),
            });
        }
        let outputs = match &self.scan {
            None => engine(&feeds, &wanted).map_err(RunError::Engine)?,
            Some(scan) => scan.run(feeds, &wanted, engine, stopped)?,
        };
        if outputs.len() != wanted.len() {
            return Err(RunError::Model("the model gave another number of outputs than were asked for".to_owned()));
        }
        for (index, output) in wanted.iter().zip(outputs) {
            if let Some((name, _)) = self.engine_outputs.get(usize::from(*index)) {
                values.set(name, Value::Array(output));
            }
        }
        Ok(())
    }
}

impl Scan {
    fn plan(manifest: &Manifest, engine: &Signature, specs: &Specs) -> Result<Option<Self>, PlanError> {
        let Some(name) = &manifest.model.scan else { return Ok(None) };
        let over = engine.input_index(name);
        let over = over.ok_or_else(|| PlanError(format!("`scan` names `{name}`, which is no input of the model")))?;
        match specs.any(name)? {
            Spec::Array(datatype, dims) if dims.len() >= 2 && datatype.element_bytes().is_some() => {
                if !matches!(dims.first(), Some(Dim::Fixed(1))) {
                    return Err(PlanError(format!(
                        "`scan` over `{name}`, which has a changing number of rows; write `rows = 1` at its [[input]]"
                    )));
                }
            }
            _ => return Err(PlanError(format!("`scan` needs numbers of two dimensions or more in `{name}`"))),
        }
        let mut carried = Vec::new();
        for state in &manifest.states {
            match (engine.input_index(&state.name), engine.output_index(&state.next)) {
                (Some(input), Some(output)) => carried.push((input, output)),
                // A state of a step's, not of the model's.
                (None, _) => {}
                (Some(_), None) => {
                    return Err(PlanError(format!(
                        "the state `{}` is followed by `{}`, which is no output of the model",
                        state.name, state.next
                    )));
                }
            }
        }
        Ok(Some(Self { over, carried }))
    }

    /// Runs the model once a step. Outputs that are not carried gain a second dimension, the steps.
    fn run<E>(
        &self,
        mut feeds: Vec<Array<'_>>,
        wanted: &[u16],
        engine: &mut Engine<'_, E>,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<Array<'static>>, RunError<E>> {
        let broken = || RunError::Model("what the model is to be run over is not there".to_owned());
        let whole = feeds.get(self.over).cloned().ok_or_else(broken)?;
        let steps = whole.shape.get(1).copied().unwrap_or(0);
        if steps == 0 || steps > MAX_SCAN_STEPS {
            return Err(RunError::Input(format!(
                "between 1 and {MAX_SCAN_STEPS} steps are run; this would be {steps}"
            )));
        }
        let carried_to =
            |output: u16| self.carried.iter().find(|(_, from)| *from == usize::from(output)).map(|(to, _)| *to);
        let mut gathered: Vec<Option<Gathered>> = wanted.iter().map(|_| None).collect();
        let mut last: Vec<Option<Array<'static>>> = wanted.iter().map(|_| None).collect();
        for index in 0..steps {
            if stopped() {
                return Err(RunError::Stopped);
            }
            let outputs = {
                let step = whole.step(index).ok_or_else(broken)?;
                // Borrowed for this step only: feeds of carried values are replaced below.
                let mut now: Vec<Array<'_>> = feeds.iter().map(Array::view).collect();
                if let Some(feed) = now.get_mut(self.over) {
                    *feed = step;
                }
                engine(&now, wanted).map_err(RunError::Engine)?
            };
            for (position, (output, array)) in wanted.iter().zip(outputs).enumerate() {
                match carried_to(*output) {
                    Some(to) => {
                        if let Some(feed) = feeds.get_mut(to) {
                            if feed.datatype != array.datatype || feed.shape != array.shape {
                                return Err(RunError::Model("the model's state changed its shape".to_owned()));
                            }
                            *feed = array.clone();
                        }
                        if let Some(kept) = last.get_mut(position) {
                            *kept = Some(array);
                        }
                    }
                    None => {
                        if let Some(room) = gathered.get_mut(position) {
                            Gathered::add(room, &array, steps).map_err(RunError::Model)?;
                        }
                    }
                }
            }
        }
        let finish = |(last, gathered): (Option<Array<'static>>, Option<Gathered>)| {
            last.or_else(|| gathered?.finish(steps)).ok_or_else(broken)
        };
        last.into_iter().zip(gathered).map(finish).collect()
    }
}

/// An output of all steps so far.
struct Gathered {
    datatype: DataType,
    shape: Shape,
    data: Vec<u8>,
}

impl Gathered {
    fn add(room: &mut Option<Self>, array: &Array<'_>, steps: u64) -> Result<(), String> {
        let bytes = array.bytes();
        if array.datatype.element_bytes().is_none() || array.shape.is_empty() {
            return Err(
                "an output of a model that is run step by step must be numbers with a first dimension".to_owned()
            );
        }
        if (bytes.len() as u64).saturating_mul(steps) > MAX_SCAN_BYTES {
            return Err(format!("all steps together would give more than {MAX_SCAN_BYTES} bytes"));
        }
        let gathered =
            room.get_or_insert_with(|| Self { datatype: array.datatype, shape: array.shape.clone(), data: Vec::new() });
        if gathered.datatype != array.datatype || gathered.shape != array.shape || array.rows() != 1 {
            return Err("an output changed its shape from step to step".to_owned());
        }
        gathered.data.extend_from_slice(bytes);
        Ok(())
    }

    /// `[1, ...]` a step becomes `[1, steps, ...]`.
    fn finish(self, steps: u64) -> Option<Array<'static>> {
        let Self { datatype, mut shape, data } = self;
        shape.insert(1.min(shape.len()), steps);
        let fill = |room: &mut [u8]| -> Result<(), std::convert::Infallible> {
            room.copy_from_slice(&data);
            Ok(())
        };
        Array::filled(datatype, shape, data.len(), fill).ok()
    }
}

fn run_steps<'a, E>(
    steps: &'a [Planned],
    mask: Wanted,
    values: &mut Values<'a>,
    stopped: &dyn Fn() -> bool,
) -> Result<(), RunError<E>> {
    for planned in steps.iter().filter(|planned| planned.serves & mask != 0) {
        if stopped() {
            return Err(RunError::Stopped);
        }
        planned.step.run(values)?;
    }
    Ok(())
}

impl InputConfig {
    fn spec(&self) -> Spec {
        let rows = self.rows.map_or_else(|| Dim::Named(BATCH.to_owned()), Dim::Fixed);
        match self.kind {
            InputType::Tensor => {
                let rest = self.shape.iter().map(|extent| u64::try_from(*extent).map_or(Dim::Any(()), Dim::Fixed));
                Spec::Array(self.datatype.unwrap_or(DataType::Fp32), std::iter::once(rows).chain(rest).collect())
            }
            InputType::Text | InputType::Image | InputType::Audio | InputType::Bytes => Spec::Texts(rows),
        }
    }
}

impl Input {
    fn value<'a>(&self, datatype: DataType, shape: &'a [u64], data: &'a [u8]) -> Result<Value<'a>, StepError> {
        let array = Array::borrowed(datatype, shape.iter().copied().collect(), data);
        if self.kind == InputType::Tensor {
            return Ok(Value::Array(array));
        }
        elements(data, element_count(shape)).map(Value::Texts).ok_or_else(|| {
            StepError::input(format!("input `{}` is not {} texts", sanitise(&self.name, 80), array.rows()))
        })
    }
}

/// The elements of `BYTES` data, if they are as many.
fn elements(data: &[u8], count: Option<u64>) -> Option<Vec<Cow<'_, [u8]>>> {
    let mut rest = data;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let (element, tail) = tail.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        elements.push(Cow::Borrowed(element));
        rest = tail;
    }
    (count == Some(elements.len() as u64)).then_some(elements)
}

/// A value as a client sees it.
fn shown<'a, E>(value: Value<'a>, name: &str) -> Result<Array<'a>, RunError<E>> {
    match value {
        Value::Array(array) => Ok(array),
        Value::Texts(texts) => Ok(Array::texts(&texts)),
        _ => Err(RunError::Model(format!("`{name}` cannot be shown"))),
    }
}

/// A value as a client would see it.
fn outward(name: &str, specs: &Specs) -> Result<TensorSpec, PlanError> {
    let tensor = |datatype, dims| TensorSpec { name: name.to_owned(), datatype, dims };
    match specs.any(name)? {
        Spec::Array(datatype, dims) => Ok(tensor(*datatype, dims.clone())),
        Spec::Texts(rows) => Ok(tensor(DataType::Bytes, vec![rows.clone()])),
        Spec::Pictures(_) => {
            Err(PlanError(format!("`{name}` is decoded pictures; the step `encode_image` makes files of them")))
        }
        Spec::Sounds(_) => Err(PlanError(format!("`{name}` is decoded sounds, which cannot be an output"))),
    }
}

/// Checks that the model's inputs are there, and adds its outputs.
fn plan_engine(
    manifest: &Manifest,
    engine: &Signature,
    scan: Option<&Scan>,
    specs: &mut Specs,
) -> Result<(), PlanError> {
    let mut rows = None;
    for (index, input) in engine.inputs.iter().enumerate() {
        let is_state = manifest.states.iter().any(|state| state.name == input.name);
        let (datatype, dims) = match specs.any(&input.name)? {
            Spec::Array(datatype, dims) => (*datatype, dims.clone()),
            Spec::Texts(rows) => (DataType::Bytes, vec![rows.clone()]),
            Spec::Pictures(_) | Spec::Sounds(_) => {
                return Err(PlanError(format!(
                    "the model's input `{}` needs numbers; see the steps `pixels` and `frame`",
                    input.name
                )));
            }
        };
        let dims: Vec<Dim> = match scan {
            Some(scan) if scan.over == index => {
                dims.iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, dim)| dim.clone()).collect()
            }
            _ => dims,
        };
        let clash = |(made, needed): (&Dim, &Dim)| matches!((made, needed), (Dim::Fixed(made), Dim::Fixed(needed)) if made != needed);
        if datatype != input.datatype || dims.len() != input.dims.len() || dims.iter().zip(&input.dims).any(clash) {
            let text = |dims: &[Dim]| dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(",");
            return Err(PlanError(format!(
                "the model's input `{}` is {} [{}]; what is made for it is {datatype} [{}]",
                input.name,
                input.datatype,
                text(&input.dims),
                text(&dims)
            )));
        }
        if !is_state && rows.is_none() {
            rows = dims.first().cloned();
        }
    }
    for (index, output) in engine.outputs.iter().enumerate() {
        let mut dims = output.dims.clone();
        if let (Some(first), Some(rows)) = (dims.first_mut(), &rows)
            && !matches!(first, Dim::Fixed(_))
        {
            *first = rows.clone();
        }
        if let Some(state) = manifest.states.iter().find(|state| state.next == output.name) {
            dims = state.shape.iter().map(|extent| Dim::Fixed(*extent)).collect();
        } else if scan.is_some_and(|scan| !scan.carried.iter().any(|(_, carried)| *carried == index)) {
            if dims.is_empty() {
                return Err(PlanError(format!(
                    "the model's output `{}` has no first dimension to be run step by step",
                    output.name
                )));
            }
            dims.insert(1, Dim::Named("steps".to_owned()));
        }
        specs.set(&output.name, Spec::Array(output.datatype, dims))?;
    }
    Ok(())
}

/// A version for a task has what the task's API needs.
fn check_task(manifest: &Manifest, signature: &Signature) -> Result<(), PlanError> {
    let Some(tenantry_types::model::Task::Embedding { .. }) = manifest.task else { return Ok(()) };
    let is = |specs: &[TensorSpec], name: &str, datatype, rank| {
        specs.iter().any(|spec| spec.name == name && spec.datatype == datatype && spec.dims.len() == rank)
    };
    let fits = signature.inputs.len() == 1
        && is(&signature.inputs, "text", DataType::Bytes, 1)
        && is(&signature.outputs, "embedding", DataType::Fp32, 2)
        && is(&signature.outputs, "token_count", DataType::Int64, 1);
    if fits {
        return Ok(());
    }
    Err(PlanError(
        "the task \"embedding\" has one input, `text` (type \"text\"), and the outputs `embedding` (FP32 [rows, width]) and \
         `token_count` (INT64 [rows])"
            .to_owned(),
    ))
}

fn first_double(specs: &[TensorSpec]) -> Option<&str> {
    let double = |(index, spec): (usize, &TensorSpec)| {
        specs.iter().take(index).any(|earlier| earlier.name == spec.name).then_some(index)
    };
    let index = specs.iter().enumerate().find_map(double)?;
    specs.get(index).map(|spec| spec.name.as_str())
}

#[cfg(test)]
mod tests;
