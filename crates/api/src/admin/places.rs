//! How many bodies of one tenant's calls are being read at a time. Each is held in memory whole, and over HTTP/2 one connection may
//! bring hundreds that never come to their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_types::{ErrorCode, ServiceError, TenantId};

/// The most bodies of one tenant.
const MAX_BODIES: u32 = 64;
/// When one that was not let in may be tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The bodies that are being read, by tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<TenantId, u32>>>);

/// One body's, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    tenant: TenantId,
}

impl Places {
    /// # Errors
    /// 429 where a tenant has all it may have. Nobody waits: what has come of waiting ones would take their connection's window.
    pub(super) fn enter(&self, tenant: TenantId) -> Result<Place, ServiceError> {
        let mut taken = self.0.lock();
        let count = taken.entry(tenant).or_default();
        if *count >= MAX_BODIES {
            let text =
                format!("{MAX_BODIES} admin calls of this tenant are sending their bodies; wait for some of them");
            return Err(ServiceError::new(ErrorCode::ResourceExhausted, text).retry_after(RETRY));
        }
        *count += 1;
        Ok(Place { places: self.clone(), tenant })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        if let Some(count) = taken.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_own_places_and_gets_them_back() {
        let places = Places::default();
        let [one, other] = [1, 2].map(|tenant| TenantId::from_parts(tenant, [0; 10]));
        let mut held: Vec<Place> = (0..MAX_BODIES).map(|_| places.enter(one).unwrap()).collect();
        assert_eq!(places.enter(one).unwrap_err().code, ErrorCode::ResourceExhausted);
        places.enter(other).unwrap();
        held.pop();
        held.push(places.enter(one).unwrap());
        places.enter(one).unwrap_err();
        drop(held);
        assert!(places.0.lock().is_empty());
    }
}
