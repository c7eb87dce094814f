//! What share of the processors a worker has where more wants to run than there are processors for.
//!
//! The scheduler divides slots; the kernel divides processors, and would by itself give a worker more the more threads it
//! runs. In control groups it goes by weights instead, and these follow the tenants' shares.

use std::collections::BTreeMap;

use tenantry_jail::DEFAULT_CPU_WEIGHT;
use tenantry_sched::{Share, Subject, Tier, Weight};
use tenantry_types::{DataOwner, TenantId, TrustDomain};

use crate::worker::Purpose;

/// By how much the weight of a guaranteed tenant is multiplied and that of a best-effort one divided, so that a promise is
/// kept beside three others as busy as it (measured: `docs/adr/0008-control-groups.md`).
const TIER_FACTOR: u64 = 4;
/// The weight of a worker that registers: about what its nice value gives it where there are no groups.
const REGISTRATION_WEIGHT: u16 = 5;
/// The bounds of the kernel.
const WEIGHTS: std::ops::RangeInclusive<u64> = 1..=10_000;

/// The share tree as far as the kernel is told of it: organisations and tenants.
#[derive(Debug, Default)]
pub(crate) struct CpuWeights {
    shares: BTreeMap<Subject, Share>,
}

impl CpuWeights {
    /// Takes a change; whether any weight may be another now.
    pub(crate) fn change(&mut self, subject: Subject, share: Option<Share>) -> bool {
        if !matches!(subject, Subject::Organisation(_) | Subject::Tenant(_)) {
            return false;
        }
        let before = match share {
            Some(share) => self.shares.insert(subject, share),
            None => self.shares.remove(&subject),
        };
        before != share
    }

    /// The weight of a worker of this domain.
    pub(crate) fn of(&self, domain: TrustDomain, purpose: Purpose) -> u16 {
        if purpose == Purpose::Registration {
            return REGISTRATION_WEIGHT;
        }
        match domain.data_owner {
            DataOwner::Tenant(tenant) => self.of_tenant(tenant),
            // It serves whoever comes, and may not serve any of them worse than a worker of his own would.
            DataOwner::Any => {
                let tenants = self.shares.keys().filter_map(|subject| match subject {
                    Subject::Tenant(tenant) => Some(self.of_tenant(*tenant)),
                    _ => None,
                });
                tenants.max().map_or(DEFAULT_CPU_WEIGHT, |most| most.max(DEFAULT_CPU_WEIGHT))
            }
        }
    }

    fn of_tenant(&self, tenant: TenantId) -> u16 {
        let share = self.shares.get(&Subject::Tenant(tenant)).copied().unwrap_or_default();
        let mut milli = u64::from(share.weight.milli());
        if let Some(organisation) = share.organisation {
            // Its part of the organisation's weight, however many tenants that is divided into.
            let whole =
                self.shares.get(&Subject::Organisation(organisation)).map_or(Weight::DEFAULT, |whole| whole.weight);
            let members = self.shares.iter().filter(|(subject, share)| {
                matches!(subject, Subject::Tenant(_)) && share.organisation == Some(organisation)
            });
            let sum: u64 = members.map(|(_, share)| u64::from(share.weight.milli())).sum();
            milli = milli * u64::from(whole.milli()) / sum.max(1);
        }
        let weight = milli * u64::from(DEFAULT_CPU_WEIGHT) / u64::from(Weight::DEFAULT.milli());
        let weight = match share.tier.unwrap_or_default() {
            Tier::Guaranteed => weight * TIER_FACTOR,
            Tier::Burstable => weight,
            Tier::BestEffort => weight / TIER_FACTOR,
        };
        u16::try_from(weight.clamp(*WEIGHTS.start(), *WEIGHTS.end())).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tenantry_types::OrganisationId;

    use super::*;

    fn tenant(number: u64) -> TenantId {
        TenantId::from_parts(number, [0; 10])
    }

    fn weight(weights: &CpuWeights, tenant: TenantId) -> u16 {
        let domain = TrustDomain { model_owner: tenant, data_owner: DataOwner::Tenant(tenant) };
        weights.of(domain, Purpose::Serving)
    }

    fn share(milli: u32, tier: Tier, organisation: Option<OrganisationId>) -> Option<Share> {
        Some(Share { weight: Weight::from_milli(milli), tier: Some(tier), organisation, ..Share::default() })
    }

    #[test]
    fn weights_follow_shares() {
        let mut weights = CpuWeights::default();
        assert_eq!(weight(&weights, tenant(1)), 100);
        assert!(weights.change(Subject::Tenant(tenant(1)), share(2_000, Tier::Burstable, None)));
        assert!(!weights.change(Subject::Tenant(tenant(1)), share(2_000, Tier::Burstable, None)), "the same again");
        assert!(weights.change(Subject::Tenant(tenant(2)), share(1_000, Tier::Guaranteed, None)));
        assert!(weights.change(Subject::Tenant(tenant(3)), share(1_000, Tier::BestEffort, None)));
        let found = [1, 2, 3, 4].map(|number| weight(&weights, tenant(number)));
        assert_eq!(found, [200, 400, 25, 100]);
        assert!(weights.change(Subject::Tenant(tenant(1)), None));
        assert_eq!(weight(&weights, tenant(1)), 100);
        // The kernel's bounds.
        weights.change(Subject::Tenant(tenant(1)), share(1_000_000, Tier::Guaranteed, None));
        weights.change(Subject::Tenant(tenant(2)), share(1, Tier::BestEffort, None));
        assert_eq!((weight(&weights, tenant(1)), weight(&weights, tenant(2))), (10_000, 1));
    }

    #[test]
    fn dividing_an_organisation_gains_nothing() {
        let organisation = OrganisationId::from_parts(9, [0; 10]);
        let mut weights = CpuWeights::default();
        weights.change(Subject::Organisation(organisation), share(3_000, Tier::Burstable, None));
        weights.change(Subject::Tenant(tenant(1)), share(1_000, Tier::Burstable, Some(organisation)));
        assert_eq!(weight(&weights, tenant(1)), 300);
        weights.change(Subject::Tenant(tenant(2)), share(2_000, Tier::Burstable, Some(organisation)));
        assert_eq!((weight(&weights, tenant(1)), weight(&weights, tenant(2))), (100, 200));
    }

    #[test]
    fn a_shared_worker_is_as_heavy_as_whoever_it_serves_and_a_registration_light() {
        let mut weights = CpuWeights::default();
        let shared = TrustDomain { model_owner: tenant(1), data_owner: DataOwner::Any };
        assert_eq!(weights.of(shared, Purpose::Serving), 100);
        weights.change(Subject::Tenant(tenant(2)), share(1_000, Tier::Guaranteed, None));
        assert_eq!(weights.of(shared, Purpose::Serving), 400);
        assert_eq!(weights.of(shared, Purpose::Registration), REGISTRATION_WEIGHT);
    }
}
