//! The node selector of a tuning, ready to match.

use kube::core::Expression;

use crate::tuning::node_selector::{NodeSelector, Requirement, SelectorOperator};

/// A valid node selector.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeLabels(Vec<Expression>);

/// A requirement that the schema would reject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    #[error("the requirement on {key:?} has no values; In and NotIn require values")]
    NoValues { key: String },
    #[error("the requirement on {key:?} has values; Exists and DoesNotExist must not have values")]
    NeedlessValues { key: String },
}

impl NodeLabels {
    /// Whether a node with these labels is selected.
    #[must_use]
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Expression::In(key, values) => value(key).is_some_and(|is| values.contains(is)),
            Expression::NotIn(key, values) => value(key).is_none_or(|is| !values.contains(is)),
            Expression::Exists(key) => value(key).is_some(),
            Expression::DoesNotExist(key) => value(key).is_none(),
            Expression::Equal(key, wanted) => value(key) == Some(wanted.as_str()),
            Expression::NotEqual(key, other) => value(key) != Some(other.as_str()),
        })
    }
}

impl TryFrom<&NodeSelector> for NodeLabels {
    type Error = InvalidSelector;

    fn try_from(selector: &NodeSelector) -> Result<Self, Self::Error> {
        let labels = selector
            .match_labels
            .iter()
            .map(|(key, value)| Ok(Expression::Equal(key.clone(), value.clone())));
        let requirements = selector.match_expressions.iter().map(expression);
        labels
            .chain(requirements)
            .collect::<Result<Vec<_>, _>>()
            .map(Self)
    }
}

fn expression(requirement: &Requirement) -> Result<Expression, InvalidSelector> {
    let key = requirement.key.clone();
    let values = requirement.values.iter().cloned().collect();
    let takes_values = matches!(
        requirement.operator,
        SelectorOperator::In | SelectorOperator::NotIn
    );
    match (takes_values, requirement.values.is_empty()) {
        (true, true) => return Err(InvalidSelector::NoValues { key }),
        (false, false) => return Err(InvalidSelector::NeedlessValues { key }),
        _ => {}
    }
    Ok(match requirement.operator {
        SelectorOperator::In => Expression::In(key, values),
        SelectorOperator::NotIn => Expression::NotIn(key, values),
        SelectorOperator::Exists => Expression::Exists(key),
        SelectorOperator::DoesNotExist => Expression::DoesNotExist(key),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn selects(selector: &NodeSelector, labels: &[(&str, &str)]) -> bool {
        let selector = NodeLabels::try_from(selector).unwrap();
        let labels = BTreeMap::from_iter(labels.iter().copied());
        selector.matches(|key| labels.get(key).copied())
    }

    #[test]
    fn an_empty_selector_selects_every_node() {
        assert!(selects(&NodeSelector::default(), &[]));
    }

    #[test]
    fn labels_and_requirements_must_all_match() {
        let selector = NodeSelector {
            match_labels: BTreeMap::from([("pool".into(), "big".into())]),
            match_expressions: vec![Requirement {
                key: "zone".into(),
                operator: SelectorOperator::NotIn,
                values: vec!["b".into()],
            }],
        };
        assert!(selects(&selector, &[("pool", "big"), ("zone", "a")]));
        assert!(selects(&selector, &[("pool", "big")]));
        assert!(!selects(&selector, &[("pool", "big"), ("zone", "b")]));
        assert!(!selects(&selector, &[("zone", "a")]));
    }

    #[test]
    fn each_operator_selects_by_value_or_absence() {
        use SelectorOperator::{DoesNotExist, Exists, In, NotIn};
        // Selected with "a", with "b", without the label.
        for (operator, values, selected) in [
            (In, vec!["a"], [true, false, false]),
            (NotIn, vec!["a"], [false, true, true]),
            (Exists, vec![], [true, true, false]),
            (DoesNotExist, vec![], [false, false, true]),
        ] {
            let selector = NodeSelector {
                match_labels: BTreeMap::new(),
                match_expressions: vec![Requirement {
                    key: "zone".into(),
                    operator,
                    values: values.into_iter().map(str::to_owned).collect(),
                }],
            };
            let nodes: [&[(&str, &str)]; 3] = [&[("zone", "a")], &[("zone", "b")], &[]];
            let found = nodes.map(|labels| selects(&selector, labels));
            assert_eq!(found, selected, "{selector:?}");
        }
    }

    #[test]
    fn values_with_exists_are_an_error() {
        let selector = NodeSelector {
            match_labels: BTreeMap::new(),
            match_expressions: vec![Requirement {
                key: "zone".into(),
                operator: SelectorOperator::Exists,
                values: vec!["b".into()],
            }],
        };
        assert!(NodeLabels::try_from(&selector).is_err());
    }
}
