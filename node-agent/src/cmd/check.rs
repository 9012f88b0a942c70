//! `nettune-agent check`: prints what would change on this host, and why; writes nothing.

use std::io::{self, Write};
use std::process::ExitCode;

use nettune_agent::clock;
use nettune_agent::kernel::facts;
use nettune_agent::kernel::sysctl::Sysctls;
use nettune_agent::pressure::counters::Counters;
use nettune_agent::standalone::dry_run::dry_run;
use nettune_agent::standalone::policy::PolicyFile;
use nettune_reconcile::desired::DesiredState;
use nettune_reconcile::memory::Memory;
use nettune_reconcile::observed::{ObservedState, OverflowCounters};
use nettune_reconcile::step::keys_to_read;

use crate::cmd::args::CheckArguments;
use crate::cmd::host_env::HostEnv;

/// Something would be changed, or cannot be set.
const NOT_IN_ORDER: u8 = 2;

pub(crate) fn run(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let env = HostEnv::of(&arguments.host, arguments.node_name.clone())?;
    let policy = PolicyFile::read(&arguments.policy)?;
    let seen = facts::read(&env.roots, &env.identity, None);
    let host = env.host(arguments.hints.hints());
    let sized = policy.size(&host, &seen)?;
    let state = env.state().peek();
    let mut text = policy.describe(&env.node, &sized, host.hints);
    if let Err(error) = &state {
        let error = nettune_runtime::error::chain(error);
        text += &format!("  (what nettune has written in this boot is unknown: {error})\n");
    }
    let memory = Memory::new(state.unwrap_or_default());
    let desired = DesiredState::read(sized.after(memory.persisted.source.as_ref()))?;
    let mut sysctls = Sysctls::new(&env.roots.sysctl);
    sysctls.track(&keys_to_read(&desired, &memory));
    sysctls.read();
    let observed = ObservedState {
        initial_namespace: seen.initial_network_namespace,
        keys: sysctls.seen(),
        counts: Counters::new(&env.roots).read().counts(),
        overflows: OverflowCounters::default(),
        machine: env.identity.machine(),
        wall: clock::wall(),
    };
    let outcome = dry_run(&desired, &observed, &memory);
    text += &outcome.table(&sized, &observed);
    match io::stdout().lock().write_all(text.as_bytes()) {
        // `| head` has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(if outcome.is_in_order() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_IN_ORDER)
    })
}
