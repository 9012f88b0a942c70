//! What can happen in a state, and where it leads.

use std::time::Duration;

use crate::action::{Action, Answer, Kind};
use crate::api::Tuning;
use crate::cluster::Cluster;
use crate::flight::{Change, Flight, Object};
use crate::intern::Interned;
use crate::setup::{Fault, Input, Mutation};
use crate::state::{Reach, State};

/// How long a node must be Ready in these models.
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

impl Cluster {
    /// What happens by itself.
    pub(super) fn calm_actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        for (at, leader) in state.leaders.iter().enumerate() {
            if self.setup.lag {
                let kinds = [Kind::Nodes, Kind::Tunings, Kind::Profiles];
                actions.extend(kinds.map(|kind| Action::LeaderSees(at, kind)));
            }
            actions.push(Action::LeaderDecides(at));
            for flight in &leader.in_flight {
                actions.push(Action::Lands(at, flight.object, Answer::AtOnce));
                if self.setup.late_answers {
                    actions.push(Action::Lands(at, flight.object, Answer::Late));
                }
            }
        }
        for orphan in 0..state.orphans.len() {
            actions.push(Action::OrphanLands(orphan));
            actions.push(Action::OrphanIsLost(orphan));
        }
        actions.push(Action::LeaderRetires);
        for node in 0..state.hosts.len() {
            actions.extend([
                Action::AgentSees(node),
                Action::AgentActs(node),
                Action::AgentReports(node),
                Action::ProfileIsCollected(node),
                Action::NodeIsCutOff(node),
                Action::NodeComesBack(node),
            ]);
        }
        actions.push(Action::TimePasses);
        actions
    }

    pub(super) fn faults(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        if state.faults_left == 0 {
            return actions;
        }
        let nodes = 0..state.hosts.len();
        for fault in &self.setup.faults {
            match *fault {
                Fault::LeaderDies => {
                    actions.extend((0..state.leaders.len()).map(Action::LeaderDies));
                }
                Fault::SecondLeader => actions.push(Action::SecondLeader),
                Fault::WriteIsLost => {
                    let lost = |(leader, object)| Action::WriteIsLost(leader, object);
                    actions.extend(state.in_flight().map(lost));
                }
                Fault::WriteIsSlow => {
                    let slow = |(leader, object)| Action::WriteIsSlow(leader, object);
                    actions.extend(state.in_flight().map(slow));
                }
                Fault::AgentDies => actions.extend(nodes.clone().map(Action::AgentDies)),
                Fault::Reboot(key, value) => {
                    actions.extend(nodes.clone().map(|node| Action::Reboots(node, key, value)));
                }
                Fault::NodeGoes => actions.extend(nodes.clone().map(Action::NodeGoes)),
                Fault::Rival(key, value) => {
                    actions.extend(nodes.clone().map(|node| Action::Rival(node, key, value)));
                }
                Fault::Fills(count) => {
                    actions.extend(nodes.clone().map(|node| Action::Fills(node, count)));
                }
            }
        }
        actions
    }

    /// Whether a step may change anything, without taking it.
    fn may(&self, state: &State, action: &Action) -> bool {
        match *action {
            Action::LeaderSees(at, Kind::Nodes) => state.leaders[at].view.nodes != state.api.nodes,
            Action::LeaderSees(at, Kind::Tunings) => {
                state.leaders[at].view.tunings != state.api.tunings
            }
            Action::LeaderSees(at, Kind::Profiles) => {
                state.leaders[at].view.profiles != state.api.profiles
            }
            Action::LeaderDecides(at) => {
                let leader = &state.leaders[at];
                leader.due || (!self.setup.lag && leader.view != state.api)
            }
            Action::LeaderIsWoken(at) => !state.leaders[at].due,
            Action::LeaderRetires => state.leaders.len() > 1,
            Action::SecondLeader => state.leaders.len() == 1,
            Action::AgentSees(at) => self.setup.fine && !state.agent_knows(at),
            Action::AgentActs(at) => {
                let host = &state.hosts[at];
                (!self.setup.fine && !state.agent_knows(at)) || self.hosts.acts(host)
            }
            Action::AgentReports(at) => self.hosts.report(&state.hosts[at]).is_some(),
            Action::ProfileIsCollected(at) => state.api.profiles[at].is_some(),
            Action::NodeIsCutOff(at) => matches!(state.reach[at], Reach::Fading(_)),
            Action::NodeComesBack(at) => state.api.nodes[at].is_none(),
            Action::TimePasses => self.soonest(state).is_some(),
            _ => true,
        }
    }

    /// The state after a step; `None` where it cannot be made or changes nothing.
    pub(super) fn after(&self, state: &State, action: &Action) -> Option<State> {
        if !self.may(state, action) {
            return None;
        }
        let mut next = state.clone();
        if action.is_fault() {
            next.faults_left = state.faults_left.checked_sub(1)?;
        }
        match *action {
            Action::LeaderSees(leader, kind) => {
                let keeps = self.setup.mutation == Some(Mutation::RelistKeepsDeletedProfiles);
                let known = next.leaders[leader].view.profiles.clone();
                next.leader_sees(leader, kind);
                if keeps && kind == Kind::Profiles {
                    let view = &mut next.leaders[leader].view.profiles;
                    for (profile, known) in view.iter_mut().zip(known) {
                        *profile = profile.take().or(known);
                    }
                }
            }
            Action::LeaderDecides(leader) => {
                let leader = &mut next.leaders[leader];
                // Only one whose view is whole knows what people have done.
                let mut after = 0;
                if !self.setup.lag {
                    leader.view.clone_from(&next.api);
                    after = next.inputs_done;
                }
                self.leaders.decide(leader, after);
            }
            Action::Lands(leader, object, answer) => {
                self.lands(&mut next, leader, object, answer)?;
            }
            Action::OrphanLands(at) => {
                let flight = next.orphans.remove(at);
                self.land(&mut next, &flight);
            }
            Action::OrphanIsLost(at) => {
                next.orphans.remove(at);
            }
            Action::LeaderRetires => next.end_leader(0),
            Action::TimePasses => self.time_passes(&mut next)?,
            Action::Input => self.input(&mut next)?,
            Action::LeaderDies(at) => {
                next.end_leader(at);
                next.leaders.insert(at, self.leaders.begin(&next.api));
            }
            Action::SecondLeader => next.leaders.push(self.leaders.begin(&next.api)),
            Action::LeaderIsWoken(leader) => {
                let leader = &mut next.leaders[leader];
                leader.due = true;
                if self.setup.mutation == Some(Mutation::CountsDecisionsAsTime) {
                    self.leaders.pass(leader, MINUTE);
                }
            }
            Action::WriteIsLost(leader, object) => {
                let leader = &mut next.leaders[leader];
                leader.give_up(object)?;
                leader.due = self.setup.mutation != Some(Mutation::LostWriteIsNotRetried);
            }
            Action::WriteIsSlow(leader, object) => {
                let flight = next.leaders[leader].give_up(object)?;
                next.leave([flight]);
            }
            Action::AgentSees(node)
            | Action::AgentActs(node)
            | Action::AgentReports(node)
            | Action::ProfileIsCollected(node)
            | Action::NodeIsCutOff(node)
            | Action::NodeComesBack(node)
            | Action::AgentDies(node)
            | Action::Reboots(node, ..)
            | Action::NodeGoes(node)
            | Action::Rival(node, ..)
            | Action::Fills(node, _) => self.on_node(&mut next, node, action)?,
        }
        (next != *state).then_some(next)
    }

    fn lands(&self, next: &mut State, leader: usize, object: Object, answer: Answer) -> Option<()> {
        let flight = next.leaders[leader].give_up(object)?;
        let is_done = self.land(next, &flight);
        // Otherwise the watch brings what there is.
        if is_done && answer == Answer::AtOnce {
            next.leaders[leader].view.take(&next.api, object);
        }
        Some(())
    }

    fn land(&self, next: &mut State, flight: &Interned<Flight>) -> bool {
        let conditional = match flight.change {
            Change::Replace { .. } => self.setup.mutation != Some(Mutation::ReplacesWithoutVersion),
            Change::Release { .. } | Change::Delete => {
                self.setup.mutation != Some(Mutation::ReleasesWithoutVersion)
            }
            _ => true,
        };
        let life = next.unused_life(flight);
        let before = next.version_of_spec(flight.object);
        let is_done = next.api.land(flight, life, &self.pools, conditional);
        if let Object::Profile(at) = flight.object
            && before != next.version_of_spec(flight.object)
        {
            // A profile that is made takes nothing's place.
            let is_behind = before.is_some() && flight.after < next.written_after[at];
            let broken = is_behind.then_some("no write undoes a later decision");
            next.broken = next.broken.or(broken);
            next.written_after[at] = flight.after;
        }
        is_done
    }

    fn input(&self, next: &mut State) -> Option<()> {
        let input = *self.setup.inputs.get(next.inputs_done)?;
        next.inputs_done += 1;
        match input {
            Input::Tunes(at, spec) => {
                let known = next.api.tunings[at].as_deref();
                let status = known.map(|known| known.status.clone()).unwrap_or_default();
                if known.is_none() {
                    next.tuning_lives[at] += 1;
                }
                next.api.tunings[at] = Some(self.pools.tunings.put(Tuning {
                    life: next.tuning_lives[at],
                    spec,
                    status,
                }));
            }
            Input::Deletes(at) => next.api.tunings[at] = None,
        }
        Some(())
    }
}
