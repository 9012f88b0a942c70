//! Coverage-guided fuzzing of every parser of the agent: text of the kernel, state, policy, profile.
//!
//! One program for all targets: `NETTUNE_FUZZ_TARGET` names the one. The parsers are reached as the
//! agent reaches them, through files, so that none has to be public for this.

#![no_main]

mod node;
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let wanted = std::env::var("NETTUNE_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(name, _)| *name == wanted);
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        found
            .unwrap_or_else(|| panic!("NETTUNE_FUZZ_TARGET must be one of {names:?}"))
            .1
    })
}

fuzz_target!(|data: &[u8]| target()(data));
