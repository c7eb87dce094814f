//! The share tree: weighted start-time fair queueing in measured device time, the same rule at every node.
//!
//! Each node has a virtual time `v`: the device time it was served, divided by its weight. Among siblings with work the
//! one with the smallest `v` is next. A node that begins to have work starts at its parent's virtual clock `V`, so what
//! it did not use while it was idle is gone (no banked credit). Source: Goyal, Vin, Cheng, "Start-time Fair Queueing",
//! 1996; retroactive charging as in Mace et al., "2DFQ", 2016.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustc_hash::FxHashMap;
use slab::Slab;
use tenantry_types::{DeploymentId, KeyId, MonotonicTime, OrganisationId, TenantId};

use crate::queue::{LineId, Turn};
use crate::share::{DeviceTimeLimit, Share, SlotGroup, Subject, Tier, Weight};

/// A node, as the tree numbers it.
pub(crate) type NodeId = usize;

/// Virtual time: nanoseconds of device time at weight 1, in 65,536ths, so that a division leaves little over.
pub(crate) type Virtual = i128;

const FRACTION: i128 = 1 << 16;
/// What a turn counts where turns are counted.
pub(crate) const TURN: Virtual = FRACTION;
/// The weight of the best-effort class beside the tenants of the other tiers.
const BEST_EFFORT_WEIGHT: Weight = Weight::from_milli(10);
/// Idle nodes beyond the ones in use that are kept before a sweep.
const IDLE_NODES_KEPT: usize = 1024;

/// A length of virtual time, for the window.
pub(crate) fn virtual_time(device_time: Duration) -> Virtual {
    i128::try_from(device_time.as_nanos()).unwrap_or(i128::MAX >> 20).saturating_mul(FRACTION)
}

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    Root(SlotGroup),
    BestEffort(SlotGroup),
    Organisation(SlotGroup, OrganisationId),
    Tenant(TenantId),
    Deployment(TenantId, Option<DeploymentId>),
    /// Where tasks wait. The key only where it has settings of its own.
    Flow(TenantId, Option<DeploymentId>, Option<KeyId>),
}

impl Key {
    fn subject(self) -> Option<Subject> {
        match self {
            Self::Root(_) | Self::BestEffort(_) => None,
            Self::Organisation(_, organisation) => Some(Subject::Organisation(organisation)),
            Self::Tenant(tenant) => Some(Subject::Tenant(tenant)),
            Self::Deployment(tenant, deployment) => Some(Subject::Deployment(tenant, deployment?)),
            Self::Flow(tenant, _, key) => Some(Subject::Key(tenant, key?)),
        }
    }
}

/// A token bucket in device time: what was used, as the instant by which the rate will have allowed it.
#[derive(Debug, Clone, Copy)]
struct Limit {
    settings: DeviceTimeLimit,
    used_up_to_ns: i128,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) key: Key,
    pub(crate) parent: Option<NodeId>,
    pub(crate) weight: Weight,
    v: Virtual,
    /// What a division by the weight left over, in units of `FRACTION / 1000` of a nanosecond.
    remainder: i128,
    /// The virtual clock of its children; never runs backwards.
    clock: Virtual,
    /// Children with work, by virtual time; of equal ones the one served longest ago.
    active: BTreeSet<(Virtual, u64, NodeId)>,
    /// Sum of the weights of `active`.
    active_weight: u64,
    is_active: bool,
    /// Counts services: when it was last served.
    served: u64,
    children: u32,
    limit: Option<Limit>,
    /// Device time charged since the start.
    pub(crate) charged_ns: i128,
    /// Device time of others that was wasted for it.
    pub(crate) wasted_ns: u64,
    /// Tasks below it that wait or run.
    pub(crate) queued: u32,
    pub(crate) queued_bytes: u64,
    pub(crate) queued_cost_ns: u64,
    pub(crate) running: u32,
    /// For a flow: the first task of each of its lines that a loaded replica could run.
    pub(crate) heads: BTreeSet<(Turn, LineId)>,
}

impl Node {
    fn new(key: Key, parent: Option<NodeId>, weight: Weight) -> Self {
        Self {
            key,
            parent,
            weight,
            v: 0,
            remainder: 0,
            clock: 0,
            active: BTreeSet::new(),
            active_weight: 0,
            is_active: false,
            served: 0,
            children: 0,
            limit: None,
            charged_ns: 0,
            wasted_ns: 0,
            queued: 0,
            queued_bytes: 0,
            queued_cost_ns: 0,
            running: 0,
            heads: BTreeSet::new(),
        }
    }

    fn entry(&self, id: NodeId) -> (Virtual, u64, NodeId) {
        (self.v, self.served, id)
    }

    /// Children with work, the next one first.
    pub(crate) fn next_children(&self) -> impl Iterator<Item = NodeId> {
        self.active.iter().map(|&(_, _, child)| child)
    }
}

/// All nodes, and the settings of those that have any.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Slab<Node>,
    index: FxHashMap<Key, NodeId>,
    settings: FxHashMap<Subject, Share>,
    /// Tenants with settings for a key: their tasks go by key.
    keyed: BTreeMap<TenantId, u32>,
    services: u64,
    sweep_at: usize,
}

impl Tree {
    pub(crate) fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(|(_, node)| node)
    }

    pub(crate) fn settings(&self, subject: &Subject) -> Option<&Share> {
        self.settings.get(subject)
    }

    /// Whether any key of the tenant has settings.
    fn is_keyed(&self, tenant: TenantId) -> bool {
        self.keyed.contains_key(&tenant)
    }

    pub(crate) fn group_of(&self, tenant: TenantId) -> SlotGroup {
        self.settings.get(&Subject::Tenant(tenant)).map(|share| share.group).unwrap_or_default()
    }

    /// The tier of a flow: the key's, the deployment's or the tenant's, in this order.
    pub(crate) fn tier(&self, tenant: TenantId, deployment: Option<DeploymentId>, key: Option<KeyId>) -> Tier {
        if self.settings.is_empty() {
            return Tier::default();
        }
        let of = |subject| self.settings.get(&subject).and_then(|share: &Share| share.tier);
        key.and_then(|key| of(Subject::Key(tenant, key)))
            .or_else(|| of(Subject::Deployment(tenant, deployment?)))
            .or_else(|| of(Subject::Tenant(tenant)))
            .unwrap_or_default()
    }

    /// The root of a group's tree.
    pub(crate) fn root(&mut self, group: SlotGroup) -> NodeId {
        self.node(Key::Root(group))
    }

    pub(crate) fn find(&self, key: &Key) -> Option<NodeId> {
        self.index.get(key).copied()
    }

    /// The node where such tasks wait; made where it is missing.
    pub(crate) fn flow(&mut self, tenant: TenantId, deployment: Option<DeploymentId>, key: Option<KeyId>) -> NodeId {
        let key = key.filter(|&key| self.is_keyed(tenant) && self.settings.contains_key(&Subject::Key(tenant, key)));
        self.node(Key::Flow(tenant, deployment, key))
    }

    fn parent_key(&self, key: Key) -> Option<Key> {
        Some(match key {
            Key::Root(_) => return None,
            Key::BestEffort(group) | Key::Organisation(group, _) => Key::Root(group),
            Key::Tenant(tenant) => {
                let share = self.settings.get(&Subject::Tenant(tenant)).copied().unwrap_or_default();
                match (share.tier, share.organisation) {
                    (Some(Tier::BestEffort), _) => Key::BestEffort(share.group),
                    (_, Some(organisation)) => Key::Organisation(share.group, organisation),
                    _ => Key::Root(share.group),
                }
            }
            Key::Deployment(tenant, _) => Key::Tenant(tenant),
            Key::Flow(tenant, deployment, _) => Key::Deployment(tenant, deployment),
        })
    }

    fn node(&mut self, key: Key) -> NodeId {
        if let Some(&id) = self.index.get(&key) {
            return id;
        }
        let parent = self.parent_key(key).map(|parent| self.node(parent));
        let weight = match key {
            Key::BestEffort(_) => BEST_EFFORT_WEIGHT,
            _ => key
                .subject()
                .and_then(|subject| self.settings.get(&subject))
                .map(|share| share.weight)
                .unwrap_or_default(),
        };
        let mut node = Node::new(key, parent, weight);
        node.limit = self.limit_of(key);
        let id = self.nodes.insert(node);
        if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
            parent.children += 1;
        }
        self.index.insert(key, id);
        id
    }

    fn limit_of(&self, key: Key) -> Option<Limit> {
        let settings = self.settings.get(&key.subject()?)?.limit?;
        Some(Limit { settings, used_up_to_ns: 0 })
    }

    /// Changes settings. Answers whether nodes have to move, which [`Tree::rehang`] does once nothing hangs on them.
    pub(crate) fn set(&mut self, subject: Subject, share: Option<Share>) -> bool {
        let old = match share {
            Some(share) => self.settings.insert(subject, share),
            None => self.settings.remove(&subject),
        };
        let (was, is) = (old.unwrap_or_default(), share.unwrap_or_default());
        if let Subject::Key(tenant, _) = subject {
            let count = self.keyed.entry(tenant).or_default();
            match (old, share) {
                (None, Some(_)) => *count += 1,
                (Some(_), None) => *count = count.saturating_sub(1),
                _ => {}
            }
            if *count == 0 {
                self.keyed.remove(&tenant);
            }
            if old.is_none() != share.is_none() {
                return true;
            }
        }
        let ids: Vec<NodeId> = match subject {
            // An organisation has a node in each group, a key one in each deployment.
            Subject::Organisation(_) | Subject::Key(..) => {
                self.index.iter().filter(|(key, _)| key.subject() == Some(subject)).map(|(_, &id)| id).collect()
            }
            Subject::Tenant(tenant) => self.find(&Key::Tenant(tenant)).into_iter().collect(),
            Subject::Deployment(tenant, deployment) => {
                self.find(&Key::Deployment(tenant, Some(deployment))).into_iter().collect()
            }
        };
        for id in ids {
            self.reweigh(id, is.weight);
            if was.limit != is.limit
                && let Some(node) = self.nodes.get_mut(id)
            {
                node.limit = is.limit.map(|settings| Limit { settings, used_up_to_ns: 0 });
            }
        }
        matches!(subject, Subject::Tenant(_))
            && (was.organisation, was.group, was.tier == Some(Tier::BestEffort))
                != (is.organisation, is.group, is.tier == Some(Tier::BestEffort))
    }

    fn reweigh(&mut self, id: NodeId, weight: Weight) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let old = std::mem::replace(&mut node.weight, weight);
        let (is_active, parent) = (node.is_active, node.parent);
        if is_active && let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
            parent.active_weight = parent.active_weight + u64::from(weight.milli()) - u64::from(old.milli());
        }
    }

    /// Hangs every node under the parent its settings ask for. No node may be active.
    pub(crate) fn rehang(&mut self) {
        let mut tenants: Vec<(Key, NodeId)> =
            self.index.iter().filter(|(key, _)| matches!(key, Key::Tenant(_))).map(|(&key, &id)| (key, id)).collect();
        tenants.sort_unstable();
        for (key, id) in tenants {
            let Some(parent) = self.parent_key(key).map(|parent| self.node(parent)) else { continue };
            let clock = self.nodes.get(parent).map_or(0, |node| node.clock);
            let Some(node) = self.nodes.get_mut(id) else { continue };
            if node.parent == Some(parent) {
                continue;
            }
            let old = node.parent.replace(parent);
            // Virtual times of different parents cannot be compared: it starts as a newcomer.
            node.v = clock;
            let totals = (node.queued, node.queued_bytes, node.queued_cost_ns, node.running);
            self.shift_totals(old, totals, false);
            self.shift_totals(Some(parent), totals, true);
            if let Some(old) = old.and_then(|old| self.nodes.get_mut(old)) {
                old.children = old.children.saturating_sub(1);
            }
            if let Some(parent) = self.nodes.get_mut(parent) {
                parent.children += 1;
            }
        }
    }

    fn shift_totals(&mut self, from: Option<NodeId>, (queued, bytes, cost, running): (u32, u64, u64, u32), add: bool) {
        let mut next = from;
        while let Some(node) = next.and_then(|id| self.nodes.get_mut(id)) {
            if add {
                node.queued = node.queued.saturating_add(queued);
                node.queued_bytes = node.queued_bytes.saturating_add(bytes);
                node.queued_cost_ns = node.queued_cost_ns.saturating_add(cost);
                node.running = node.running.saturating_add(running);
            } else {
                node.queued = node.queued.saturating_sub(queued);
                node.queued_bytes = node.queued_bytes.saturating_sub(bytes);
                node.queued_cost_ns = node.queued_cost_ns.saturating_sub(cost);
                node.running = node.running.saturating_sub(running);
            }
            next = node.parent;
        }
    }

    /// Counts a task that begins to wait (`add`) or waits no more, at its flow and everything above.
    pub(crate) fn count_queued(&mut self, flow: NodeId, bytes: u64, cost_ns: u64, add: bool) {
        self.shift_totals(Some(flow), (1, bytes, cost_ns, 0), add);
    }

    /// Counts so many tasks of a flow that wait no more and run.
    pub(crate) fn count_started(&mut self, flow: NodeId, tasks: u32, bytes: u64, cost_ns: u64) {
        let mut next = Some(flow);
        while let Some(node) = next.and_then(|id| self.nodes.get_mut(id)) {
            node.queued = node.queued.saturating_sub(tasks);
            node.queued_bytes = node.queued_bytes.saturating_sub(bytes);
            node.queued_cost_ns = node.queued_cost_ns.saturating_sub(cost_ns);
            node.running += tasks;
            next = node.parent;
        }
    }

    /// Counts so many tasks of a flow that run no more.
    pub(crate) fn count_done(&mut self, flow: NodeId, tasks: u32) {
        self.shift_totals(Some(flow), (0, 0, 0, tasks), false);
    }

    /// The flow has work that could run.
    pub(crate) fn activate(&mut self, flow: NodeId) {
        let mut id = flow;
        while let Some(node) = self.nodes.get(id)
            && !node.is_active
            && let Some(parent) = node.parent
        {
            let clock = self.nodes.get(parent).map_or(0, |parent| parent.clock);
            let Some(node) = self.nodes.get_mut(id) else { return };
            node.is_active = true;
            node.v = node.v.max(clock);
            let (entry, weight) = (node.entry(id), node.weight.milli());
            let Some(above) = self.nodes.get_mut(parent) else { return };
            above.active.insert(entry);
            above.active_weight += u64::from(weight);
            id = parent;
        }
    }

    /// The flow has no work that could run any more.
    pub(crate) fn deactivate(&mut self, flow: NodeId) {
        let mut id = flow;
        while let Some(node) = self.nodes.get_mut(id)
            && node.is_active
            && node.active.is_empty()
            && node.heads.is_empty()
            && let Some(parent) = node.parent
        {
            node.is_active = false;
            let (entry, weight) = (node.entry(id), node.weight.milli());
            let Some(above) = self.nodes.get_mut(parent) else { return };
            above.active.remove(&entry);
            above.active_weight = above.active_weight.saturating_sub(u64::from(weight));
            id = parent;
        }
    }

    /// Moves the virtual clocks up to what is served next: `flow`, from the root down.
    ///
    /// A clock follows the smallest virtual time of those with work. Where the one served is far ahead of it, the ones
    /// behind cannot use what is free (their worker is busy): the clock follows then, too, or it would stand still.
    pub(crate) fn advance_clocks(&mut self, flow: NodeId, window: Virtual) {
        self.services += 1;
        let services = self.services;
        let mut id = flow;
        while let Some(node) = self.nodes.get(id) {
            let (v, is_active, old) = (node.v, node.is_active, node.entry(id));
            let Some(parent) = node.parent else { return };
            let Some(above) = self.nodes.get_mut(parent) else { return };
            let first = above.active.first().map_or(v, |&(first, _, _)| first.min(v));
            above.clock = above.clock.max(first).max(v.saturating_sub(window));
            let lifted = v.max(above.clock.saturating_sub(window));
            if is_active {
                above.active.remove(&old);
                above.active.insert((lifted, services, id));
            }
            if let Some(node) = self.nodes.get_mut(id) {
                node.served = services;
                node.v = lifted;
            }
            id = parent;
        }
    }

    /// Whether a flow may be served out of turn: at no level further ahead than the window.
    pub(crate) fn is_within(&self, flow: NodeId, window: Virtual) -> bool {
        let mut id = flow;
        while let Some(node) = self.nodes.get(id) {
            let Some(above) = node.parent.and_then(|parent| self.nodes.get(parent)) else { return true };
            let first = above.active.first().map_or(above.clock, |&(first, _, _)| first.max(above.clock));
            if node.v > first.saturating_add(window) {
                return false;
            }
            let Some(parent) = node.parent else { return true };
            id = parent;
        }
        true
    }

    /// Charges device time, or takes some back. `by_weight`: it counts against the weight's share, too.
    pub(crate) fn charge(&mut self, flow: NodeId, device_ns: i64, by_weight: bool, now: MonotonicTime) {
        let mut next = Some(flow);
        while let Some(id) = next {
            let Some(node) = self.nodes.get_mut(id) else { return };
            node.charged_ns += i128::from(device_ns);
            if let Some(limit) = &mut node.limit {
                limit.charge(device_ns, now);
            }
            next = node.parent;
            if by_weight {
                self.charge_weight(id, i128::from(device_ns));
            }
        }
    }

    /// Charges what others used for nothing on a flow's behalf. It counts against weights (`by_weight`: whoever has others
    /// ended is served less of what is not reserved), not against limits: nobody can foresee it.
    pub(crate) fn charge_waste(&mut self, flow: NodeId, device_ns: u64, by_weight: bool) {
        let mut next = Some(flow);
        while let Some(id) = next {
            let Some(node) = self.nodes.get_mut(id) else { return };
            node.wasted_ns = node.wasted_ns.saturating_add(device_ns);
            next = node.parent;
            if by_weight {
                self.charge_weight(id, i128::from(device_ns));
            }
        }
    }

    /// Counts device time against a node's weight.
    fn charge_weight(&mut self, id: NodeId, device_ns: i128) {
        let Some(node) = self.nodes.get(id) else { return };
        let delta = device_ns * FRACTION * 1000 + node.remainder;
        let weight = i128::from(node.weight.milli());
        self.move_virtual(id, delta.div_euclid(weight), delta.rem_euclid(weight));
    }

    /// Charges one turn, whatever it takes: for the round-robin baseline.
    pub(crate) fn charge_turn(&mut self, flow: NodeId) {
        let mut next = Some(flow);
        while let Some(id) = next {
            next = self.nodes.get(id).and_then(|node| node.parent);
            self.move_virtual(id, TURN, 0);
        }
    }

    /// Counts device time, against limits only: for the baselines.
    pub(crate) fn count_charge(&mut self, flow: NodeId, device_ns: i64, now: MonotonicTime) {
        let mut next = Some(flow);
        while let Some(node) = next.and_then(|id| self.nodes.get_mut(id)) {
            node.charged_ns += i128::from(device_ns);
            if let Some(limit) = &mut node.limit {
                limit.charge(device_ns, now);
            }
            next = node.parent;
        }
    }

    /// Begins to count anew: what one policy counted means nothing to another. No node may be active.
    pub(crate) fn restart(&mut self) {
        for (_, node) in &mut self.nodes {
            (node.v, node.remainder, node.clock) = (0, 0, 0);
        }
    }

    fn move_virtual(&mut self, id: NodeId, delta: Virtual, remainder: i128) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let (old, is_active) = (node.entry(id), node.is_active);
        node.v += delta;
        node.remainder = remainder;
        let new = node.entry(id);
        if is_active
            && delta != 0
            && let Some(above) = node.parent.and_then(|parent| self.nodes.get_mut(parent))
        {
            above.active.remove(&old);
            above.active.insert(new);
        }
    }

    /// How long until a limit on the way up has room again for what waits and `more_ns`; zero if it has.
    pub(crate) fn limit_wait(&self, flow: NodeId, more_ns: u64, now: MonotonicTime) -> Duration {
        let mut longest = Duration::ZERO;
        let mut next = Some(flow);
        while let Some(node) = next.and_then(|id| self.nodes.get(id)) {
            if let Some(limit) = &node.limit {
                longest = longest.max(limit.wait(node.queued_cost_ns.saturating_add(more_ns), now));
            }
            next = node.parent;
        }
        longest
    }

    /// The part of `slots` that is a flow's while everybody who has work now keeps it, in millionths of a slot.
    pub(crate) fn share_ppm(&self, flow: NodeId, slots: u32) -> u64 {
        let mut share = f64::from(slots) * 1e6;
        let mut id = flow;
        while let Some(node) = self.nodes.get(id) {
            let Some(above) = node.parent.and_then(|parent| self.nodes.get(parent)) else { break };
            let weight = u64::from(node.weight.milli());
            let others = if node.is_active { above.active_weight.saturating_sub(weight) } else { above.active_weight };
            share *= weight as f64 / (weight + others) as f64;
            let Some(parent) = node.parent else { break };
            id = parent;
        }
        // One batch at a time runs on a slot, so nobody's tasks one after the other get more than a slot each.
        (share as u64).max(1)
    }

    /// Forgets nodes that hold nothing, once there are many.
    pub(crate) fn sweep(&mut self) {
        if self.nodes.len() < self.sweep_at.max(IDLE_NODES_KEPT) {
            return;
        }
        loop {
            let idle: Vec<(Key, NodeId)> = self
                .nodes
                .iter()
                .filter(|(_, node)| {
                    let ahead =
                        node.parent.and_then(|parent| self.nodes.get(parent)).is_some_and(|above| node.v > above.clock);
                    matches!(node.key, Key::Flow(..) | Key::Deployment(..))
                        && !node.is_active
                        && !ahead
                        && node.children == 0
                        && node.queued == 0
                        && node.running == 0
                        && node.limit.is_none()
                })
                .map(|(id, node)| (node.key, id))
                .collect();
            if idle.is_empty() {
                break;
            }
            for (key, id) in idle {
                self.index.remove(&key);
                let parent = self.nodes.try_remove(id).and_then(|node| node.parent);
                if let Some(above) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
                    above.children = above.children.saturating_sub(1);
                }
            }
        }
        self.sweep_at = self.nodes.len() * 2;
    }
}

impl Limit {
    /// Device time as time at the limit's rate.
    fn as_time_ns(&self, device_ns: i128) -> i128 {
        device_ns * 1_000_000 / i128::from(self.settings.rate.ppm().max(1))
    }

    fn charge(&mut self, device_ns: i64, now: MonotonicTime) {
        let now = i128::from(now.as_nanos());
        let from = if device_ns > 0 { self.used_up_to_ns.max(now) } else { self.used_up_to_ns };
        self.used_up_to_ns = from + self.as_time_ns(i128::from(device_ns));
    }

    fn wait(&self, waiting_ns: u64, now: MonotonicTime) -> Duration {
        let now = i128::from(now.as_nanos());
        let burst = i128::try_from(self.settings.burst.as_nanos()).unwrap_or(i128::MAX >> 40);
        let full_at = self.used_up_to_ns.max(now) + self.as_time_ns(i128::from(waiting_ns)) - self.as_time_ns(burst);
        Duration::from_nanos(u64::try_from((full_at - now).max(0)).unwrap_or(u64::MAX))
    }
}
