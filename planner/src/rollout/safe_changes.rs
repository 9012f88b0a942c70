//! Splits the change of a profile: what cannot do harm is written at once, the rest in waves.
//!
//! Raising a limit can only help. Everything else may do harm, and waits for its wave.

use std::collections::BTreeMap;

use nettune_crds::{Mode, NodeNetworkProfileSpec, ProfileSysctl, ReleasePolicy, Rule};

/// The part of a change that may be written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AtOnce {
    pub(crate) spec: NodeNetworkProfileSpec,
    /// Whether it justifies a separate write before the rest.
    pub(crate) urgent: bool,
}

/// The part of the change from one spec to another that cannot do harm.
pub(crate) fn at_once(
    from: Option<&NodeNetworkProfileSpec>,
    to: &NodeNetworkProfileSpec,
) -> AtOnce {
    // Neither spec changes a kernel.
    if to.mode == Mode::Observe {
        let spec = to.clone();
        return AtOnce { spec, urgent: true };
    }
    let Some(from) = from else {
        let limits = to.sysctls.iter().filter(|to| to.rule == Rule::AtLeast);
        let sysctls: Vec<_> = limits.cloned().collect();
        let spec = NodeNetworkProfileSpec {
            release_policy: release_policy(to, sysctls.len() < to.sysctls.len()),
            sysctls,
            ..to.clone()
        };
        return AtOnce { spec, urgent: true };
    };
    let mut keys: BTreeMap<&str, ProfileSysctl> = BTreeMap::new();
    let mut raised = false;
    // Enforcing again may write values that have drifted for long, so even equal ones wait for their wave.
    let stricter = strictness(to.mode) > strictness(from.mode);
    let mut waits = false;
    let mut left_out = false;
    let mut old: BTreeMap<&str, &ProfileSysctl> = by_name(from);
    for to in &to.sysctls {
        let (sysctl, is_raised) = match old.remove(to.name.as_str()) {
            None if to.rule == Rule::AtLeast => (Some(to.clone()), true),
            None => (None, false),
            Some(from) => key_at_once(from, to),
        };
        left_out |= sysctl.is_none();
        waits |= sysctl.as_ref() != Some(to) || (stricter && to.rule == Rule::Exact);
        raised |= is_raised;
        keys.extend(sysctl.map(|sysctl| (to.name.as_str(), sysctl)));
    }
    for (name, from) in old {
        waits = true;
        let reason =
            "no longer in the tuning; removed when the rollout reaches this node".to_owned();
        let kept = ProfileSysctl {
            reason,
            ..from.clone()
        };
        keys.insert(name, kept);
    }
    let mode = if stricter && waits {
        from.mode
    } else {
        to.mode
    };
    let relaxed = strictness(to.mode) < strictness(from.mode);
    AtOnce {
        urgent: (raised && mode != Mode::Observe) || relaxed || from.release,
        spec: NodeNetworkProfileSpec {
            mode,
            release_policy: release_policy(to, left_out),
            sysctls: keys.into_values().collect(),
            ..to.clone()
        },
    }
}

/// With `Restore`, an agent restores every sysctl that its profile does not name. While a sysctl is left out
/// because it waits for its wave, the node may already hold it, so the policy stays `Retain`.
fn release_policy(to: &NodeNetworkProfileSpec, left_out: bool) -> ReleasePolicy {
    if left_out {
        ReleasePolicy::Retain
    } else {
        to.release_policy
    }
}

/// The part of one sysctl's change that may be written at once, and whether it raises the value.
fn key_at_once(from: &ProfileSysctl, to: &ProfileSysctl) -> (Option<ProfileSysctl>, bool) {
    match (limits(from), limits(to)) {
        (Some((old, old_ceiling)), Some((floor, ceiling))) => {
            let mut both = with_limits(to, old.max(floor), old_ceiling.max(ceiling));
            if floor < old {
                both.reason = shortened(format!(
                    "{floor} when the rollout reaches this node: {}",
                    to.reason
                ));
            }
            (Some(both), floor > old)
        }
        _ if from.rule == to.rule && from.value == to.value => (Some(to.clone()), false),
        _ => {
            let reason = format!(
                "{} when the rollout reaches this node: {}",
                to.value, to.reason
            );
            let kept = ProfileSysctl {
                reason: shortened(reason),
                ..from.clone()
            };
            (Some(kept), false)
        }
    }
}

/// The desired spec, with every limit that it would lower kept; `None` if it lowers none of those in `which`.
pub(crate) fn not_lowered(
    from: &NodeNetworkProfileSpec,
    to: &NodeNetworkProfileSpec,
    why: &str,
    which: impl Fn(&ProfileSysctl) -> bool,
) -> Option<NodeNetworkProfileSpec> {
    // In mode Observe nothing was written, so there is nothing to lower.
    if from.mode == Mode::Observe || to.mode == Mode::Observe {
        return None;
    }
    let old = by_name(from);
    let mut kept = to.clone();
    let mut any = false;
    for sysctl in kept.sysctls.iter_mut().filter(|sysctl| which(sysctl)) {
        let Some((old, _)) = old.get(sysctl.name.as_str()).and_then(|old| limits(old)) else {
            continue;
        };
        match limits(sysctl) {
            Some((floor, ceiling)) if floor < old => {
                any = true;
                let reason = format!("{old} kept {why}; {floor} desired: {}", sysctl.reason);
                *sysctl = with_limits(sysctl, old, ceiling.max(old));
                sysctl.reason = shortened(reason);
            }
            _ => {}
        }
    }
    any.then_some(kept)
}

fn by_name(spec: &NodeNetworkProfileSpec) -> BTreeMap<&str, &ProfileSysctl> {
    spec.sysctls
        .iter()
        .map(|sysctl| (sysctl.name.as_str(), sysctl))
        .collect()
}

/// Minimum and ceiling of a limit.
fn limits(sysctl: &ProfileSysctl) -> Option<(u64, u64)> {
    if sysctl.rule == Rule::Exact {
        return None;
    }
    let floor = sysctl.value.parse().ok()?;
    let ceiling = sysctl.ceiling.and_then(|ceiling| ceiling.try_into().ok());
    Some((floor, ceiling.unwrap_or(floor)))
}

fn with_limits(sysctl: &ProfileSysctl, floor: u64, ceiling: u64) -> ProfileSysctl {
    ProfileSysctl {
        value: floor.to_string(),
        ceiling: Some(i64::try_from(ceiling).unwrap_or(i64::MAX)),
        ..sysctl.clone()
    }
}

/// A reason has at most 1024 characters, by the schema.
fn shortened(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(1024) {
        reason.truncate(end);
    }
    reason
}

fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Observe => 0,
        Mode::ApplyOnce => 1,
        Mode::Enforce => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mode: Mode, sysctls: &[(&str, Rule, &str)]) -> NodeNetworkProfileSpec {
        NodeNetworkProfileSpec {
            mode,
            sysctls: sysctls
                .iter()
                .map(|(name, rule, value)| ProfileSysctl {
                    name: (*name).to_owned(),
                    rule: *rule,
                    value: (*value).to_owned(),
                    ceiling: (*rule == Rule::AtLeast).then_some(1000),
                    reason: String::new(),
                })
                .collect(),
            ..NodeNetworkProfileSpec::default()
        }
    }

    use Mode::{ApplyOnce, Enforce, Observe};
    use Rule::{AtLeast, Exact};

    /// From, to, what is written at once, and whether that is urgent.
    type Case<'a> = (
        (Mode, &'a [(&'a str, Rule, &'a str)]),
        (Mode, &'a [(&'a str, Rule, &'a str)]),
        (Mode, &'a [(&'a str, Rule, &'a str)]),
        bool,
    );

    #[test]
    fn only_what_can_do_no_harm_goes_out_at_once() {
        let limit: fn(&'static str) -> [(&'static str, Rule, &'static str); 1] =
            |value| [("a", AtLeast, value)];
        let exact: fn(&'static str) -> [(&'static str, Rule, &'static str); 1] =
            |value| [("a", Exact, value)];
        let both = [("a", AtLeast, "2"), ("b", Exact, "1")];
        let (two, one, three) = (limit("2"), limit("1"), limit("3"));
        let (is_two, is_one) = (exact("2"), exact("1"));
        let cases: &[Case<'_>] = &[
            // A raised limit; a lowered limit.
            ((Enforce, &two), (Enforce, &three), (Enforce, &three), true),
            ((Enforce, &two), (Enforce, &one), (Enforce, &two), false),
            // A fixed value, also one that becomes or was a limit.
            (
                (Enforce, &is_one),
                (Enforce, &is_two),
                (Enforce, &is_one),
                false,
            ),
            (
                (Enforce, &is_one),
                (Enforce, &two),
                (Enforce, &is_one),
                false,
            ),
            ((Enforce, &one), (Enforce, &is_two), (Enforce, &one), false),
            // One more limit; one more fixed value; one fewer.
            ((Enforce, &[]), (Enforce, &two), (Enforce, &two), true),
            ((Enforce, &two), (Enforce, &both), (Enforce, &two), false),
            ((Enforce, &one), (Enforce, &both), (Enforce, &two), true),
            ((Enforce, &both), (Enforce, &two), (Enforce, &both), false),
            // Less strict: no value reaches a kernel.
            (
                (Enforce, &is_one),
                (Observe, &is_two),
                (Observe, &is_two),
                true,
            ),
            (
                (Enforce, &is_one),
                (ApplyOnce, &is_one),
                (ApplyOnce, &is_one),
                true,
            ),
            (
                (Enforce, &is_one),
                (ApplyOnce, &is_two),
                (ApplyOnce, &is_one),
                true,
            ),
            // Stricter: fixed values are enforced again.
            (
                (ApplyOnce, &is_one),
                (Enforce, &is_one),
                (ApplyOnce, &is_one),
                false,
            ),
            ((Observe, &one), (Enforce, &two), (Enforce, &two), true),
            ((Observe, &one), (Enforce, &both), (Observe, &two), false),
        ];
        for (from, to, expected, urgent) in cases {
            let found = at_once(Some(&spec(from.0, from.1)), &spec(to.0, to.1));
            let mut without_reasons = found.spec;
            for sysctl in &mut without_reasons.sysctls {
                sysctl.reason.clear();
            }
            let expected = spec(expected.0, expected.1);
            assert_eq!(
                (without_reasons, found.urgent),
                (expected, *urgent),
                "{from:?} to {to:?}"
            );
        }
    }

    #[test]
    fn a_node_without_a_profile_gets_its_limits_at_once() {
        let to = spec(Enforce, &[("a", AtLeast, "2"), ("b", Exact, "1")]);
        let found = at_once(None, &to);
        assert_eq!(found.spec, spec(Enforce, &[("a", AtLeast, "2")]));
    }

    #[test]
    fn a_value_that_is_yet_to_come_is_not_given_back_before() {
        let restoring = |sysctls| NodeNetworkProfileSpec {
            release_policy: ReleasePolicy::Restore,
            ..spec(Enforce, sysctls)
        };
        let to = restoring(&[("a", AtLeast, "2"), ("b", Exact, "1")]);
        let none = at_once(None, &to).spec;
        let less = at_once(Some(&restoring(&[("a", AtLeast, "1")])), &to).spec;
        for partial in [none, less] {
            assert_eq!(partial.release_policy, ReleasePolicy::Retain);
        }
        let whole = restoring(&[("a", AtLeast, "2")]);
        assert_eq!(at_once(None, &whole).spec, whole);
    }

    #[test]
    fn a_release_is_taken_back_at_once() {
        let mut from = spec(Enforce, &[("a", Exact, "2")]);
        from.release = true;
        let found = at_once(Some(&from), &spec(Enforce, &[("a", Exact, "1")]));
        assert!(found.urgent && !found.spec.release);
        assert_eq!(found.spec.sysctls[0].value, "2");
    }

    #[test]
    fn a_lowered_limit_can_be_kept_while_the_rest_changes() {
        let from = spec(Enforce, &[("a", AtLeast, "8"), ("b", Exact, "1")]);
        let to = spec(Enforce, &[("a", AtLeast, "4"), ("b", Exact, "2")]);
        let kept = not_lowered(&from, &to, "for a while", |_| true).unwrap();
        assert_eq!(kept.sysctls[0].value, "8");
        assert_eq!(kept.sysctls[0].reason, "8 kept for a while; 4 desired: ");
        assert_eq!(kept.sysctls[1].value, "2");
        assert_eq!(not_lowered(&to, &from, "", |_| true), None);
    }
}
