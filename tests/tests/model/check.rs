//! Explores all states of a model, and reports violations.

use std::collections::VecDeque;
use std::time::Instant;

use ahash::{AHashMap, AHashSet};
use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::action::Action;
use crate::cluster::Cluster;
use crate::liveness;
use crate::setup::Setup;
use crate::state::{State, summary};

/// More states than any model here has.
const MOST_STATES: usize = 1_000_000;

/// Goes through every state of a model. Returns what does not hold, with the shortest way there.
pub(crate) fn explore(name: &str, setup: Setup) -> Vec<String> {
    let started = Instant::now();
    let (nodes, faults) = (setup.nodes, setup.most_faults);
    let checker = Cluster::new(setup)
        .checker()
        .target_state_count(MOST_STATES)
        .finish_when(HasDiscoveries::Any);
    let checker = checker.spawn_bfs().join();
    let (states, unique) = (checker.state_count(), checker.unique_state_count());
    let mut violations: Vec<String> = checker
        .discoveries()
        .into_iter()
        .map(|(property, path)| violation(property, path))
        .collect();
    if violations.is_empty() && states >= MOST_STATES {
        violations.push(format!("not exhausted: more than {MOST_STATES} states"));
    }
    let depth = checker.max_depth();
    violations.extend(circle(checker.model()));
    println!(
        "model {name}: {nodes} nodes, {faults} faults, {states} states visited, {unique} unique, depth {depth}, {:.1} s",
        started.elapsed().as_secs_f32()
    );
    violations
}

fn violation(property: &str, path: Path<State, Action>) -> String {
    let steps = path.into_vec();
    let broken = steps.last().and_then(|(state, _)| state.broken);
    let rule = broken.map(|rule| format!(": {rule}")).unwrap_or_default();
    format!("does not hold: {property}{rule}\n{}", lines(&steps))
}

fn lines(steps: &[(State, Option<Action>)]) -> String {
    let mut lines = Vec::new();
    for (state, action) in steps {
        lines.push(format!("        {}", summary(state)));
        lines.extend(action.as_ref().map(|action| format!("    {action:?}")));
    }
    lines.join("\n")
}

/// A run without a fault that has no end: steps that lead back to where they began, and no action
/// that could be taken all the time and is not.
fn circle(model: &Cluster) -> Option<String> {
    let steps = std::mem::take(&mut *model.calm.lock().ok()?);
    let circle = liveness::fair_circle(steps)?;
    let mut found: AHashMap<u64, Vec<(State, Option<Action>)>> = AHashMap::new();
    let mut pending: VecDeque<State> = model.init_states().into();
    for state in &pending {
        found.insert(state.fingerprint(), vec![(state.clone(), None)]);
    }
    while let Some(state) = pending.pop_front() {
        let path = found.get(&state.fingerprint())?.clone();
        if circle.contains(&state.fingerprint()) {
            let around = around(model, &state, &circle);
            return Some(format!(
                "does not hold: every run ends\n{}\n    and from there round and round:\n{}",
                lines(&path),
                lines(&around)
            ));
        }
        for (action, next) in model.next_steps(&state) {
            found.entry(next.fingerprint()).or_insert_with(|| {
                let mut path = path.clone();
                if let Some(last) = path.last_mut() {
                    last.1 = Some(action);
                }
                path.push((next.clone(), None));
                pending.push_back(next);
                path
            });
        }
    }
    None
}

/// Steps once around a cycle.
fn around(model: &Cluster, start: &State, circle: &AHashSet<u64>) -> Vec<(State, Option<Action>)> {
    let mut seen = AHashSet::new();
    let mut steps = Vec::new();
    let mut state = start.clone();
    while seen.insert(state.fingerprint()) {
        let next = model
            .next_steps(&state)
            .into_iter()
            .find(|(action, next)| action.is_calm() && circle.contains(&next.fingerprint()));
        let Some((action, next)) = next else { break };
        steps.push((state, Some(action)));
        state = next;
    }
    // Drops the path to the cycle.
    let lead = steps.iter().position(|(step, _)| *step == state);
    steps.drain(..lead.unwrap_or(0));
    steps.push((state, None));
    steps
}
