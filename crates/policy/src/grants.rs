//! What a set of roles comes to.

use std::collections::BTreeMap;

use tenantry_types::{Action, ActionSet, ModelName};

/// What a thing is to a principal's tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// Its own, or the platform's where the action is about that.
    Own,
    /// Another tenant's, who shares it: models only.
    Shared,
    /// Another tenant's.
    Other,
}

impl Relation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Own, Self::Shared, Self::Other];

    const fn index(self) -> usize {
        self as usize
    }
}

/// The actions in each relation.
pub(crate) type ByRelation = [ActionSet; Relation::ALL.len()];

/// Everything a set of roles allows, decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    pub(crate) general: ByRelation,
    /// Models of its own that a custom role names; all others are in `general`.
    pub(crate) named: BTreeMap<ModelName, ActionSet>,
}

impl Grants {
    /// Whether this is allowed; about models in general: of those that no role names.
    pub fn allows(&self, action: Action, relation: Relation) -> bool {
        self.general.get(relation.index()).is_some_and(|actions| actions.contains(action))
    }

    /// Whether this is allowed for a model.
    pub fn allows_model(&self, action: Action, relation: Relation, model: &ModelName) -> bool {
        if relation == Relation::Own
            && !self.named.is_empty()
            && let Some(actions) = self.named.get(model)
        {
            return actions.contains(action);
        }
        self.allows(action, relation)
    }

    /// Whether all that the others allow is allowed by these.
    pub fn covers(&self, others: &Self) -> bool {
        let general = self.general.iter().zip(&others.general);
        let named = self.named.keys().chain(others.named.keys());
        general.clone().all(|(own, other)| own.covers(*other))
            && named.into_iter().all(|model| {
                let own = |grants: &Self| {
                    let own = Relation::Own.index();
                    grants.named.get(model).or_else(|| grants.general.get(own)).copied().unwrap_or_default()
                };
                own(self).covers(own(others).of_models())
            })
    }

    /// What is left of it within a set of actions.
    #[must_use]
    pub fn within(&self, actions: ActionSet) -> Self {
        let named = self.named.iter().map(|(model, allowed)| (model.clone(), allowed.and(actions)));
        Self { general: self.general.map(|allowed| allowed.and(actions)), named: named.collect() }
    }
}
