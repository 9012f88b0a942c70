//! Whether every run without a fault ends.
//!
//! The checker itself follows no circle. All steps without a fault are recorded while it goes through
//! the states, and looked through afterwards: a run that never ends stays in one circle of them.

use ahash::{AHashMap, AHashSet};

/// A step: states by their fingerprints, and the action by its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Step {
    pub(crate) from: u64,
    pub(crate) action: u64,
    pub(crate) to: u64,
}

/// The states of a cycle in which a run may stay forever although no step waits
/// all along. A process that never gets its turn is a fault, and does not count.
pub(crate) fn fair_circle(mut steps: Vec<Step>) -> Option<AHashSet<u64>> {
    steps.sort_unstable();
    steps.dedup();
    let ways = |state: u64| {
        let first = steps.partition_point(|step| step.from < state);
        let own = steps[first..].iter();
        own.take_while(move |step| step.from == state)
    };
    components(&without_ends(&steps))
        .into_iter()
        .find(|states| {
            let of_all = states.iter().flat_map(|state| ways(*state));
            let inner = of_all.filter(|step| states.contains(&step.to));
            let taken: AHashSet<u64> = inner.map(|step| step.action).collect();
            let mut states = states.iter();
            let first = states.next().into_iter().flat_map(|state| ways(*state));
            let mut waits: Vec<u64> = first.map(|step| step.action).collect();
            waits.retain(|action| !taken.contains(action));
            for state in states {
                if waits.is_empty() {
                    break;
                }
                waits.retain(|action| ways(*state).any(|step| step.action == *action));
            }
            waits.is_empty()
        })
}

/// The steps that lead to further steps forever.
fn without_ends(steps: &[Step]) -> Vec<(u64, u64)> {
    let mut before: AHashMap<u64, Vec<u64>> = AHashMap::new();
    let mut ways: AHashMap<u64, usize> = AHashMap::new();
    for Step { from, to, .. } in steps {
        before.entry(*to).or_default().push(*from);
        *ways.entry(*from).or_default() += 1;
        ways.entry(*to).or_default();
    }
    let ends = ways.iter().filter(|(_, ways)| **ways == 0);
    let mut ends: Vec<u64> = ends.map(|(end, _)| *end).collect();
    while let Some(end) = ends.pop() {
        ways.remove(&end);
        for from in before.get(&end).into_iter().flatten() {
            if let Some(left) = ways.get_mut(from) {
                *left -= 1;
                if *left == 0 {
                    ends.push(*from);
                }
            }
        }
    }
    let steps = steps.iter().map(|step| (step.from, step.to));
    steps
        .filter(|(from, to)| ways.contains_key(from) && ways.contains_key(to))
        .collect()
}

/// States that lead to each other (strongly connected components, by Kosaraju).
fn components(steps: &[(u64, u64)]) -> Vec<AHashSet<u64>> {
    let mut forth: AHashMap<u64, Vec<u64>> = AHashMap::new();
    let mut back: AHashMap<u64, Vec<u64>> = AHashMap::new();
    for (from, to) in steps {
        forth.entry(*from).or_default().push(*to);
        back.entry(*to).or_default().push(*from);
    }
    let mut seen = AHashSet::new();
    let mut order = Vec::new();
    for start in forth.keys() {
        walk(*start, &forth, &mut seen, &mut order);
    }
    seen.clear();
    let mut all = Vec::new();
    for start in order.into_iter().rev() {
        let mut component = Vec::new();
        walk(start, &back, &mut seen, &mut component);
        // No step leads to where it began.
        if component.len() > 1 {
            all.push(component.into_iter().collect());
        }
    }
    all
}

/// Everything that is reached and was not seen before; a state comes after those that it leads to.
fn walk(
    start: u64,
    ways: &AHashMap<u64, Vec<u64>>,
    seen: &mut AHashSet<u64>,
    order: &mut Vec<u64>,
) {
    let of = |state: u64| ways.get(&state).map_or(&[][..], Vec::as_slice);
    if !seen.insert(start) {
        return;
    }
    let mut open = vec![(start, 0)];
    while let Some((state, next)) = open.last_mut() {
        match of(*state).get(*next) {
            Some(to) => {
                *next += 1;
                if seen.insert(*to) {
                    open.push((*to, 0));
                }
            }
            None => {
                order.push(*state);
                open.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(steps: &[(u64, u64, u64)]) -> Vec<Step> {
        let step = |(from, action, to): &(u64, u64, u64)| Step {
            from: *from,
            action: *action,
            to: *to,
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn a_run_that_ends_has_no_cycle() {
        assert_eq!(
            fair_circle(steps(&[(1, 10, 2), (1, 11, 3), (2, 11, 4), (3, 10, 4)])),
            None
        );
    }

    #[test]
    fn a_cycle_is_found_after_the_path_to_it() {
        let found = fair_circle(steps(&[(1, 10, 2), (2, 11, 3), (3, 12, 2), (3, 13, 4)]));
        assert_eq!(found, Some(AHashSet::from([2, 3])));
    }

    #[test]
    fn a_cycle_with_a_step_that_always_waits_does_not_count() {
        let waits = steps(&[(2, 11, 3), (3, 12, 2), (3, 13, 4), (2, 13, 5)]);
        assert_eq!(fair_circle(waits), None);
    }
}
