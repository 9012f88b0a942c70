//! Restricts the agent at startup: no capabilities, no way to regain them, and write access only where
//! it is needed.
//!
//! uid 0 without capabilities can write the sysctls below `net/` of its own network namespace. The
//! restrictions apply to the calling thread and to threads that it starts later, so they must come first.

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

/// The newest ABI that the agent is known to work under; the kernel enforces as much of it as it
/// supports. Paths since 5.13, truncation 6.2, TCP 6.7, devices 6.10, signals and abstract
/// sockets 6.12.
const KNOWN: ABI = ABI::V7;

/// What the agent must still be able to do.
#[derive(Debug, Clone)]
pub struct Needs {
    /// The directory below which it writes sysctls.
    pub sysctls: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// Files that it reads; at startup it logs those that it may not read.
    pub reads: Vec<PathBuf>,
    /// The TCP port that it listens on; 0 for any.
    pub listens: Option<u16>,
    /// Whether it may start programs: a kubeconfig can name a credential plugin.
    pub starts_programs: bool,
}

/// What is in force.
#[derive(Debug)]
pub struct Sandbox {
    /// Effective capabilities that are left.
    pub capabilities: u32,
    /// Whether the bounding set is empty too. Emptying it needs CAP_SETPCAP; with `no_new_privs` it has
    /// no effect.
    pub bounded: bool,
    /// Whether programs that it starts cannot gain privileges.
    pub no_new_privs: bool,
    pub landlock: Landlock,
    /// Rules are tied to inodes, and procfs recreates a directory's inode after its caches were dropped,
    /// unless the directory is held open.
    _held: Vec<File>,
}

/// What Landlock enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landlock {
    /// The rules of this ABI version, at most the newest that the agent knows.
    Enforced {
        abi: i32,
    },
    /// The kernel, or a sandbox around the agent, does not support it.
    Unavailable,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RestrictionLabel {
    restriction: &'static str,
}

impl Sandbox {
    /// Drops what is not needed and logs what is in force. A restriction that fails is logged, and the
    /// agent continues without it.
    #[must_use]
    pub fn enforce(needs: &Needs) -> Self {
        let bounded = empty_bounding_set();
        if let Err(error) = drop_capabilities() {
            let error = io::Error::from(error).to_string();
            tracing::error!(error, "cannot drop capabilities; continuing with them");
        }
        if let Err(error) = set_no_new_privs(true) {
            let error = io::Error::from(error).to_string();
            tracing::error!(error, "cannot set no_new_privs; continuing without it");
        }
        let mut held = Vec::new();
        let landlock = restrict(needs, &mut held).unwrap_or_else(|error| {
            let error = error.to_string();
            tracing::error!(error, "cannot enforce Landlock; continuing without it");
            Landlock::Failed
        });
        let sandbox = Self {
            capabilities: capabilities(None)
                .map_or(u32::MAX, |sets| sets.effective.bits().count_ones()),
            bounded,
            no_new_privs: no_new_privs().unwrap_or(false),
            landlock,
            _held: held,
        };
        sandbox.log(needs);
        log_inaccessible_paths(needs);
        sandbox
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("nettune");
        let restrictions = Family::<RestrictionLabel, Gauge>::default();
        for (restriction, is_so) in [
            ("no_capabilities", self.capabilities == 0),
            ("no_new_privs", self.no_new_privs),
            ("landlock", self.landlock.abi() > 0),
        ] {
            let label = RestrictionLabel { restriction };
            restrictions.get_or_create(&label).set(is_so.into());
        }
        registry.register(
            "agent_sandbox",
            "Whether this restriction is in force for the agent",
            restrictions,
        );
        let abi: Gauge = Gauge::default();
        abi.set(self.landlock.abi().into());
        registry.register(
            "agent_landlock_abi_version",
            "ABI version of the Landlock rules in force; 0 if there are none",
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
            "sandbox in force"
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

/// Returns whether it is empty now; a pod without CAP_SETPCAP cannot empty it.
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
    // Almost every program needs it.
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
            tracing::error!(
                path,
                error,
                "cannot open the directory; writes below it will be denied"
            );
            Ok(ruleset)
        }
    }
}

/// Without CAP_DAC_OVERRIDE, file permissions apply to uid 0 too.
fn log_inaccessible_paths(needs: &Needs) {
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
            "the agent drops its capabilities and then cannot access this path; change its owner or mode"
        );
    }
}
