//! How time passes.

use std::time::Duration;

use crate::action::Action;
use crate::cluster::Cluster;
use crate::state::{Reach, State};

impl Cluster {
    /// How long it takes until something is due.
    pub(super) fn soonest(&self, state: &State) -> Option<Duration> {
        let hosts = state.hosts.iter().zip(&state.reach);
        let dues = hosts.flat_map(|(host, reach)| {
            let fading = match reach {
                Reach::Fading(left) => Some(*left),
                Reach::Reached | Reach::CutOff => None,
            };
            [self.hosts.due(host), fading].into_iter().flatten()
        });
        let wakes = state.leaders.iter().filter_map(|leader| leader.wake);
        dues.chain(wakes).min().filter(|time| !time.is_zero())
    }

    pub(super) fn time_passes(&self, next: &mut State) -> Option<()> {
        let time = self.soonest(next)?;
        if self.setup.prompt && !self.is_quiet(next) {
            return None;
        }
        for leader in &mut next.leaders {
            self.leaders.pass(leader, time);
        }
        for (host, reach) in next.hosts.iter_mut().zip(&mut next.reach) {
            self.hosts.pass(host, time);
            if let Reach::Fading(left) = reach {
                *left = left.saturating_sub(time);
            }
        }
        Some(())
    }

    /// Whether nothing is on its way.
    fn is_quiet(&self, state: &State) -> bool {
        let actions = self.calm_actions(state).into_iter();
        let mut others = actions.filter(|action| {
            !matches!(
                action,
                Action::TimePasses | Action::NodeIsCutOff(_) | Action::LeaderRetires
            )
        });
        others.all(|action| self.after(state, &action).is_none())
    }
}
