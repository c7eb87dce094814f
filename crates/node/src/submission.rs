//! What goes into the node and what comes back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use smallvec::SmallVec;
use tenantry_sched::{Phase, RejectReason};
use tenantry_types::{DeploymentId, KeyId, MonotonicTime, PlacementId, Priority, RequestId, TaskId, TenantId, Tensor};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use crate::data_plane::Node;
use crate::meter::Meter;
use crate::minimum::Shortfall;

/// One request, resolved and checked against the version's signature.
#[derive(Debug)]
pub struct Submission {
    /// Which version in which trust domain, from [`Node::placement`].
    pub placement: PlacementId,
    /// Who pays.
    pub tenant: TenantId,
    /// The model's deployment.
    pub deployment: DeploymentId,
    /// The key it came with.
    pub key: Option<KeyId>,
    /// The request's name in logs.
    pub request: RequestId,
    /// Is told what it uses.
    pub meter: Option<Arc<dyn Meter>>,
    /// Every input of the signature once, in any order.
    pub inputs: Vec<Tensor>,
    /// Positions of the wanted outputs in the signature; empty means all.
    pub outputs: SmallVec<[u16; 4]>,
    /// When the answer is worthless.
    pub deadline: Option<MonotonicTime>,
    /// Whether it may be ended and run again for a reservation. Heeded for best-effort tenants only.
    pub abortable: bool,
    /// Its place among the requests of its flow.
    pub priority: Priority,
}

/// Where a request's time went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// From submission to dispatch.
    pub queue_wait: Duration,
    /// This request's share of the batch's slot time; the shares of a batch add up to it exactly.
    pub device_time: Duration,
    /// The rest of the batch's slot time, which its batch mates were charged for: this request waited for them, too.
    pub batch_wait: Duration,
    /// The whole batch's slot time.
    pub batch_time: Duration,
    /// How long the batch was stopped in its middle for somebody's reservation. Nobody is charged for it.
    pub suspended: Duration,
    /// This request's rows; 1 where requests are not joined.
    pub rows: u32,
    /// Rows in the batch.
    pub batch_rows: u32,
    /// Under which promise it ran.
    pub phase: Phase,
}

/// The outputs of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// In the order asked for.
    pub outputs: Vec<Tensor>,
    /// Where the time went.
    pub timing: Timing,
}

/// Why a request has no answer. Texts come from engines and are sanitised already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The scheduler did not take it.
    #[error("the request was not taken: {}", reason.as_str())]
    Refused {
        /// Why, and so whose fault it is.
        reason: RejectReason,
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The deadline passed.
    #[error("the deadline passed before the answer was ready")]
    Expired,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
    /// The engine refused this request's data.
    #[error("{0}")]
    InvalidInput(String),
    /// The worker died, hung or broke the protocol while it computed this request.
    #[error("{0}")]
    ModelFailed(String),
    /// Workers died over this input; it is refused for a while.
    #[error("{reason}")]
    PoisonInput {
        /// What happened.
        reason: String,
        /// When it would be tried again.
        retry_after: Duration,
    },
    /// The model died too often; it is tried again later.
    #[error("{reason}")]
    Quarantined {
        /// What happened.
        reason: String,
        /// When it is tried again.
        retry_after: Duration,
    },
    /// Workers are kept apart less well than somebody concerned demands.
    #[error("{0}")]
    BelowMinimum(Shortfall),
    /// The model was taken away while the request waited.
    #[error("the model was unloaded while the request waited")]
    Gone,
    /// This machine has no memory for the request now.
    #[error("the server is short of memory")]
    Overloaded,
    /// What it uses could not be recorded, so it was not run.
    #[error("the server cannot record usage")]
    Unrecorded,
    /// The caller stopped waiting.
    #[error("cancelled")]
    Cancelled,
}

/// The answer to come. Dropping it cancels the request.
#[must_use = "dropping a reply cancels its request"]
pub struct Reply {
    state: State,
}

enum State {
    /// Refused before it was queued.
    Refused(Option<ServeError>),
    Waiting {
        node: Arc<Node>,
        task: TaskId,
        receiver: oneshot::Receiver<Result<Answer, ServeError>>,
        deadline: Option<MonotonicTime>,
        // Made on the first wait that does not end at once: most answers never need a timer.
        timer: Option<Pin<Box<Sleep>>>,
    },
    Done,
}

impl Reply {
    pub(crate) fn refused(error: ServeError) -> Self {
        Self { state: State::Refused(Some(error)) }
    }

    pub(crate) fn waiting(
        node: Arc<Node>,
        task: TaskId,
        receiver: oneshot::Receiver<Result<Answer, ServeError>>,
        deadline: Option<MonotonicTime>,
    ) -> Self {
        Self { state: State::Waiting { node, task, receiver, deadline, timer: None } }
    }

    fn cancel(&mut self) {
        if let State::Waiting { node, task, mut receiver, .. } = std::mem::replace(&mut self.state, State::Done) {
            // First: a request that comes back from a batch is not filed again for somebody who has gone.
            receiver.close();
            node.cancel(task);
        }
    }
}

impl Future for Reply {
    type Output = Result<Answer, ServeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.state {
            State::Done => return Poll::Ready(Err(ServeError::Cancelled)),
            State::Refused(error) => Some(Err(error.take().unwrap_or(ServeError::Cancelled))),
            State::Waiting { node, receiver, deadline, timer, .. } => match Pin::new(receiver).poll(context) {
                Poll::Ready(Ok(outcome)) => Some(outcome),
                // The sender is dropped without an answer only when the node itself is torn down.
                Poll::Ready(Err(_)) => Some(Err(ServeError::Draining)),
                Poll::Pending => {
                    let Some(deadline) = *deadline else { return Poll::Pending };
                    let timer =
                        timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(node.clock.instant(deadline))));
                    if timer.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    // It may be running; nobody waits for it any more.
                    None
                }
            },
        };
        match outcome {
            Some(outcome) => {
                self.state = State::Done;
                Poll::Ready(outcome)
            }
            None => {
                self.cancel();
                Poll::Ready(Err(ServeError::Expired))
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.cancel();
    }
}
