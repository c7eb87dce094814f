//! Where long conversions run: beside the reactor, a bounded number at a time, so that one client's 60 MB of JSON delays
//! nobody's small request.

use std::sync::Arc;

use tenantry_types::ServiceError;
use tokio::sync::Semaphore;

/// Bodies of JSON above this size are decoded in the pool, bytes: about a millisecond of work.
pub(crate) const LONG_JSON_BYTES: usize = 256 << 10;
/// Other bodies above this size are decoded in the pool, bytes: their data is only checked where it has a form.
pub(crate) const LONG_BINARY_BYTES: usize = 1 << 20;

/// The pool.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    places: Arc<Semaphore>,
}

impl Pool {
    /// A pool that works on at most `places` conversions at a time; others wait in order of arrival.
    pub(crate) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places.max(1))) }
    }

    /// Runs `work` in the pool if it is long, here if it is not.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        is_long: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ServiceError> {
        if !is_long {
            return Ok(work());
        }
        // Nobody closes the semaphore. The place goes with the work, which runs to its end even if its client leaves.
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| ServiceError::internal())?;
        let worked = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        worked.await.map_err(|error| {
            tracing::error!(%error, "a conversion in the pool did not end");
            ServiceError::internal()
        })
    }
}
