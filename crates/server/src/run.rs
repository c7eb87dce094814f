//! How a version answers: a model in one task, a chain in one task a stage, a sequence with what it carries.
//!
//! A chain has one deadline and one bill: every stage runs under the chain's own deployment, and the times add up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tenantry_node::{Answer, Meter, ServeError, Submission, Timing};
use tenantry_types::model::{Chain, Stage, StateFact};
use tenantry_types::tensor::element_count;
use tenantry_types::{
    DeploymentId, Dim, ErrorCode, Inputs, ModelRef, MonotonicTime, Priority, RequestId, ServiceError, Shape, Signature,
    Tensor,
};

use crate::inputs::{self, Wanted};
use crate::meter::Account;
use crate::routing::{RoutedModel, RoutedVersion, Servable};
use crate::sequences::{SequenceCall, SequenceKey};
use crate::{Principal, Server};

/// What is to be run, and for whom.
pub(crate) struct Call<'a> {
    pub(crate) principal: &'a Principal,
    pub(crate) request: RequestId,
    /// Whose flow it is in.
    pub(crate) deployment: DeploymentId,
    pub(crate) deadline: MonotonicTime,
    pub(crate) priority: Priority,
    pub(crate) sequence: Option<SequenceCall>,
    pub(crate) account: Option<Arc<Account>>,
}

/// A version, its model, and what the caller calls that.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) model: &'a RoutedModel,
    pub(crate) version: &'a RoutedVersion,
    pub(crate) servable: &'a Servable,
    pub(crate) shown: &'a ModelRef,
}

impl Server {
    /// Runs a version over checked inputs. `outputs`: positions in the outward signature; none for all.
    pub(crate) async fn run(
        &self,
        call: &Call<'_>,
        subject: Subject<'_>,
        inputs: Vec<Tensor>,
        outputs: Wanted,
    ) -> Result<Answer, ServiceError> {
        match subject.servable.chain() {
            Some(chain) => self.run_chain(call, subject, chain, inputs, &outputs).await,
            None => self.run_version(call, subject, inputs, outputs).await,
        }
    }

    async fn run_version(
        &self,
        call: &Call<'_>,
        subject: Subject<'_>,
        mut inputs: Vec<Tensor>,
        outputs: Wanted,
    ) -> Result<Answer, ServiceError> {
        let states = subject.servable.pipeline.as_ref().map_or(&[][..], |pipeline| &pipeline.states);
        let submit = |inputs, outputs| self.submit(call, subject, inputs, outputs);
        if states.is_empty() {
            return submit(inputs, outputs).await;
        }
        let signature = &subject.servable.spec.signature;
        let visible = subject.servable.outward.outputs.len();
        let wanted: Wanted = if outputs.is_empty() { positions(0..visible) } else { outputs };
        let Some(sequence) = &call.sequence else {
            inputs.extend(fresh(states, signature));
            return submit(inputs, wanted).await;
        };
        let key = SequenceKey { tenant: call.principal.tenant, version: subject.version.id, id: sequence.id.clone() };
        let held = self.sequences.begin(&key, sequence.start, self.node.now())?;
        // One request of a sequence after the other, in the order they came.
        let left = call.deadline.saturating_since(self.node.now());
        let mut held = tokio::time::timeout(left, held.lock_owned()).await.map_err(|_| expired(subject.shown))?;
        let carried = held.take();
        inputs.extend(match &carried {
            Some(carried) => carried.clone(),
            None => fresh(states, signature),
        });
        let mut all = wanted.clone();
        all.extend(positions(visible..signature.outputs.len()));
        // Whatever goes wrong, the sequence is where it was before this request.
        let mut undo = Undo { held: &mut held, carried };
        let mut answer = submit(inputs, all).await?;
        let next = answer.outputs.split_off(wanted.len().min(answer.outputs.len()));
        undo.carried = Some(renamed(next, signature, states.len()));
        drop(undo);
        drop(held);
        if sequence.end {
            self.sequences.end(&key);
        }
        Ok(answer)
    }

    async fn submit(
        &self,
        call: &Call<'_>,
        subject: Subject<'_>,
        inputs: Vec<Tensor>,
        outputs: Wanted,
    ) -> Result<Answer, ServiceError> {
        let submission = Submission {
            placement: self.placement(call.principal, subject.model, subject.servable),
            tenant: call.principal.tenant,
            deployment: call.deployment,
            key: call.principal.share_key(),
            request: call.request,
            meter: call.account.clone().map(|account| account as Arc<dyn Meter>),
            inputs,
            outputs,
            deadline: Some(call.deadline),
            // An inference has no effect but its answer, so running it twice harms nobody.
            abortable: true,
            priority: call.priority,
        };
        let answer = self.node.submit(submission).await;
        answer.map_err(|error: ServeError| crate::infer::refusal(error, subject.shown, subject.version))
    }

    async fn run_chain(
        &self,
        call: &Call<'_>,
        subject: Subject<'_>,
        chain: &Chain,
        inputs: Vec<Tensor>,
        outputs: &[u16],
    ) -> Result<Answer, ServiceError> {
        let mut values: HashMap<String, Tensor> = HashMap::new();
        for (name, tensor) in chain.inputs.iter().zip(in_order(inputs, &chain.inputs)) {
            values.insert(name.clone(), tensor);
        }
        let mut timing: Option<Timing> = None;
        for (number, stage) in (1..).zip(&chain.stages) {
            let of_stage = |error: ServiceError| ServiceError {
                message: format!("model `{}`, stage {number}: {}", subject.shown, error.message),
                ..error
            };
            let (model, version) = self.stage(subject.model, stage).map_err(of_stage)?;
            let servable = version.servable(&model.reference).map_err(|_| of_stage(gone()))?;
            let taken = stage_inputs(stage, &servable.outward, &values).map_err(of_stage)?;
            let made = if taken.iter().any(|tensor| element_count(&tensor.shape) == Some(0)) {
                // Nothing was found that this stage could look at.
                servable.outward.outputs.iter().map(|spec| empty(&spec.name, spec.datatype, &spec.dims)).collect()
            } else {
                // The stage's name is the owner's business; the caller knows the chain's.
                let inner = Subject { model: &model, version: &version, servable, shown: subject.shown };
                let stateless = Call { sequence: None, account: call.account.clone(), ..*call };
                let answer = self.run_version(&stateless, inner, taken, Wanted::new()).await.map_err(of_stage)?;
                timing = Some(timing.map_or(answer.timing, |so_far| sum(so_far, answer.timing)));
                answer.outputs
            };
            for tensor in made {
                let value = value_of(&stage.outputs, &servable.outward, &tensor.name).to_owned();
                values.insert(value, tensor);
            }
        }
        let all: Wanted = positions(0..chain.outputs.len());
        let wanted = if outputs.is_empty() { &all[..] } else { outputs };
        let mut made = Vec::with_capacity(wanted.len());
        for position in wanted {
            let output = chain.outputs.get(usize::from(*position));
            let tensor =
                output.and_then(|(name, value)| Some(Tensor { name: name.clone(), ..values.get(value)?.clone() }));
            made.push(tensor.ok_or_else(ServiceError::internal)?);
        }
        Ok(Answer { outputs: made, timing: timing.ok_or_else(ServiceError::internal)? })
    }

    /// A stage's version, which its chain's owner may use. Its number was fixed when the chain was registered.
    pub(crate) fn stage(
        &self,
        chain: &RoutedModel,
        stage: &Stage,
    ) -> Result<(Arc<RoutedModel>, Arc<RoutedVersion>), ServiceError> {
        let reference: ModelRef = stage.model.parse().map_err(|_| gone())?;
        let routing = self.routing.load();
        let model = routing.model(chain.owner.id, &chain.owner.name, &reference).map_err(|_| gone())?;
        let version = model.version(stage.version.as_deref(), &reference).map_err(|_| gone())?;
        Ok((Arc::clone(model), Arc::clone(version)))
    }
}

/// Puts back what a sequence carried, or keeps what is to be carried from now on.
struct Undo<'a> {
    held: &'a mut Option<Vec<Tensor>>,
    carried: Option<Vec<Tensor>>,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        *self.held = self.carried.take();
    }
}

fn gone() -> ServiceError {
    ServiceError::new(
        ErrorCode::Unavailable,
        "the version it names cannot be served any more; its owner has to upload the chain again",
    )
}

fn expired(shown: &ModelRef) -> ServiceError {
    ServiceError::new(
        ErrorCode::DeadlineExceeded,
        format!("model `{shown}`: the requests before this one of its sequence took all of its time"),
    )
}

fn positions(range: std::ops::Range<usize>) -> Wanted {
    range.filter_map(|position| u16::try_from(position).ok()).collect()
}

/// The states of a sequence that begins: zeros.
fn fresh(states: &[StateFact], signature: &Signature) -> Vec<Tensor> {
    let names = signature.inputs.iter().skip(signature.inputs.len().saturating_sub(states.len()));
    let zeros = |(state, spec): (&StateFact, &tenantry_types::TensorSpec)| {
        let bytes = element_count(&state.shape).unwrap_or(0) as usize * state.datatype.element_bytes().unwrap_or(0);
        Tensor {
            name: spec.name.clone(),
            datatype: state.datatype,
            shape: state.shape.iter().copied().collect(),
            data: Bytes::from(vec![0; bytes]).into(),
        }
    };
    states.iter().zip(names).map(zeros).collect()
}

/// What was made for the next request, called as that will call it.
fn renamed(next: Vec<Tensor>, signature: &Signature, states: usize) -> Vec<Tensor> {
    let names = signature.inputs.iter().skip(signature.inputs.len().saturating_sub(states));
    next.into_iter().zip(names).map(|(tensor, spec)| Tensor { name: spec.name.clone(), ..tensor }).collect()
}

fn in_order(mut tensors: Vec<Tensor>, names: &[String]) -> Vec<Tensor> {
    tensors.sort_by_key(|tensor| names.iter().position(|name| *name == tensor.name));
    tensors
}

/// The value that something of a stage's is or becomes.
pub(crate) fn value_of<'a>(pairs: &'a [(String, String)], signature: &'a Signature, name: &str) -> &'a str {
    let renamed = pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let own = signature.inputs.iter().chain(&signature.outputs).find(|spec| spec.name == name);
    renamed.or(own.map(|spec| spec.name.as_str())).unwrap_or_default()
}

fn stage_inputs(
    stage: &Stage,
    signature: &Signature,
    values: &HashMap<String, Tensor>,
) -> Result<Vec<Tensor>, ServiceError> {
    let take = |spec: &tenantry_types::TensorSpec| {
        let value = values.get(value_of(&stage.inputs, signature, &spec.name)).ok_or_else(gone)?;
        Ok(Tensor { name: spec.name.clone(), ..value.clone() })
    };
    let taken = signature.inputs.iter().map(take).collect::<Result<Vec<_>, ServiceError>>()?;
    inputs::checked(Inputs::Named(taken), signature)
}

fn empty(name: &str, datatype: tenantry_types::DataType, dims: &[Dim]) -> Tensor {
    let extent = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(extent) if axis > 0 => *extent,
        _ => 0,
    };
    let shape: Shape = dims.iter().enumerate().map(extent).collect();
    Tensor { name: name.to_owned(), datatype, shape, data: Bytes::new().into() }
}

/// The times of two stages, one after the other.
fn sum(one: Timing, other: Timing) -> Timing {
    let add = Duration::saturating_add;
    Timing {
        queue_wait: add(one.queue_wait, other.queue_wait),
        device_time: add(one.device_time, other.device_time),
        batch_wait: add(one.batch_wait, other.batch_wait),
        batch_time: add(one.batch_time, other.batch_time),
        suspended: add(one.suspended, other.suspended),
        rows: one.rows.max(other.rows),
        batch_rows: one.batch_rows.max(other.batch_rows),
        phase: other.phase,
    }
}
