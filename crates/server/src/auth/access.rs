//! What sets of roles come to, kept: asking the policies takes a millisecond, and there are few sets.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tenantry_policy::{Grants, Policies, PolicyError};
use tenantry_types::{CustomRole, Role};

/// How many sets are kept before all are forgotten.
const MAX_SETS: usize = 4_096;

/// The policies, and what was asked of them.
#[derive(Debug)]
pub(crate) struct Access {
    policies: Policies,
    known: Mutex<HashMap<Set, Arc<Grants>>>,
}

/// A set of roles, and what those of them are that a tenant made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Set {
    operator: bool,
    roles: Vec<Role>,
    custom: Vec<CustomRole>,
}

impl Access {
    /// # Errors
    /// A fault of the program: the policies are part of it.
    pub(crate) fn new() -> Result<Self, PolicyError> {
        Ok(Self { policies: Policies::new()?, known: Mutex::default() })
    }

    /// What roles come to in a tenant that made these. A fault of the policies allows nothing, and is logged.
    pub(crate) fn grants(&self, roles: &[Role], operator: bool, custom: &[CustomRole]) -> Arc<Grants> {
        let has =
            |known: &&CustomRole| roles.iter().any(|role| matches!(role, Role::Custom(name) if *name == known.name));
        let set = Set { operator, roles: roles.to_vec(), custom: custom.iter().filter(has).cloned().collect() };
        if let Some(known) = self.known.lock().get(&set) {
            return Arc::clone(known);
        }
        let asked = self.policies.grants(&set.roles, operator, &set.custom).unwrap_or_else(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "roles allow nothing");
            Grants::default()
        });
        let grants = Arc::new(asked);
        let mut known = self.known.lock();
        if known.len() >= MAX_SETS {
            known.clear();
        }
        known.insert(set, Arc::clone(&grants));
        grants
    }
}
