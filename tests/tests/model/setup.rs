//! What a model consists of: the cluster, users' changes, and faults.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::state::State;

/// What a model consists of.
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    /// The sysctls that a kernel boots with.
    pub(crate) sysctls: Vec<(&'static str, &'static str)>,
    /// Specs of tunings.
    pub(crate) specs: Vec<serde_json::Value>,
    /// Which spec each tuning has at first.
    pub(crate) tunings: [Option<usize>; 2],
    /// Users' changes, in this order, at any time.
    pub(crate) inputs: Vec<Input>,
    /// Possible faults, at any time.
    pub(crate) faults: Vec<Fault>,
    /// How many faults may occur.
    pub(crate) most_faults: u8,
    /// One effect of an agent is one step; else it does all it has to before anything else happens.
    pub(crate) fine: bool,
    /// A watch may bring again what is known: a leader decides although nothing has changed.
    pub(crate) repeats: bool,
    /// A leader's watches bring each kind of object when they like; else it looks at all of them when
    /// it decides. Its writes are on their way for as long as they like in any case.
    pub(crate) lag: bool,
    /// The status of tunings is written too.
    pub(crate) statuses: bool,
    /// An answer may come late: other decisions are made before it.
    pub(crate) late_answers: bool,
    /// Time passes only when what is on its way has come. Else it passes at any time, and any process
    /// may be slow for as long as it likes.
    pub(crate) prompt: bool,
    /// A value that cuts off its node.
    pub(crate) harmful: Option<(&'static str, &'static str)>,
    /// How many nodes may ever hold that value.
    pub(crate) most_cut_off: usize,
    /// Anything longer ago counts as this long ago: the longest wait.
    pub(crate) longest: Duration,
    /// Whether the final state is right.
    pub(crate) right: fn(&Cluster, &State) -> bool,
    /// A bug of the shell that must be found.
    pub(crate) mutation: Option<Mutation>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nodes: 2,
            sysctls: vec![(SOMAXCONN, "128")],
            specs: Vec::new(),
            tunings: [Some(0), None],
            inputs: Vec::new(),
            faults: Vec::new(),
            most_faults: 0,
            fine: false,
            repeats: false,
            lag: false,
            statuses: false,
            late_answers: false,
            prompt: false,
            harmful: None,
            most_cut_off: 0,
            longest: Duration::from_secs(60),
            right: Cluster::holds_what_is_wanted,
            mutation: None,
        }
    }
}

impl Setup {
    /// A tuning that has the first of these specs, and what people do then.
    pub(crate) fn new<const S: usize, const I: usize>(
        specs: [serde_json::Value; S],
        inputs: [Input; I],
    ) -> Self {
        Self {
            specs: specs.into(),
            inputs: inputs.into(),
            ..Self::default()
        }
    }

    /// The same, where so many of these faults may come.
    pub(crate) fn with<const F: usize>(self, most_faults: u8, faults: [Fault; F]) -> Self {
        Self {
            faults: faults.into(),
            most_faults,
            ..self
        }
    }
}

/// The sysctl of most models.
pub(crate) const SOMAXCONN: &str = "net.core.somaxconn";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Input {
    /// A tuning gets this spec; it is made where it is not there.
    Tunes(usize, usize),
    Deletes(usize),
}

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A leader is killed; the next one begins, and what was on its way may still arrive.
    LeaderDies,
    /// Another leader begins while the first goes on for a while.
    SecondLeader,
    /// A write is lost on its way, or its answer does not come.
    WriteIsLost,
    /// A leader waits for a write's answer no longer; it may still arrive.
    WriteIsSlow,
    /// An agent is killed; the next one begins.
    AgentDies,
    /// A machine boots again, and with this value.
    Reboot(&'static str, &'static str),
    NodeGoes,
    /// Another program sets a sysctl.
    Rival(&'static str, &'static str),
    /// This many entries are in both tables from now on.
    Fills(u64),
}

/// A bug in the shell around the product's functions, which the checker must find.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Mutation {
    RestartedAgentForgetsOriginals,
    RebootedAgentKeepsRecords,
    AgentTakesTablesForEmpty,
    /// It does not read again what it has written.
    AgentTrustsItsWrites,
    ReportsWithoutVersion,
    ReplacesWithoutVersion,
    ReleasesWithoutVersion,
    LostWriteIsNotRetried,
    /// A new leader believes that everything has been for a minute as it finds it.
    NewLeaderAssumesAllPassed,
    /// Each time that a leader decides, a minute has passed for it.
    CountsDecisionsAsTime,
    RelistKeepsDeletedProfiles,
    IgnoresPriority,
    WritesTuningStatusOnce,
}
