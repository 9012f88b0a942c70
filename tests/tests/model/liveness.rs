//! Whether every run without a fault has an end.
//!
//! The checker itself follows no circle. All steps without a fault are recorded while it goes through
//! the states, and looked through afterwards: a run that never ends stays in one circle of them.

use std::collections::{HashMap, HashSet};

/// A step: states by their fingerprints, and the action by its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    pub(crate) from: u64,
    pub(crate) action: u64,
    pub(crate) to: u64,
}

/// The states of a circle in which a run may stay for ever although nothing is left aside that could
/// be done all the time. A process that is never given its turn is a fault, and does not count.
pub(crate) fn fair_circle(steps: &[Step]) -> Option<HashSet<u64>> {
    let mut ways: HashMap<u64, Vec<Step>> = HashMap::new();
    let steps: HashSet<Step> = steps.iter().copied().collect();
    for step in &steps {
        ways.entry(step.from).or_default().push(*step);
    }
    let components = components(&without_ends(&steps));
    components.into_iter().find(|states| {
        let inner = |step: &&Step| states.contains(&step.to);
        let of = |state: &u64| ways.get(state).map_or(&[][..], Vec::as_slice);
        let taken: HashSet<u64> = states
            .iter()
            .flat_map(|state| of(state).iter().filter(inner))
            .map(|step| step.action)
            .collect();
        let mut always: Option<HashSet<u64>> = None;
        for state in states {
            let can: HashSet<u64> = of(state).iter().map(|step| step.action).collect();
            always = Some(match always {
                Some(always) => &always & &can,
                None => can,
            });
        }
        !taken.is_empty() && always.is_none_or(|always| always.is_subset(&taken))
    })
}

/// The steps that lead to further steps for ever.
fn without_ends(steps: &HashSet<Step>) -> Vec<(u64, u64)> {
    let mut before: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut ways: HashMap<u64, usize> = HashMap::new();
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
fn components(steps: &[(u64, u64)]) -> Vec<HashSet<u64>> {
    let mut forth: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut back: HashMap<u64, Vec<u64>> = HashMap::new();
    for (from, to) in steps {
        forth.entry(*from).or_default().push(*to);
        back.entry(*to).or_default().push(*from);
    }
    let mut seen = HashSet::new();
    let mut order = Vec::new();
    for start in forth.keys() {
        walk(*start, &forth, &mut seen, &mut order);
    }
    seen.clear();
    let mut all = Vec::new();
    for start in order.into_iter().rev() {
        let mut component = Vec::new();
        walk(start, &back, &mut seen, &mut component);
        if !component.is_empty() {
            all.push(component.into_iter().collect());
        }
    }
    all
}

/// Everything that is reached and was not seen before; a state comes after those that it leads to.
fn walk(start: u64, ways: &HashMap<u64, Vec<u64>>, seen: &mut HashSet<u64>, order: &mut Vec<u64>) {
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
    fn a_run_that_ends_has_no_circle() {
        assert_eq!(
            fair_circle(&steps(&[(1, 10, 2), (1, 11, 3), (2, 11, 4), (3, 10, 4)])),
            None
        );
    }

    #[test]
    fn a_circle_is_found_behind_the_way_to_it() {
        let found = fair_circle(&steps(&[(1, 10, 2), (2, 11, 3), (3, 12, 2), (3, 13, 4)]));
        assert_eq!(found, Some(HashSet::from([2, 3])));
    }

    #[test]
    fn a_circle_beside_which_something_waits_all_the_time_is_none() {
        let waits = steps(&[(2, 11, 3), (3, 12, 2), (3, 13, 4), (2, 13, 5)]);
        assert_eq!(fair_circle(&waits), None);
    }
}
