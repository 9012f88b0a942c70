//! What the agent gives up at its start: every capability, the way to get any back, and the right to
//! write anywhere but where it has to.
//!
//! uid 0 alone is enough to write the sysctls below `net/` of its own network namespace: none of it
//! needs a capability. All of this holds for the calling thread and for those that it starts later, so
//! it has to be done before there are any.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustix::fs::Access as Permission;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// The newest ABI whose restrictions are known to do the agent no harm; of it, as much is asked for as
/// the kernel has. Paths since 5.13, truncation 6.2, TCP 6.7, devices 6.10, signals and abstract
/// sockets 6.12.
const KNOWN: ABI = ABI::V7;

/// What the agent still has to be able to do.
#[derive(Debug, Clone)]
pub struct Needs {
    /// The directory below which it writes sysctls.
    pub sysctls: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// Files that it reads, to say at once which it may not.
    pub reads: Vec<PathBuf>,
    /// The TCP port that it listens on; 0 for any.
    pub listens: Option<u16>,
    /// Whether it may start programs: a kubeconfig can name one that gets the token.
    pub starts_programs: bool,
}

/// What is in force.
#[derive(Debug)]
pub struct Confinement {
    /// Effective capabilities that are left.
    pub capabilities: u32,
    /// Whether the bounding set is empty too. Without CAP_SETPCAP it cannot be emptied, and with
    /// `no_new_privs` nothing can come of it.
    pub bounded: bool,
    /// Whether no program that it starts can get more rights than it has.
    pub no_new_privs: bool,
    /// Landlock.
    pub landlock: Landlock,
    /// Rules are tied to inodes, and procfs makes a directory anew whose caches were dropped, unless
    /// somebody holds it.
    _held: Vec<File>,
}

/// What Landlock enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// The rules of this version of its interface, at most those that this agent knows.
    Enforced {
        /// The version.
        abi: i32,
    },
    /// The kernel, or a sandbox around the agent, does not have it.
    Unavailable,
    /// It failed.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConfinementLabel {
    confinement: &'static str,
}

impl Confinement {
    /// Gives up what is not needed, and logs what is in force. Whatever cannot be given up is said and
    /// kept: the agent works all the same.
    #[must_use]
    pub fn enforce(needs: &Needs) -> Self {
        let bounded = empty_bounding_set();
        if let Err(error) = drop_capabilities() {
            let error = io::Error::from(error).to_string();
            tracing::error!(error, "capabilities cannot be dropped");
        }
        if let Err(error) = set_no_new_privs(true) {
            let error = io::Error::from(error).to_string();
            tracing::error!(error, "no_new_privs cannot be set");
        }
        let mut held = Vec::new();
        let landlock = restrict(needs, &mut held).unwrap_or_else(|error| {
            let error = error.to_string();
            tracing::error!(error, "Landlock cannot be enforced");
            Landlock::Failed
        });
        let confinement = Self {
            capabilities: capabilities(None)
                .map_or(u32::MAX, |sets| sets.effective.bits().count_ones()),
            bounded,
            no_new_privs: no_new_privs().unwrap_or(false),
            landlock,
            _held: held,
        };
        confinement.log(needs);
        say_what_is_out_of_reach(needs);
        confinement
    }

    /// Registers what is in force as metrics: 1 where it is, and Landlock's version.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("nettune");
        let confinements = Family::<ConfinementLabel, Gauge>::default();
        for (confinement, is_so) in [
            ("no_capabilities", self.capabilities == 0),
            ("no_new_privs", self.no_new_privs),
            ("landlock", self.landlock.abi() > 0),
        ] {
            let label = ConfinementLabel { confinement };
            confinements.get_or_create(&label).set(is_so.into());
        }
        registry.register(
            "agent_confinement",
            "Whether the agent is confined in this way",
            confinements,
        );
        let abi: Gauge = Gauge::default();
        abi.set(self.landlock.abi().into());
        registry.register(
            "agent_landlock_abi",
            "Version of the Landlock rules in force; 0 where there are none",
            abi,
        );
    }

    fn log(&self, needs: &Needs) {
        tracing::info!(
            capabilities = self.capabilities,
            bounding_set_empty = self.bounded,
            no_new_privs = self.no_new_privs,
            landlock = ?self.landlock,
            sysctls = needs.sysctls.display().to_string(),
            state = needs.state.display().to_string(),
            "confined"
        );
    }
}

impl Landlock {
    fn abi(self) -> i32 {
        match self {
            Self::Enforced { abi } => abi,
            Self::Unavailable | Self::Failed => 0,
        }
    }
}

/// Says whether it is empty now; that needs CAP_SETPCAP, which a pod without capabilities lacks.
fn empty_bounding_set() -> bool {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        let removed = match capability_is_in_bounding_set(capability) {
            Ok(false) => Ok(()),
            Ok(true) => remove_capability_from_bounding_set(capability),
            Err(errno) => Err(errno),
        };
        match removed {
            Ok(()) => {}
            // There are no more.
            Err(Errno::INVAL) => return true,
            Err(_) => return false,
        }
    }
    true
}

fn drop_capabilities() -> Result<(), Errno> {
    // Kernels before 4.3 have none.
    let _no_ambient = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

fn restrict(needs: &Needs, held: &mut Vec<File>) -> Result<Landlock, RulesetError> {
    let mut handled = AccessFs::from_write(KNOWN);
    if !needs.starts_programs {
        handled |= AccessFs::Execute;
    }
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for path in [&needs.sysctls, &needs.state] {
        ruleset = allow_writes_below(ruleset, path, held)?;
    }
    // Hardly a program does without it.
    if needs.starts_programs
        && let Ok(null) = File::open("/dev/null")
    {
        ruleset = ruleset.add_rule(PathBeneath::new(&null, AccessFs::WriteFile))?;
    }
    if let Some(port) = needs.listens {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::BindTcp))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => Landlock::Unavailable,
        (_, LandlockStatus::Available { effective_abi, .. }) => Landlock::Enforced {
            abi: (effective_abi as i32).min(KNOWN as i32),
        },
        (_, _) => Landlock::Unavailable,
    })
}

fn allow_writes_below(
    ruleset: RulesetCreated,
    path: &Path,
    held: &mut Vec<File>,
) -> Result<RulesetCreated, RulesetError> {
    match File::open(path) {
        Ok(directory) => {
            let rule = PathBeneath::new(&directory, AccessFs::from_write(KNOWN));
            let ruleset = ruleset.add_rule(rule)?;
            held.push(directory);
            Ok(ruleset)
        }
        Err(error) => {
            let (path, error) = (path.display().to_string(), error.to_string());
            tracing::error!(path, error, "nothing can be written there");
            Ok(ruleset)
        }
    }
}

/// Without CAP_DAC_OVERRIDE, uid 0 needs the rights that every other user does: what belongs to
/// another one may be out of reach now.
fn say_what_is_out_of_reach(needs: &Needs) {
    let state = (&needs.state, Permission::WRITE_OK);
    let reads = needs.reads.iter().map(|path| (path, Permission::READ_OK));
    for (path, permission) in reads.chain([state]) {
        if rustix::fs::access(path, permission) != Err(Errno::ACCESS) {
            continue;
        }
        let file = fs::metadata(path).ok();
        tracing::error!(
            path = path.display().to_string(),
            uid = rustix::process::geteuid().as_raw(),
            owner = file.as_ref().map(MetadataExt::uid),
            mode = file.map(|file| format!("{:o}", file.mode() & 0o7777)),
            "the agent gives up its capabilities, and then has no right to this: change its owner or its mode"
        );
    }
}
