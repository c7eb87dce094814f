//! Asking Cedar.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::str::FromStr;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};
use tenantry_types::{Action, ActionSet, CustomRole, ModelName, Role};

use crate::{Grants, Relation};

const ROLES: &str = include_str!("roles.cedar");
/// What the principal's tenant and another one are called while it is asked; nothing depends on more than whether they differ.
const OWN: &str = "own";
const OTHER: &str = "other";
/// The model that stands for all that no custom role names. No name of a model has a star in it.
const ANY_MODEL: &str = "*";

/// A policy, entity or question that Cedar does not take. Those of this crate are fixed texts, so it is a fault of the program.
#[derive(Debug, thiserror::Error)]
#[error("a policy cannot be read: {0}")]
pub struct PolicyError(String);

/// The policies of the built-in roles.
#[derive(Debug)]
pub struct Policies {
    built_in: PolicySet,
    authorizer: Authorizer,
}

impl Policies {
    /// Reads them.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new() -> Result<Self, PolicyError> {
        Ok(Self { built_in: ROLES.parse().map_err(error)?, authorizer: Authorizer::new() })
    }

    /// Everything a set of roles allows. `operator`: whether it is one in the operator's tenant. `custom`: the roles that the
    /// tenant made; a role that is not among them allows nothing.
    ///
    /// Asks some 60 questions, and six more for each model a custom role names, each some ten microseconds: meant to be kept.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn grants(&self, roles: &[Role], operator: bool, custom: &[CustomRole]) -> Result<Grants, PolicyError> {
        let known = custom.iter().filter(|known| roles.iter().any(|role| *role == Role::Custom(known.name.clone())));
        let known: Vec<&CustomRole> = known.collect();
        let policies = self.with(&known)?;
        let asked = Asked { policies: &policies, authorizer: &self.authorizer, principal: principal(roles, operator)? };
        let mut grants = Grants::default();
        for (relation, allowed) in Relation::ALL.into_iter().zip(&mut grants.general) {
            *allowed = asked.all(Action::ALL, relation, ANY_MODEL)?;
        }
        let named: BTreeSet<&ModelName> = known.iter().filter_map(|role| role.models.as_ref()).flatten().collect();
        for model in named {
            let of_models = Action::ALL.into_iter().filter(|action| action.is_of_models());
            grants.named.insert(model.clone(), asked.all(of_models, Relation::Own, model.as_str())?);
        }
        Ok(grants)
    }

    /// The built-in policies and those of some custom roles.
    fn with(&self, custom: &[&CustomRole]) -> Result<PolicySet, PolicyError> {
        let mut policies = self.built_in.clone();
        for role in custom.iter().filter(|role| !role.actions.is_empty()) {
            let own: PolicySet = text_of(role).parse().map_err(error)?;
            for policy in own.policies() {
                policies.add(policy.new_id(format!("custom/{}", role.name).parse().map_err(error)?)).map_err(error)?;
            }
        }
        Ok(policies)
    }
}

/// One principal, asked about.
struct Asked<'a> {
    policies: &'a PolicySet,
    authorizer: &'a Authorizer,
    principal: Entity,
}

impl Asked<'_> {
    fn all(
        &self,
        actions: impl IntoIterator<Item = Action>,
        relation: Relation,
        model: &str,
    ) -> Result<ActionSet, PolicyError> {
        let mut allowed = Vec::new();
        for action in actions {
            if self.allows(action, relation, model)? {
                allowed.push(action);
            }
        }
        Ok(allowed.into_iter().collect())
    }

    fn allows(&self, action: Action, relation: Relation, model: &str) -> Result<bool, PolicyError> {
        // Only models are shared, and the platform is nobody else's.
        let is_a_case = match relation {
            Relation::Own => true,
            Relation::Shared => action.is_of_models(),
            Relation::Other => !matches!(action, Action::PlatformRead | Action::PlatformWrite),
        };
        if !is_a_case {
            return Ok(false);
        }
        let resource = resource(action, relation, model)?;
        let request =
            Request::new(self.principal.uid(), uid("Action", action.as_str())?, resource.uid(), Context::empty(), None);
        let request = request.map_err(error)?;
        let entities = Entities::from_entities([self.principal.clone(), resource], None).map_err(error)?;
        let response = self.authorizer.is_authorized(&request, self.policies, &entities);
        Ok(response.decision() == Decision::Allow && response.diagnostics().errors().next().is_none())
    }
}

fn principal(roles: &[Role], operator: bool) -> Result<Entity, PolicyError> {
    let attributes = HashMap::from([
        ("tenant".to_owned(), RestrictedExpression::new_string(OWN.to_owned())),
        ("operator".to_owned(), RestrictedExpression::new_bool(operator)),
    ]);
    let roles: HashSet<EntityUid> = roles.iter().map(|role| uid("Role", role.as_str())).collect::<Result<_, _>>()?;
    Entity::new(uid("Principal", "caller")?, attributes, roles).map_err(error)
}

fn resource(action: Action, relation: Relation, model: &str) -> Result<Entity, PolicyError> {
    let text = |value: &str| RestrictedExpression::new_string(value.to_owned());
    let owner = if relation == Relation::Own { OWN } else { OTHER };
    let mut attributes = HashMap::from([("owner".to_owned(), text(owner))]);
    let kind = if action.is_of_models() {
        let tenants = (relation == Relation::Shared).then(|| text(OWN));
        attributes.extend([
            ("name".to_owned(), text(model)),
            ("everyone".to_owned(), RestrictedExpression::new_bool(false)),
            ("tenants".to_owned(), RestrictedExpression::new_set(tenants)),
        ]);
        "Model"
    } else if matches!(action, Action::PlatformRead | Action::PlatformWrite) {
        "Platform"
    } else {
        "Tenant"
    };
    Entity::new(uid(kind, "thing")?, attributes, HashSet::new()).map_err(error)
}

/// A custom role as a policy. Names of roles, models and actions have no character that means something in one.
fn text_of(role: &CustomRole) -> String {
    let list = |words: Vec<&str>, of: &str| {
        words.into_iter().map(|word| format!("{of}\"{word}\"")).collect::<Vec<_>>().join(", ")
    };
    let actions = list(role.actions.iter().map(|action| action.as_str()).collect(), "Action::");
    let things = match &role.models {
        None => "resource.owner == principal.tenant ||
             (resource is Model && (resource.everyone || resource.tenants.contains(principal.tenant)))"
            .to_owned(),
        Some(models) if models.is_empty() => "resource.owner == principal.tenant && !(resource is Model)".to_owned(),
        Some(models) => format!(
            "resource.owner == principal.tenant && (!(resource is Model) || [{}].contains(resource.name))",
            list(models.iter().map(ModelName::as_str).collect(), "")
        ),
    };
    format!("permit (principal in Role::\"{}\", action in [{actions}], resource) when {{ {things} }};", role.name)
}

fn uid(kind: &str, id: &str) -> Result<EntityUid, PolicyError> {
    let id = EntityId::new(id);
    Ok(EntityUid::from_type_name_and_id(EntityTypeName::from_str(kind).map_err(error)?, id))
}

fn error(cause: impl std::fmt::Display) -> PolicyError {
    PolicyError(cause.to_string())
}

#[cfg(test)]
mod tests;
