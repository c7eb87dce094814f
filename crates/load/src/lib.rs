//! Load of several tenants at once, sent over HTTP/1.1 and measured so that waiting is not left out.
//!
//! Each tenant's [`Stream`] has arrivals of its own: at a constant rate, Poisson, as recorded, or a closed loop of many
//! connections. All but the last are *open*: when a request is due does not depend on how the server is doing, and its
//! latency counts from the time it was due. A generator that measures from the time it got round to sending leaves out
//! exactly the waiting that an overloaded server causes ("coordinated omission"). Where all connections of an open
//! stream are busy, what is due waits for one of them, and that wait counts; what is due longer than its timeout is
//! given up unsent, as a client would have given up, and counts as late.
//!
//! [`run`] drives a [`Plan`]: open streams on one thread, closed loops on another with a lower priority, so that the
//! flood of one tenant does not delay the clock another one is measured by. Everything is bounded: connections by the
//! plan, queues by there being none (an idle connection fetches the next arrival), histograms by their range.
#![forbid(unsafe_code)]

mod arrivals;
mod connection;
mod file;
mod inputs;
mod pacer;
mod random;
mod report;
mod request;
mod run;
mod trace;

pub use arrivals::{Arrival, Arrivals, Offsets};
pub use connection::{Answer, CallError, Connection, MAX_ANSWER_BYTES, Refusal, call_once};
pub use file::{FileError, PlanFile, Spread, TenantEntry};
pub use inputs::{InputError, InputMetadata, ModelMetadata, random_inputs};
pub use random::SplitMix64;
pub use report::{Latency, Report, StreamReport};
pub use request::Request;
pub use run::{MAX_CONNECTIONS, MAX_PER_SECOND, Plan, Progress, RunError, Stream, run};
pub use trace::{TraceError, TraceRow, read_trace};
