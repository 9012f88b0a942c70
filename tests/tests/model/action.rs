//! The steps of a model.

use crate::api::NODES;
use crate::flight::Object;

/// A step. Nodes, leaders and tunings are given by index.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    LeaderSees(usize, Kind),
    LeaderDecides(usize),
    Lands(usize, Object, Answer),
    OrphanLands(usize),
    OrphanIsLost(usize),
    LeaderRetires,
    AgentSees(usize),
    AgentActs(usize),
    AgentReports(usize),
    ProfileIsCollected(usize),
    NodeIsCutOff(usize),
    NodeComesBack(usize),
    TimePasses,
    LeaderIsWoken(usize),
    Input,
    LeaderDies(usize),
    SecondLeader,
    WriteIsLost(usize, Object),
    WriteIsSlow(usize, Object),
    AgentDies(usize),
    Reboots(usize, &'static str, &'static str),
    NodeGoes(usize),
    Rival(usize, &'static str, &'static str),
    Fills(usize, u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    Nodes,
    Tunings,
    Profiles,
}

/// When the answer to a write comes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Answer {
    AtOnce,
    /// The watch delivers the change first.
    Late,
}

impl Action {
    /// Whether it is a fault.
    pub(crate) fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::LeaderDies(_)
                | Self::SecondLeader
                | Self::WriteIsLost(..)
                | Self::WriteIsSlow(..)
                | Self::AgentDies(_)
                | Self::Reboots(..)
                | Self::NodeGoes(_)
                | Self::Rival(..)
                | Self::Fills(..)
        )
    }

    /// Whether it happens without a fault, a user or a watch that repeats
    /// what is known.
    pub(crate) fn is_calm(&self) -> bool {
        !self.is_fault() && !matches!(self, Self::Input | Self::LeaderIsWoken(_))
    }
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LeaderSees(leader, kind) => write!(f, "leader {leader} sees the {kind:?}"),
            Self::LeaderDecides(leader) => write!(f, "leader {leader} decides"),
            Self::Lands(leader, object, answer) => {
                write!(
                    f,
                    "leader {leader}'s write of {object:?} lands, answered {answer:?}"
                )
            }
            Self::OrphanLands(at) => write!(f, "write {at} without a leader lands"),
            Self::OrphanIsLost(at) => write!(f, "write {at} without a leader is lost"),
            Self::LeaderRetires => write!(f, "leader 0 ends"),
            Self::AgentSees(node) => write!(f, "agent {} sees its profile", NODES[*node]),
            Self::AgentActs(node) => write!(f, "agent {} acts", NODES[*node]),
            Self::AgentReports(node) => write!(f, "agent {} reports", NODES[*node]),
            Self::ProfileIsCollected(node) => {
                write!(f, "profile {} is collected with its node", NODES[*node])
            }
            Self::NodeIsCutOff(node) => write!(f, "node {} is cut off", NODES[*node]),
            Self::NodeComesBack(node) => write!(f, "node {} comes back", NODES[*node]),
            Self::LeaderIsWoken(leader) => write!(f, "leader {leader}'s watch says the same again"),
            Self::TimePasses => write!(f, "time passes"),
            Self::Input => write!(f, "INPUT"),
            Self::LeaderDies(leader) => write!(f, "FAULT: leader {leader} dies"),
            Self::SecondLeader => write!(f, "FAULT: a second leader begins"),
            Self::WriteIsLost(leader, object) => {
                write!(f, "FAULT: leader {leader}'s write of {object:?} is lost")
            }
            Self::WriteIsSlow(leader, object) => {
                write!(
                    f,
                    "FAULT: leader {leader} waits for its write of {object:?} no longer"
                )
            }
            Self::AgentDies(node) => write!(f, "FAULT: agent {} dies", NODES[*node]),
            Self::Reboots(node, ..) => write!(f, "FAULT: node {} boots again", NODES[*node]),
            Self::NodeGoes(node) => write!(f, "FAULT: node {} is deleted", NODES[*node]),
            Self::Rival(node, key, value) => {
                write!(
                    f,
                    "FAULT: another program sets {key} = {value} on {}",
                    NODES[*node]
                )
            }
            Self::Fills(node, count) => {
                write!(f, "FAULT: the tables of {} hold {count}", NODES[*node])
            }
        }
    }
}
