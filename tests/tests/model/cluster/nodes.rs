//! What happens on one node: its agent, its kernel, and what becomes of the machine.

use std::time::Duration;

use nettune_reconcile::observed::Counts;

use crate::action::Action;
use crate::api::{NODES, Node};
use crate::cluster::Cluster;
use crate::setup::Mutation;
use crate::state::{Reach, State};

/// After at most this long a node that is cut off is not Ready any more: the node controller's grace
/// period for a kubelet that stops reporting is 40 s, or 50 s since Kubernetes 1.32.
const GRACE: Duration = Duration::from_secs(50);

impl Cluster {
    /// `None` where it cannot happen.
    pub(super) fn on_node(&self, next: &mut State, at: usize, action: &Action) -> Option<()> {
        let name = NODES[at];
        let is_reached = next.reach[at] != Reach::CutOff && next.api.nodes[at].is_some();
        let host = &mut next.hosts[at];
        let profile = &mut next.api.profiles[at];
        match *action {
            Action::AgentSees(_) => {
                if is_reached {
                    self.hosts.bring(host, name, profile.as_ref());
                }
            }
            Action::AgentActs(_) => {
                if is_reached && !self.setup.fine {
                    self.hosts.bring(host, name, profile.as_ref());
                }
                self.hosts.act(host);
                next.broken = next.broken.or(host.broken);
                self.strike(next, at);
            }
            Action::AgentReports(_) => {
                let status = self.hosts.report(host).filter(|_| is_reached)?;
                let process = host.process.as_ref()?;
                let is_conditional = self.setup.mutation != Some(Mutation::ReportsWithoutVersion);
                let is_current = process.profile == *profile;
                if is_conditional && !is_current {
                    // Refused; the watch brings what there is.
                    return None;
                }
                let by = (process, host.kernel.boot);
                let reported = self.pools.reported(profile.as_ref()?, by, &status);
                *profile = Some(reported.clone());
                if is_current {
                    self.hosts.answer(host, &reported);
                }
            }
            Action::ProfileIsCollected(_) => {
                let owner = profile.as_ref()?.owner;
                let is_orphan = next.api.nodes[at].is_none_or(|node| node.life != owner);
                profile.take_if(|_| is_orphan)?;
            }
            Action::NodeIsCutOff(_) => {
                next.reach[at] = Reach::CutOff;
                next.api.nodes[at].as_mut()?.ready = false;
            }
            Action::NodeComesBack(_) => {
                // Its uid counts up; profiles name it as their owner.
                let boot = host.kernel.boot + 1;
                self.hosts.replace(host, self.kernel(boot));
                next.api.nodes[at] = Some(Node {
                    life: boot,
                    boot,
                    ready: true,
                });
                next.reach[at] = Reach::Reached;
            }
            Action::AgentDies(_) => self.hosts.start(host),
            Action::Reboots(_, key, value) => {
                let node = next.api.nodes[at].as_mut()?;
                node.boot += 1;
                let mut kernel = self.kernel(node.boot);
                kernel.hold(key, value);
                self.hosts.reboot(host, kernel);
            }
            Action::NodeGoes(_) => {
                host.process = None;
                next.api.nodes[at].take()?;
            }
            Action::Rival(_, key, value) => {
                self.hosts.disturb(host, |kernel| kernel.hold(key, value));
                self.strike(next, at);
            }
            Action::Fills(_, count) => {
                self.hosts.disturb(host, |kernel| {
                    kernel.counts = Counts {
                        neighbors_ipv4: Some(count),
                        neighbors_ipv6: Some(count),
                        conntrack: Some(count),
                    };
                });
            }
            _ => return None,
        }
        Some(())
    }

    /// Where the harmful value is, a node is soon not reached any more.
    fn strike(&self, next: &mut State, at: usize) {
        let Some((key, value)) = self.setup.harmful else {
            return;
        };
        let is_harmful = next.holds(at, key) == Some(value);
        match (is_harmful, next.reach[at]) {
            (true, Reach::Reached) => {
                next.struck[at] = true;
                next.reach[at] = Reach::Fading(GRACE);
            }
            (false, Reach::Fading(_)) => next.reach[at] = Reach::Reached,
            _ => {}
        }
    }
}
